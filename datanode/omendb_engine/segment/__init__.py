"""Immutable Arrow segments and the manifest that says which exist."""

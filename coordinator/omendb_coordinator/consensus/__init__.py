"""Consensus: the one place that knows how a group of coordinators agrees."""

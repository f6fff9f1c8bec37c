"""Payload columns of growing buffers and segments, their indexes and statistics."""

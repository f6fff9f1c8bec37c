"""Data sets with exact ground truth: one that ships with the repository, and generators for larger ones."""

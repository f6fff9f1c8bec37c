"""Benchmarks of OmenDB alone and beside its peers; run `python -m benchmarks --help`."""

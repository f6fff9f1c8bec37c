"""Faults as instruments: simulated disks, kill drivers and checkers."""

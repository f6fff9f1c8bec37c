"""Simulated disks and clocks that run the real engine code from one seed."""

"""The catalog under faults: clients that change it and read it, simulated or against real processes."""

"""Real fleets of processes, shaken: the harness, the oracle of what may be there, and a look into every replica."""

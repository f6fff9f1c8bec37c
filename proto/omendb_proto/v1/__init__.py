"""Version 1 of the wire contract, and the code that `make proto` generates from it."""

"""What decides, from the outside, whether a history of calls keeps a promise."""

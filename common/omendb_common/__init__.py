"""The vocabulary every OmenDB process shares."""

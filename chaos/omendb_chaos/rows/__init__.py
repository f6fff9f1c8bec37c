"""The rows of the reliability table, one module each, runnable alone by its number."""

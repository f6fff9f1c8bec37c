"""The ``omendb`` command; typer and rich are imported here and nowhere else."""

"""Planning and running one query over the parts of a replica."""

"""`omendb serve`: one coordinator, one router and one data node in one process, over one database folder."""

"""One adapter per database, all behind the protocol of `adapter.py`."""

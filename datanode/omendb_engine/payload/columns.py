"""Payload columns of a replica's parts: the growing buffer's and the segments'."""

from omendb_engine.payload.batches import BatchColumns, GrowingColumns
from omendb_engine.payload.cache import ColumnCache
from omendb_engine.payload.parquet import ParquetColumns, write_payload_parquet
from omendb_engine.payload.store import Catalog, ColumnStore

__all__ = [
    "BatchColumns",
    "Catalog",
    "ColumnCache",
    "ColumnStore",
    "GrowingColumns",
    "ParquetColumns",
    "write_payload_parquet",
]

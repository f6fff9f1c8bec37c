"""OmenDB: a vector database that starts as a folder.

::

    import omendb

    db = omendb.open("./my.db")
    db.add_batch(vectors=vectors, metadata={"category": categories})
    db.search(query, k=10, filters={"category": "shoes"})

    client = omendb.Client("http://localhost:8480")  # the same calls, on a cluster

Names are imported when they are first used, so that ``import omendb`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omendb.aio import AsyncClient, AsyncCollection
    from omendb.client import Client
    from omendb.collection import Collection
    from omendb.database import Database
    from omendb.opening import DB, open
    from omendb.records import Deleted, Page, Record, WriteResult
    from omendb.results import Hit, SearchResults
    from omendb_common.errors import (
        AlreadyExistsError,
        CorruptionError,
        DatabaseClosedError,
        DatabaseLockedError,
        DeadlineExceededError,
        DiskFullError,
        FormatVersionError,
        InvalidArgumentError,
        NotFoundError,
        OmenDBError,
        PermissionDeniedError,
        ReadOnlyError,
        ReplicaFailedError,
        ResourceExhaustedError,
        UnauthenticatedError,
        UnavailableError,
        VersionConflictError,
    )
    from omendb_common.explanation import Explanation, SegmentPlan
    from omendb_common.filters import FilterOp
    from omendb_common.schema import VectorField

__version__ = "0.1.0"

__all__ = [
    "DB",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncCollection",
    "Client",
    "Collection",
    "CorruptionError",
    "Database",
    "DatabaseClosedError",
    "DatabaseLockedError",
    "DeadlineExceededError",
    "Deleted",
    "DiskFullError",
    "Explanation",
    "FilterOp",
    "FormatVersionError",
    "Hit",
    "InvalidArgumentError",
    "NotFoundError",
    "OmenDBError",
    "Page",
    "PermissionDeniedError",
    "ReadOnlyError",
    "Record",
    "ReplicaFailedError",
    "ResourceExhaustedError",
    "SearchResults",
    "SegmentPlan",
    "UnauthenticatedError",
    "UnavailableError",
    "VectorField",
    "VersionConflictError",
    "WriteResult",
    "__version__",
    "open",
]

_HOMES = {
    "omendb.aio": ("AsyncClient", "AsyncCollection"),
    "omendb.client": ("Client",),
    "omendb.collection": ("Collection",),
    "omendb.database": ("Database",),
    "omendb.opening": ("DB", "open"),
    "omendb.records": ("Deleted", "Page", "Record", "WriteResult"),
    "omendb.results": ("Hit", "SearchResults"),
    "omendb_common.explanation": ("Explanation", "SegmentPlan"),
    "omendb_common.filters": ("FilterOp",),
    "omendb_common.schema": ("VectorField",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'omendb' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF.get(name, "omendb_common.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

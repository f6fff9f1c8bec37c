"""What a database must be able to do to be compared.

Adapters run inside the database's own virtualenv, so this package imports the standard library and NumPy
only, and each adapter its database on top. Rows are numbered from 0 in the order they are written, and a
row's number is its id.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Float32Matrix = npt.NDArray[np.float32]

# The payload: `bucket` is an integer 0..999 that filters cut by (`bucket < b`), `label` a short string.
BUCKET = "bucket"
LABEL = "label"
# HNSW parameters given to every database that takes them, so that the graphs are alike.
HNSW_M = 16
HNSW_EF_CONSTRUCTION = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows: what a user of the database has in hand before a write."""

    first: int
    vectors: Float32Matrix
    buckets: npt.NDArray[np.int64]
    labels: list[str]

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.vectors)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """The rows' numbers, which are their ids."""
        return np.arange(self.first, self.first + self.n, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Space:
    """What a collection holds: dimension, and metric `l2` or `cosine`."""

    dimension: int
    metric: str


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to run the database's writes: its name in the tables and what an acknowledgement means."""

    name: str
    meaning: str


_AS_IT_COMES = "as it comes"
_STRONGEST = "strongest"
# Of every database: first as it comes, then its strongest durability, where it has one. Here and not in the
# adapters, as those can be imported only where their databases are.
MODES = {
    "omendb": (
        Mode("fsync", "fdatasync before every acknowledgement (its default)"),
        Mode("os", "in its log, not synced"),
    ),
    "qdrant-edge": (Mode(_AS_IT_COMES, "in its log, not synced"), Mode(_STRONGEST, "flush() after every batch")),
    "zvec": (Mode(_AS_IT_COMES, "in its log, not synced"), Mode(_STRONGEST, "flush() after every batch")),
    "lancedb": (Mode(_AS_IT_COMES, "never synced; it has no setting for it"),),
    "chromadb": (Mode(_AS_IT_COMES, "SQLite transaction, synced"),),
    "milvus-lite": (Mode(_AS_IT_COMES, "in its log, not synced"), Mode(_STRONGEST, "flush() after every batch")),
    "sqlite-vec": (Mode(_AS_IT_COMES, "rollback journal, synced"), Mode(_STRONGEST, "PRAGMA synchronous=EXTRA")),
}
NAMES = tuple(MODES)
PEERS = NAMES[1:]


class Adapter(Protocol):
    """One database under test. A method may raise anything: the run is isolated in its own process."""

    package: str
    """The distribution's name, for the version in the tables."""
    effort_name: str
    index_note: str
    """What the index is, in a few words."""

    @property
    def efforts(self) -> Sequence[int]:
        """The values of the search effort parameter to sweep, rising; one 0 for a database without one."""
        ...

    def create(self, folder: Path, space: Space, mode: str) -> None:
        """Make an empty database in `folder`, which does not exist yet."""
        ...

    def prepare(self, batch: Batch) -> Any:
        """Turn a batch into what the database's write call takes."""
        ...

    def insert(self, prepared: Any) -> None:
        """Write one batch; on return it is acknowledged, as durable as the mode says."""
        ...

    def finish(self) -> None:
        """Wait until everything written is indexed as the database would have it for searching."""
        ...

    def search(self, query: npt.NDArray[np.float32], k: int, effort: int, below: int | None) -> Any:
        """Find the `k` nearest rows, with `bucket < below` unless `below` is None; answers are native."""
        ...

    def rows(self, answer: Any) -> list[int]:
        """Turn a native answer into row numbers, nearest first (not timed)."""
        ...

    def open(self, folder: Path, space: Space) -> None:
        """Open what an earlier process wrote into `folder`."""
        ...

    def close(self) -> None:
        """Close the database."""
        ...


def load_adapter(name: str) -> Adapter:
    """Import and make the adapter of the database called `name`."""
    module = importlib.import_module(f"benchmarks.adapters.{name.replace('-', '_')}_adapter")
    made: Adapter = module.make()
    return made

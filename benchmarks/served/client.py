"""What the client of a server must be able to do to be compared, and the servers that there are.

Clients run inside the peer's own virtualenv, so this module imports the standard library and NumPy only, and
each client its database on top. A row's number is its id.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.adapters.adapter import Batch, Mode, Space

# Of every server the ways in which its writes are measured; everything else is measured in the first.
MODES = {
    "omendb": (Mode("fsync", "fdatasync"),),
    "omendb-fleet": (Mode("fsync, W=2 of N=3", "fdatasync on two of three nodes"),),
    "pgvector": (
        Mode("index built after", "WAL, fdatasync"),
        Mode("index in place", "WAL, fdatasync"),
    ),
    "redis-stack": (
        Mode("AOF always", "append-only file, fdatasync"),
        Mode("AOF everysec", "append-only file, synced within a second"),
    ),
    "milvus": (Mode("as it comes", "RocksDB log, not synced"),),
    "milvus-lite": (
        Mode("as it comes", "its log, not synced"),
        Mode("strongest", "flush() after every batch"),
    ),
    "chroma": (Mode("as it comes", "SQLite transaction, synced"),),
}
NAMES = tuple(MODES)
# The virtualenv that a server and its client live in.
VENVS = {"omendb-fleet": "omendb", "chroma": "chromadb"}
COLLECTION = "bench"
WARM_UP = "warmup"


class ServerClient(Protocol):
    """A connected client of one server. A method may raise anything: the worker is a process of its own."""

    package: str
    """The distribution's name of the client, for the version in the report."""
    effort_name: str
    index_note: str
    effort_needs_restart: bool
    """Whether a changed search effort counts only after the server was started again."""

    @property
    def efforts(self) -> Sequence[int]:
        """The values of the search effort to sweep, rising."""
        ...

    def connect(self, address: str) -> None:
        """Connect to ``host:port`` (several with commas); raises while the server does not serve yet."""
        ...

    def server_version(self) -> str:
        """What the connected server says of itself, or what its environment installed."""
        ...

    def create(self, name: str, space: Space, mode: str) -> None:
        """Make an empty collection and work on it."""
        ...

    def use(self, name: str, space: Space, mode: str) -> None:
        """Work on a collection that exists."""
        ...

    def drop(self, name: str) -> None:
        """Remove a collection."""
        ...

    def prepare(self, batch: Batch) -> Any:
        """Turn a batch into what the client's write call takes."""
        ...

    def insert(self, prepared: Any) -> None:
        """Write one batch; on return it is acknowledged, as durable as the mode says."""
        ...

    def finish(self) -> None:
        """Wait until everything written is indexed as the server would have it for searching."""
        ...

    def set_effort(self, effort: int) -> None:
        """Choose the search effort of the searches that follow."""
        ...

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> Any:
        """Find the ``k`` nearest rows, with ``bucket < below`` unless it is None; answers are native."""
        ...

    def rows(self, answer: Any) -> list[int]:
        """Turn a native answer into row numbers, nearest first (not timed)."""
        ...

    def present(self, ids: Sequence[int]) -> int:
        """Count which of these rows the server holds."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


def load_client(server: str) -> ServerClient:
    """Import and make the client of the server called ``server``."""
    stem = {"omendb-fleet": "omendb", "milvus-lite": "milvus"}.get(server, server.replace("-", "_"))
    module = importlib.import_module(f"benchmarks.served.{stem}_client")
    made: ServerClient = module.make(server)
    return made


def venv(server: str) -> str:
    """The name of the virtualenv of a server, as `setup_competitors` knows it."""
    return VENVS.get(server, server)

"""The ways to run OmenDB, each as something that hands out empty databases."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import omendb
from omendb.database import Database
from tests.unit.sdk.memory_backend import MemoryBackend


@dataclass(frozen=True)
class Deployment:
    """One way to run the database.

    ``replication``: copies of a point. ``durability``: what a write is acknowledged with. ``is_engine``: whether the
    engine answers, with all its filters (the backend in memory knows equality only).
    """

    name: str
    fresh: Callable[[Path], contextlib.AbstractContextManager[Database]]
    replication: int = 1
    durability: str = "os"
    is_engine: bool = True


@contextlib.contextmanager
def _memory(folder: Path) -> Iterator[Database]:
    with Database(MemoryBackend()) as database:
        yield database


@contextlib.contextmanager
def _embedded(folder: Path) -> Iterator[Database]:
    with omendb.open(folder / "db", durability="os") as database:
        yield database


MEMORY = Deployment("memory", _memory, is_engine=False)
EMBEDDED = Deployment("embedded", _embedded)


def behind(url: str | list[str], name: str, *, replication: int, durability: str) -> Deployment:
    """A server or a cluster at ``url``: a fresh database is one that was emptied."""

    @contextlib.contextmanager
    def emptied(folder: Path) -> Iterator[Database]:
        with omendb.Client(url) as client:
            for collection in client.list_collections():
                client.drop_collection(collection)
            yield client

    return Deployment(name, emptied, replication, durability)


__all__ = ["EMBEDDED", "MEMORY", "Deployment", "behind"]

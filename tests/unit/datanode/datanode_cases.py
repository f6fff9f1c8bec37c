"""A data node's rules over replicas of this process: a map that the test makes, a clock that it turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.clock import SystemClock
from omendb_common.config import EngineSettings
from omendb_common.deadline import Deadline
from omendb_common.disk import Disk
from omendb_common.hlc import EPOCH_MS
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.shard_calls import Applied, Apply, ShardRef
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosted import Hosted
from omendb_datanode.shard_rules import ShardRules
from omendb_datanode.write_queue import WriteLimits
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from tests.unit.engine.engine_cases import UnsyncedDisk, schema_of, settings_of

EPOCH = 7
ORIGIN = 3


@dataclass
class TurnedClock:
    """Wall time as the test says; monotonic time as the machine has it."""

    ms: int = EPOCH_MS + 1_000_000

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return self.ms

    def mono_s(self) -> float:
        """Seconds."""
        return SystemClock().mono_s()

    def stamp(self, ahead_ms: int = 0, counter: int = 0) -> int:
        """The stamp of a moment ``ahead_ms`` from now."""
        return ((self.ms + ahead_ms - EPOCH_MS) << 22) | (counter << 12) | ORIGIN


@dataclass
class Map:
    """The replicas that a node would have under a map; ``coming`` is what a refresh brings."""

    hosted: dict[tuple[str, int], Hosted] = field(default_factory=dict)
    coming: dict[tuple[str, int], Hosted] = field(default_factory=dict)
    revision: int = EPOCH
    asked: list[int] = field(default_factory=list)

    def find(self, shard: ShardRef) -> Hosted | None:
        """By collection and number."""
        return self.hosted.get((shard.collection_uuid, shard.shard_id))

    async def refresh(self, revision: int, deadline: Deadline) -> None:
        """Bring what is coming."""
        self.asked.append(revision)
        self.hosted |= self.coming
        self.revision = max([self.revision, *(h.epoch for h in self.coming.values())])


class Node:
    """The rules of a node with one replica of one shard, and short words for calls."""

    def __init__(self, replica: Replica, *, limits: WriteLimits | None = None, reads_max: int = 64) -> None:
        self.replica = replica
        self.clock = TurnedClock()
        self.map = Map({(replica.schema.uuid, 0): Hosted(replica, EPOCH)})
        self.threads = EngineThreads(readers=2, writers=2, reads_max=reads_max)
        self.rules = ShardRules(self.map, self.clock, self.threads, write_limits=limits)

    @property
    def shard(self) -> ShardRef:
        """The shard under the map that the node has."""
        return ShardRef(self.replica.schema.uuid, 0, EPOCH, ORIGIN)

    def deadline(self, timeout_s: float = 20.0) -> Deadline:
        """A moment that no test reaches."""
        return Deadline.after(self.clock, timeout_s)

    async def apply(self, batch: WriteBatch, stamp: int, **more: Any) -> Applied:
        """Write under the node's map."""
        return await self.rules.apply(Apply(self.shard, stamp, batch, **more), self.deadline())


def upsert(ids: Any, payload: Sequence[Mapping[str, Any]] | None = None, seed: int = 0) -> WriteBatch:
    """An upsert of random vectors of 4 dimensions."""
    column = IdColumn.of(ids)
    return WriteBatch(
        Op.UPSERT, column, {"": vectors(len(column), seed)}, columns_from_rows(payload) if payload else None
    )


def update(ids: Any, payload: Sequence[Mapping[str, Any]] | None = None, unset: tuple[str, ...] = ()) -> WriteBatch:
    """A partial update of the payload."""
    return WriteBatch(Op.UPDATE, IdColumn.of(ids), {}, columns_from_rows(payload) if payload else None, None, unset)


def delete(ids: Any) -> WriteBatch:
    """A deletion."""
    return WriteBatch(Op.DELETE, IdColumn.of(ids))


def vectors(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """``n`` vectors."""
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)


def open_one(
    path: Path, settings: EngineSettings | None = None, schema: CollectionSchema | None = None, disk: Disk | None = None
) -> Replica:
    """A replica as a data node opens it."""
    settings = settings or settings_of(rows=50)
    schema = schema or schema_of(VectorField(4))
    disk = disk or UnsyncedDisk()
    if not path.exists():
        Replica.create(disk, str(path), schema, SystemClock())
    return Replica.open(
        disk, str(path), schema.uuid, Resources(settings), settings, SystemClock(), keep_tombstones=True
    )


@contextmanager
def node_in(path: Path, settings: EngineSettings | None = None, **more: Any) -> Iterator[Node]:
    """A node with an empty replica below ``path``."""
    node = Node(open_one(path / "replica", settings), **more)
    try:
        yield node
    finally:
        node.threads.close()
        node.replica.close()

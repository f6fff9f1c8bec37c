"""What the faces ask of the router, as values: one protocol under gRPC and REST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.deadline import Deadline
from omendb_common.explanation import Explanation
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.metadata import NewCollection
from omendb_common.shard_calls import Float32, Int64, Work
from omendb_common.topology import CollectionInfo, Topology

Consistency = Literal["one", "session", "verified", "quorum", "majority"]
"""``majority`` is another name of ``quorum``."""
CONSISTENCIES: tuple[str, ...] = get_args(Consistency)


class Seen(NamedTuple):
    """Which state a read must show. ``consistency`` None: the operation's own; with a token, ``session``."""

    consistency: Consistency | None = None
    session: bytes = b""


@dataclass(frozen=True, slots=True)
class Written:
    """A write that was committed. ``count``: points written, or for a delete, points that existed.

    ``session``: the token that makes a read see this write. ``superseded``: points of a repetition (``retry_stamp``)
    that carry a newer version by now: whether this one was ever seen is not known.
    """

    ids: IdColumn
    count: int
    stamp: int
    lsn: int
    durability: str
    session: bytes = b""
    superseded: int = 0


class Question(NamedTuple):
    """The ``k`` nearest of every row of ``queries`` (m, dimension), float32 and finite.

    ``payload`` and ``vectors`` (of the searched field): what to answer beside ids and distances.
    """

    queries: npt.NDArray[Any]
    k: int
    field: str = ""
    condition: Filter | None = None
    exact: bool = False
    ef: int | None = None
    recall_target: float | None = None
    score_threshold: float | None = None
    payload: bool = False
    vectors: bool = False


class Hits(NamedTuple):
    """Row i of ``distances`` (m, k) has ``counts[i]`` hits, nearest first; the other columns are flat, query by query.

    ``stale_possible``: fewer replicas answered than prove that nothing newer was acknowledged.
    """

    distances: Float32
    counts: Int64
    ids: IdColumn
    payload: pa.RecordBatch | None
    vectors: npt.NDArray[Any] | None
    work: Work
    latency_ms: float
    session: bytes = b""
    stale_possible: bool = False

    def flat_distances(self) -> Float32:
        """The distances of all hits, query by query."""
        if self.distances.size == len(self.ids):
            return self.distances.reshape(-1)
        held = np.arange(self.distances.shape[1]) < self.counts[:, None]
        flat: Float32 = self.distances[held]
        return flat


@dataclass(frozen=True, slots=True)
class Found:
    """The points that exist, in the order asked, their ``positions`` among the ids asked for, their ``versions``."""

    ids: IdColumn
    positions: Int64
    payload: pa.RecordBatch | None = None
    vectors: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    versions: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))


@dataclass(frozen=True, slots=True)
class PointPage:
    """Some points and the cursor of the next page, None at the end."""

    ids: IdColumn
    cursor: str | None
    payload: pa.RecordBatch | None = None
    vectors: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    versions: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))


class RouterCalls(Protocol):
    """A router as its faces see it.

    Inputs are checked for their form before they come here (types, limits of one argument, finite vectors of the
    collection's dimension and element type); what needs the state of the collection is checked behind it. Raises the
    errors of :mod:`omendb_common.errors`. Cancelling a write does not undo it, and leaves none half sent (P20).
    """

    @property
    def topology(self) -> Topology:
        """The newest topology seen."""

    async def find(self, name: str, deadline: Deadline) -> CollectionInfo:
        """The collection of that name or alias, asking for news when it is not known; NotFoundError."""

    async def create_collection(self, new: NewCollection, deadline: Deadline) -> CollectionInfo:
        """Make a collection; AlreadyExistsError when the name is taken."""

    async def drop_collection(self, name: str, deadline: Deadline) -> None:
        """Delete a collection; NotFoundError when there is none."""

    async def rename_collection(self, old: str, new: str, deadline: Deadline) -> CollectionInfo:
        """Give a collection another name."""

    async def alter_collection(
        self,
        name: str,
        replication: int | None,
        write_quorum: int | None,
        read_quorum: int | None,
        deadline: Deadline,
    ) -> CollectionInfo:
        """Ask for another replication and other quorums; None leaves one as it is."""

    async def upsert(
        self,
        collection: str,
        ids: IdColumn | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        n: int,
        *,
        create_only: bool = False,
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Store points; ``ids`` None numbers them; of one id's rows the last wins.

        ``versions``, here and below (n,): write all points or none, VersionConflictError unless each has this version,
        0 where it must not exist; the ids differ then. The version of a point is what ``get`` and ``scroll`` tell.
        """

    async def update(
        self,
        collection: str,
        ids: IdColumn,
        vectors: Mapping[str, npt.NDArray[Any]] | None,
        payload: pa.RecordBatch | None,
        *,
        unset: Sequence[str] = (),
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Change parts of points; NotFoundError when one does not exist, and nothing was changed."""

    async def delete(
        self,
        collection: str,
        ids: IdColumn,
        *,
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Delete points; ids that do not exist are no error."""

    async def delete_where(
        self, collection: str, condition: Filter, *, retry_stamp: int | None = None, deadline: Deadline
    ) -> Written:
        """Delete the points that match."""

    async def search(self, collection: str, question: Question, *, seen: Seen, deadline: Deadline) -> Hits:
        """Search."""

    async def explain(self, collection: str, question: Question, *, measure: bool, deadline: Deadline) -> Explanation:
        """How one replica of each shard searches; ``measure``: and what part of an exact search's hits that finds."""

    async def get(
        self, collection: str, ids: IdColumn, *, payload: bool, vectors: bool, seen: Seen, deadline: Deadline
    ) -> Found:
        """Read points by id."""

    async def scroll(
        self,
        collection: str,
        cursor: str | None,
        limit: int,
        condition: Filter | None = None,
        *,
        payload: bool,
        vectors: bool,
        seen: Seen,
        deadline: Deadline,
    ) -> PointPage:
        """A page of points in a fixed order."""

    async def count(self, collection: str, condition: Filter | None, *, seen: Seen, deadline: Deadline) -> int:
        """How many points there are, or match."""

    async def stats(self, collection: str, deadline: Deadline) -> dict[str, Any]:
        """Numbers about the collection, as JSON values."""

    async def wait_until_indexed(self, collection: str, timeout_s: float, deadline: Deadline) -> bool:
        """Wait until every segment has its index; whether it came to that."""

    async def flush(self, collection: str, deadline: Deadline) -> None:
        """Turn the growing buffers into segments now."""

    async def compact(self, collection: str, deadline: Deadline) -> None:
        """Merge and clean segments now."""

    async def verify(self, collection: str, deadline: Deadline) -> dict[str, Any]:
        """Compare the replicas of every shard; whether all are ``equal``, and what was found of each of ``shards``."""

    async def cluster_status(self, deadline: Deadline) -> dict[str, Any]:
        """Members, collections and shards, for people."""


__all__ = [
    "CONSISTENCIES",
    "Consistency",
    "Found",
    "Hits",
    "PointPage",
    "Question",
    "RouterCalls",
    "Seen",
    "Written",
]

"""What a router, or another data node, asks of a data node, as values, and the port through which it asks.

The wire form of these values is the matter of ``wire``; the router's decisions and the data node's rules know only
what stands here, so that both run in one process, in a simulation, or over a network without a difference.

Rule numbers (P2 …) are those of the replication protocol, ``docs/replication.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.explanation import Explanation
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.overlays import NO_OVERLAYS, Overlays
from omendb_common.records import WriteBatch

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

MAX_AHEAD_MS = 2_000
"""A stamp further ahead of a data node's clock than this is refused (P2)."""

RECALL_S = 30.0
"""So long replicas remember which versions others gave them; no router stamps a write anew that took longer (P4)."""

TREE_DEPTH_MAX = 16
"""A replica's hash tree has 2^16 leaves (P12); replicas of few records are compared at a level above them."""
TREE_NODES_MAX = 8192
"""Nodes that one call asks for."""
ENTRIES_MAX = 8192
"""Records that one page lists."""


class ShardRef(NamedTuple):
    """Which shard, under which map (P15). ``origin`` is the router's lease."""

    collection_uuid: str
    shard_id: int
    epoch: int
    origin: int


class Verdict(IntEnum):
    """What a replica said to a call. Everything but OK means: nothing was applied, nothing was read."""

    OK = 1
    STALE_EPOCH = 2
    """The caller's map is older than the replica's fence, or the replica could not learn of a newer one in time."""
    NOT_HERE = 3
    """This node has no such replica (dropped, moved, or of another incarnation): the caller's map may be old."""
    CLOCK_AHEAD = 4
    """The stamp is more than ``MAX_AHEAD_MS`` ahead of the replica's clock."""
    REFUSED = 5
    """``error`` says why: bad input, no memory, no disk, a failed replica, a passed deadline."""


class Claim(IntEnum):
    """What a conditional write asks of a replica before it writes (P19)."""

    NONE = 0
    CLAIM = 1
    """Take no write any more to the batch's points that is older than ``stamp`` and newer than what they carry."""
    WAIVE = 2
    """Nothing is to be written under ``stamp``: its claims bar nobody but itself."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Write ``batch`` under one ``stamp`` (P1); ids differ within the batch.

    ``body``: the batch as :func:`omendb_common.records.encode_batch` made it, when the caller has it already.
    ``create_only``: refuse the whole batch with AlreadyExistsError when an id is live; only where one replica decides.
    ``claim``: the batch is a deletion that deletes nothing: claims on its points, or waivers of them (P19).
    ``versions``: refuse the whole batch with VersionConflictError unless each point's newest stamp is this one, 0 where
    it must not be live; only where one replica decides.
    """

    shard: ShardRef
    stamp: int
    batch: WriteBatch
    body: Sequence[Any] | None = None
    create_only: bool = False
    claim: Claim = Claim.NONE
    versions: U64Array | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of an :class:`Apply` on one replica. Durable and visible there for every row that is not named.

    ``superseded`` (rows of the batch, ascending) may not count as written: their points carry ``newer`` stamps, or the
    stamp lies at or below the shard's ``gc_floor`` (then ``newer`` is the floor). ``partial``: something of those rows
    was applied all the same, where it is the newest of its field, as it will be on every replica. ``missing``: rows of
    an UPDATE whose point this replica does not have. In an answer to :class:`Repair` rows are numbered through all its
    batches. A row whose stored stamp equals ``stamp`` counts as applied (a repeated call).
    ``existed``: points of the batch that were live before. ``hlc``: the replica's clock, for the caller's to observe.
    ``barred``: those of ``superseded`` that a claim keeps out; nothing newer need be stored (P19). Also those that the
    replica may have had before something newer came, given by others, and does not know (P4). To a claim, the rows and
    stamps of the older ones that are open: ``open_rows``, ``open_stamps``.
    """

    verdict: Verdict
    hlc: int = 0
    lsn: int = 0
    durability: str = ""
    existed: int = 0
    superseded: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    newer: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    missing: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    error: OmenDBError | None = None
    partial: bool = False
    barred: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    open_rows: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    open_stamps: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))


class Work(NamedTuple):
    """What a search cost on one replica; the meaning of each is that of the engine's ``Performance``."""

    vectors_scanned: int = 0
    segments_searched: int = 0
    segments_skipped: int = 0
    cache_hit_rate: float = 1.0
    cost_estimate: float = 0.0


class Search(NamedTuple):
    """The ``k`` nearest of every row of ``queries`` (m, dimension) in one shard.

    ``unproven``: only among the points of which the replica does not know that certain others have them as well (P23).
    ``explain``: tell how the search is made as well.
    """

    shard: ShardRef
    queries: npt.NDArray[Any]
    k: int
    field: str = ""
    condition: Filter | None = None
    exact: bool = False
    ef: int | None = None
    recall_target: float | None = None
    score_threshold: float | None = None
    payload: bool = False
    """Answer with the hits' payload as well: saves the fetch when one replica is asked."""
    vectors: bool = False
    unproven: bool = False
    explain: bool = False


class Shared(NamedTuple):
    """What a replica says of the points that it did not search (P23).

    ``openings``: replicas, as they were opened, that have everything the one that answers has, or what covers it, from
    ``positions`` of their logs on, but for the ids of ``names`` (u32, ascending): the low bits of the second halves of
    their hashes.
    """

    openings: U64Array
    positions: U64Array
    names: npt.NDArray[np.uint32]

    def vouches_for(self, opening: int, lsn: int) -> bool:
        """Whether a replica that was opened so has all but what is named, at that position of its log."""
        told = (self.openings == np.uint64(opening)) & (self.positions <= np.uint64(lsn))
        return bool(told.any()) if opening else False

    def named(self, lo: U64Array) -> npt.NDArray[np.bool_]:
        """Which of the ids with these second halves of hashes the other replicas may lack; some more by chance."""
        if not len(self.names):
            return np.zeros(len(lo), np.bool_)
        asked = short_names(lo)
        at = np.minimum(np.searchsorted(self.names, asked), len(self.names) - 1)
        return np.asarray(self.names[at] == asked, np.bool_)


def short_names(lo: U64Array) -> npt.NDArray[np.uint32]:
    """By which :class:`Shared` names ids: enough that few are named by chance, and half as long."""
    return lo.astype(np.uint32)


@dataclass(frozen=True, slots=True)
class ShardHits:
    """Hits of one shard on one replica: row i of ``distances`` (m, k) has ``counts[i]`` hits, nearest first.

    ``ids``, ``stamps``, ``payload`` and ``vectors`` are flat: the hits of query 0, then of query 1, and so on; the rows
    of ``overlays`` are numbered likewise. ``opening``: a number drawn when the replica was opened; 0: of none that can
    be vouched for. ``lsn``: the position of its log that was searched. ``shared``: of a search of the unproven; None
    there means NOT COVERED: it was not made. ``explanation``: where it was asked for; a node of an older release tells
    none.
    """

    verdict: Verdict
    distances: Float32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    counts: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    ids: IdColumn = field(default_factory=IdColumn.empty)
    stamps: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    payload: pa.RecordBatch | None = None
    vectors: npt.NDArray[Any] | None = None
    work: Work = field(default_factory=Work)
    hlc: int = 0
    error: OmenDBError | None = None
    overlays: Overlays = NO_OVERLAYS
    opening: int = 0
    lsn: int = 0
    shared: Shared | None = None
    explanation: Explanation | None = None


class State(IntEnum):
    """What a replica knows of an id. Absent is no answer; a deletion is one, and carries a stamp (P8)."""

    ABSENT = 0
    LIVE = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Lookup:
    """State and stamp of ids, and what else is asked for.

    ``records``: the whole stored records of what is found, with all their stamps, fit for :class:`Repair`.
    ``payload`` and ``vectors`` (field names): of the live ones, in the order of ``ids``.
    ``brief``: without digests, which take a read of all content.
    """

    shard: ShardRef
    ids: IdColumn
    records: bool = False
    payload: bool = False
    vectors: tuple[str, ...] = ()
    brief: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    """Answer to a :class:`Lookup`; arrays are parallel to its ids.

    ``stamps``: the point's greatest stamp (base, field update or deletion), 0 when absent. ``digests``: u64 over
    stamps and content, equal on replicas that hold the same record; 0 in a brief answer. ``payload`` and ``vectors``
    have one row per LIVE id, in order.
    """

    verdict: Verdict
    states: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    stamps: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    digests: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    records: tuple[WriteBatch, ...] = ()
    payload: pa.RecordBatch | None = None
    vectors: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    hlc: int = 0
    error: OmenDBError | None = None
    overlays: Overlays = NO_OVERLAYS


@dataclass(frozen=True, slots=True)
class Score:
    """Distances of given ids to one query, under the search's filter (P9: a replica scores its own version)."""

    shard: ShardRef
    query: npt.NDArray[Any]
    ids: IdColumn
    field: str = ""
    condition: Filter | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """Answer to a :class:`Score`: ``matches`` is whether the id is live and passes the filter."""

    verdict: Verdict
    states: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    stamps: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    matches: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    distances: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    error: OmenDBError | None = None
    overlays: Overlays = NO_OVERLAYS


@dataclass(frozen=True, slots=True)
class Repair:
    """Whole records with their own stamps (P8, P12); older ones are passed over.

    ``gc_floor``: that of the replica which sends them, 0 from a router. Where it is the receiver's as well, an unknown
    id at or below it is believed: two replicas with one floor are past all deletions below it (P13). ``tied``: the
    receiver has these very stamps with other content, of which this is the one to be kept everywhere (P12).
    """

    shard: ShardRef
    records: tuple[WriteBatch, ...]
    gc_floor: int = 0
    tied: bool = False


@dataclass(frozen=True, slots=True)
class Scroll:
    """A page of points in the shard's fixed order (the order of their id hashes)."""

    shard: ShardRef
    cursor: str | None
    limit: int
    condition: Filter | None = None
    payload: bool = True
    vectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scrolled:
    """A page; ``cursor`` is None at the end. ``hashes``: (n,) the ids' places on the ring, ascending."""

    verdict: Verdict
    ids: IdColumn = field(default_factory=IdColumn.empty)
    stamps: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    hashes: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    payload: pa.RecordBatch | None = None
    vectors: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    cursor: str | None = None
    error: OmenDBError | None = None
    overlays: Overlays = NO_OVERLAYS


@dataclass(frozen=True, slots=True)
class Select:
    """Ids that match a filter now, with their stamps; ``count_only`` for the number alone (P7)."""

    shard: ShardRef
    condition: Filter | None = None
    count_only: bool = False


@dataclass(frozen=True, slots=True)
class Selected:
    """Answer to a :class:`Select`."""

    verdict: Verdict
    count: int = 0
    ids: IdColumn = field(default_factory=IdColumn.empty)
    stamps: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    error: OmenDBError | None = None
    overlays: Overlays = NO_OVERLAYS


@dataclass(frozen=True, slots=True)
class Sums:
    """Values of some nodes of a replica's hash tree, of records up to ``through`` and above ``gc_floor`` (P12).

    ``nodes``: numbers of nodes at level ``depth``, 0 is the root. ``fresh``: of the replica as it is now; without it a
    tree that was made for an earlier call with the same bounds will do. ``agree``: from before the tree is made the
    replica remembers what arrives under stamps up to ``through``, for a ``note_agreed`` to come (P23).
    """

    shard: ShardRef
    through: int
    gc_floor: int
    depth: int
    nodes: Int64
    fresh: bool = False
    agree: bool = False


@dataclass(frozen=True, slots=True)
class Summed:
    """Answer to a :class:`Sums`; columns are parallel to its nodes, and empty when the replica has another floor.

    ``counts``: records; ``first`` and ``second``: the halves of the sum of their hashes. ``gc_floor``: the replica's
    own. ``repaired_through``: up to which stamp it knows that all replicas were equal. ``opening`` as in
    :class:`ShardHits`. ``lsn``: a position of its log at which it had all that was summed.
    """

    verdict: Verdict
    counts: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    first: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    second: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    gc_floor: int = 0
    repaired_through: int = 0
    error: OmenDBError | None = None
    opening: int = 0
    lsn: int = 0


@dataclass(frozen=True, slots=True)
class Entries:
    """A page of the records below some nodes of the hash tree, however young, in the tree's order."""

    shard: ShardRef
    gc_floor: int
    depth: int
    nodes: Int64
    limit: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """Answer to an :class:`Entries`; columns are parallel to ``ids``.

    ``stamps``: the newest of each record; ``bases``: that of its upsert or deletion; ``digests`` as in
    :class:`Looked`. ``cursor`` continues the page, None at the end.
    """

    verdict: Verdict
    ids: IdColumn = field(default_factory=IdColumn.empty)
    states: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    stamps: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    bases: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    digests: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    cursor: str | None = None
    error: OmenDBError | None = None


Task = Literal[
    "flush",
    "compact",
    "wait_until_indexed",
    "stats",
    "next_auto_id",
    "verify",
    "scrub",
    "repair",
    "note_repaired",
    "note_agreed",
]


@dataclass(frozen=True, slots=True)
class Maintain:
    """Work or a question about one replica as a whole.

    ``verify``: compare it with the other replicas of the shard now; ``repair``: and bring all together (P12).
    ``scrub``: read every byte of its segments from the disk now, ``bytes_per_s`` (0: at the node's own rate); one that
    is damaged answers nothing more.
    ``note_repaired``: all were found equal ``through`` a stamp, which the replica is to remember (P13).
    ``note_agreed``: those of ``openings`` gave one root ``through`` a stamp at ``positions`` of their logs, which holds
    while they are open (P23).
    """

    shard: ShardRef
    task: Task
    through: int = 0
    openings: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    bytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class Maintained:
    """Answer to a :class:`Maintain`. ``value`` is JSON: for ``stats`` its fields, for the others their result."""

    verdict: Verdict
    value: Any = None
    error: OmenDBError | None = None


class DataNode(Protocol):
    """One data node as a router sees it. Safe for many calls at a time, from one event loop.

    A verdict is the node's answer; what never reached the node, or brought no answer back in time, raises
    UnavailableError (``outcome`` "none" when certainly nothing was sent, else "unknown") or DeadlineExceededError.
    Cancelling a call does not undo it.
    """

    async def apply(self, call: Apply, deadline: Deadline) -> Applied:
        """Write."""

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        """Search."""

    async def lookup(self, call: Lookup, deadline: Deadline) -> Looked:
        """Look ids up."""

    async def score(self, call: Score, deadline: Deadline) -> Scored:
        """Score ids."""

    async def repair(self, call: Repair, deadline: Deadline) -> Applied:
        """Bring records up to date."""

    async def scroll(self, call: Scroll, deadline: Deadline) -> Scrolled:
        """Read a page."""

    async def select(self, call: Select, deadline: Deadline) -> Selected:
        """Resolve a filter."""

    async def maintain(self, call: Maintain, deadline: Deadline) -> Maintained:
        """Do or tell something about a replica."""

    async def sums(self, call: Sums, deadline: Deadline) -> Summed:
        """Tell values of the hash tree."""

    async def entries(self, call: Entries, deadline: Deadline) -> Listed:
        """List records by the hash tree."""


__all__ = [
    "ENTRIES_MAX",
    "MAX_AHEAD_MS",
    "RECALL_S",
    "TREE_DEPTH_MAX",
    "TREE_NODES_MAX",
    "Applied",
    "Apply",
    "Claim",
    "DataNode",
    "Entries",
    "Float32",
    "Int64",
    "Listed",
    "Looked",
    "Lookup",
    "Maintain",
    "Maintained",
    "Repair",
    "Score",
    "Scored",
    "Scroll",
    "Scrolled",
    "Search",
    "Select",
    "Selected",
    "ShardHits",
    "ShardRef",
    "Shared",
    "State",
    "Summed",
    "Sums",
    "Task",
    "Verdict",
    "Work",
    "short_names",
]

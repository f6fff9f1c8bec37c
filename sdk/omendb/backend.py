"""What the SDK needs of a database, wherever it runs: one protocol for a folder and for a network.

Everything crosses this seam checked and in columns: ids as :class:`IdColumn`, vectors as C-contiguous arrays,
payload as typed Arrow columns, filters as trees. A backend raises the errors of
:mod:`omendb_common.errors` and is safe to call from many threads. The engine's replica is such a backend as
it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.deadline import Deadline
from omendb_common.explanation import Explanation
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.schema import CollectionSchema

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Consistency = Literal["one", "session", "verified", "quorum", "majority"]


class CallOptions(NamedTuple):
    """What one call asks of a backend beside its arguments.

    Attributes:
        deadline: when to give up; None: after the backend's own time.
        consistency: which state a read must show; None: the backend's own.
        payload: whether the payload of the answer may be looked at.
        vectors: whether its vectors may be.
    """

    deadline: Deadline | None = None
    consistency: Consistency | None = None
    payload: bool = True
    vectors: bool = False


NO_OPTIONS = CallOptions()


class Spread(NamedTuple):
    """How a new collection lies on several nodes; None leaves the choice to the cluster."""

    shards: int | None = None
    replication: int | None = None
    write_quorum: int | None = None
    read_quorum: int | None = None
    partition_key: str | None = None


class Performance(Protocol):
    """What one search cost."""

    @property
    def latency_ms(self) -> float:
        """Wall time of the search."""

    @property
    def vectors_scanned(self) -> int:
        """Vectors compared with the queries; an estimate for graph searches."""

    @property
    def segments_searched(self) -> int:
        """Segments and buffers looked into."""

    @property
    def segments_skipped(self) -> int:
        """Segments that statistics ruled out."""

    @property
    def cache_hit_rate(self) -> float:
        """Share of filter and column look-ups found in memory, 0..1."""

    @property
    def cost_estimate(self) -> float:
        """MiB of vectors compared: the work, whatever the machine."""


class Points(Protocol):
    """Some points of one snapshot, which stay readable as they were."""

    def __len__(self) -> int: ...
    def ids(self) -> IdColumn:
        """Their ids."""

    def payload(self) -> list[dict[str, Any]]:
        """The payload of each; empty where there is none."""

    def vectors(self, field: str, schema: CollectionSchema) -> npt.NDArray[Any]:
        """Their vectors of one field as written, (n, dimension)."""


class VersionedPoints(Points, Protocol):
    """Points of which the answer tells the versions."""

    def stamps(self) -> U64Array:
        """The version of each."""


class Page(Protocol):
    """Some points and the cursor of the next page, None at the end."""

    @property
    def picked(self) -> VersionedPoints:
        """The points."""

    @property
    def cursor(self) -> str | None:
        """Where the next page starts."""


class Answer(Protocol):
    """The hits of m queries."""

    @property
    def distances(self) -> Float32:
        """(m, k), rising along each row; row i has ``counts[i]`` hits."""

    @property
    def counts(self) -> Int64:
        """Hits per query (m,)."""

    @property
    def performance(self) -> Performance:
        """What the search cost."""

    def picked(self, query: int) -> Points:
        """The hits of one query, nearest first."""


class Receipt(Protocol):
    """What became of a write."""

    @property
    def ids(self) -> IdColumn:
        """The ids it named, as they were given."""

    @property
    def count(self) -> int:
        """Points written, or for a delete, points that existed."""

    @property
    def stamp(self) -> int:
        """The write's version."""

    @property
    def lsn(self) -> int:
        """Its place in the log."""

    @property
    def durability(self) -> str:
        """``fsync``, ``interval`` or ``os``."""


class CollectionBackend(Protocol):
    """One collection. Opened for reading it need not have the writing half: the SDK does not call it then."""

    @property
    def schema(self) -> CollectionSchema:
        """The collection's fields."""

    def search(
        self,
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        exact: bool = False,
        ef: int | None = None,
        recall_target: float | None = None,
        score_threshold: float | None = None,
    ) -> Answer:
        """The ``k`` nearest (matching) points of every row of ``queries`` (m, dimension)."""

    def explain(
        self,
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        exact: bool = False,
        ef: int | None = None,
        recall_target: float | None = None,
        measure: bool = False,
    ) -> Explanation:
        """How a search finds them; ``measure``: and what part of an exact search's hits it finds."""

    def get(self, ids: IdColumn) -> tuple[VersionedPoints, Int64]:
        """The points that exist, in the order asked, and their positions in ``ids``."""

    def scroll(self, cursor: str | None, limit: int, condition: Filter | None = None) -> Page:
        """A page of points in a fixed order."""

    def count(self, condition: Filter | None = None) -> int:
        """How many points there are, or match."""

    def stats(self) -> Any:
        """Rows, segments, indexes and their progress, memory and disk."""

    def wait_until_indexed(self, timeout_s: float) -> bool:
        """Wait until every segment has its index; whether it came to that."""

    def upsert(
        self,
        ids: IdColumn | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        n: int,
        *,
        create_only: bool = False,
        versions: U64Array | None = None,
    ) -> Receipt:
        """Store points, replacing those that exist; of one id's rows the last wins; ``ids`` None numbers them.

        ``versions``, here and below (n,): write all or nothing, VersionConflictError unless each point has this one, 0
        where it must not exist; the ids differ then.
        """

    def update(
        self,
        ids: IdColumn,
        vectors: Mapping[str, npt.NDArray[Any]] | None,
        payload: pa.RecordBatch | None,
        *,
        unset: Sequence[str] = (),
        versions: U64Array | None = None,
    ) -> Receipt:
        """Change parts of points; NotFoundError when one does not exist, and nothing was changed."""

    def delete(self, ids: IdColumn, *, versions: U64Array | None = None) -> Receipt:
        """Delete points; ids that do not exist are no error."""

    def delete_where(self, condition: Filter) -> Receipt:
        """Delete the points that match."""

    def flush(self) -> None:
        """Turn the growing buffer into a segment now."""

    def compact(self) -> None:
        """Merge and clean segments now."""


class Backend(Protocol):
    """A database: its collections by name."""

    @property
    def location(self) -> str:
        """Where the database lies, for messages."""

    @property
    def local(self) -> bool:
        """Whether answers lie in this process's memory: calls need no options, and what is not read costs nothing."""

    def within(self, options: CallOptions) -> Backend:
        """The same database, with options for the calls made through it."""

    def bind(self, handle: CollectionBackend, options: CallOptions) -> CollectionBackend:
        """The same collection, with options for the calls made through it."""

    def names(self) -> list[str]:
        """The collections' names."""

    def find(self, name: str) -> CollectionBackend | None:
        """The collection, or None."""

    def create(self, name: str, schema: CollectionSchema, spread: Spread) -> CollectionBackend:
        """Create a collection; AlreadyExistsError when there is one."""

    def drop(self, name: str) -> None:
        """Delete a collection."""

    def rename(self, old: str, new: str) -> CollectionBackend:
        """Give a collection another name."""

    def alter(self, name: str, spread: Spread) -> None:
        """Ask for another replication and other quorums; what is None stays."""

    def close(self) -> None:
        """Make everything durable and let go; a second call does nothing."""


__all__ = [
    "NO_OPTIONS",
    "Answer",
    "Backend",
    "CallOptions",
    "CollectionBackend",
    "Consistency",
    "Float32",
    "Int64",
    "Page",
    "Performance",
    "Points",
    "Receipt",
    "Spread",
    "VersionedPoints",
]

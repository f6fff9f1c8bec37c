"""What a search answers: ids and distances at once, hits and their metadata when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb.backend import Answer, Float32, Int64, Performance, Points
from omendb.records import shorten
from omendb_common.ids import IdColumn, PointId
from omendb_common.payload import columns_from_rows, split_name
from omendb_common.plain_arrow import arrow_of_numpy, arrow_of_texts
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.scores import distance_to_score

DEFAULT_COLUMNS = frozenset({"id", "distance", "score", "metadata"})
_ROWS_SHOWN = 10


class Hit:
    """One point found.

    Attributes:
        id: the point's id.
        distance: its distance to the query, smaller is nearer.
        score: the reverse, larger is better.
    """

    __slots__ = ("_results", "_row", "distance", "id", "score")

    def __init__(self, results: SearchResults, row: int, id: PointId, distance: float, score: float) -> None:
        self._results = results
        self._row = row
        self.id = id
        self.distance = distance
        self.score = score

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The point's payload as it was when the search ran; None when ``include`` left it out."""
        metadata = self._results.metadata
        return None if metadata is None else metadata[self._row]

    @property
    def vector(self) -> npt.NDArray[Any] | None:
        """The point's vector as it was when the search ran; None when ``include`` left it out."""
        vectors = self._results.vectors
        return None if vectors is None else vectors[self._row]

    def __repr__(self) -> str:
        metadata = "" if self.metadata is None else f", metadata={shorten(self.metadata)}"
        return f"Hit(id={self.id!r}, distance={self.distance:.6g}, score={self.score:.6g}{metadata})"


class SearchResults(Sequence[Hit]):
    """The hits of one query, nearest first.

    Metadata and vectors are read from the searched snapshot when first looked at, unless ``include`` named
    them: then they were read with the search. The snapshot lives as long as the results do.
    """

    __slots__ = ("_answer", "_columns", "_field", "_ids", "_metadata", "_points", "_query", "_schema", "_vectors")

    def __init__(
        self, answer: Answer, query: int, schema: CollectionSchema, field: VectorField, include: frozenset[str] | None
    ) -> None:
        self._answer = answer
        self._query = query
        self._schema = schema
        self._field = field
        self._columns = include
        self._points: Points = answer.picked(query)
        self._ids: IdColumn | None = None
        self._metadata: list[dict[str, Any]] | None = None
        self._vectors: npt.NDArray[Any] | None = None
        if include is not None:
            if "metadata" in include:
                self._metadata = self._points.payload()
            if "vector" in include:
                self._vectors = self._points.vectors(field.name, schema)

    # -- columns

    def _id_column(self) -> IdColumn:
        if self._ids is None:
            self._ids = self._points.ids()
        return self._ids

    @property
    def ids(self) -> npt.NDArray[Any]:
        """The ids (k,): uint64 when all are integers, else an array of Python objects."""
        column = self._id_column()
        if column.strs is None and column.ints is not None:
            return column.ints
        out = np.empty(len(column), object)
        out[:] = column.to_list()
        return out

    @property
    def distances(self) -> Float32:
        """The distances (k,), float32, rising."""
        return self._answer.distances[self._query, : len(self)]

    @property
    def scores(self) -> Float32:
        """The scores (k,), float32, falling."""
        return distance_to_score(self.distances, self._field.metric)

    @property
    def metadata(self) -> list[dict[str, Any]] | None:
        """The payload of every hit; None when ``include`` left it out."""
        if self._metadata is None and self._columns is None:
            self._metadata = self._points.payload()
        return self._metadata

    @property
    def vectors(self) -> npt.NDArray[Any] | None:
        """The vectors of the hits (k, dimension); None when ``include`` left them out."""
        if self._vectors is None and self._columns is None:
            self._vectors = self._points.vectors(self._field.name, self._schema)
        return self._vectors

    @property
    def performance(self) -> Performance:
        """What the search cost; in a batch, what the whole call cost."""
        return self._answer.performance

    # -- a sequence of hits

    def __len__(self) -> int:
        return int(self._answer.counts[self._query])

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return list(self)[index]
        row = range(len(self))[index]
        distance = self.distances[row : row + 1]
        found = self._id_column().slice(row, row + 1).to_list()[0]
        return Hit(self, row, found, float(distance[0]), float(distance_to_score(distance, self._field.metric)[0]))

    def __iter__(self) -> Iterator[Hit]:
        columns = zip(self._id_column().to_list(), self.distances.tolist(), self.scores.tolist(), strict=True)
        for row, (found, distance, score) in enumerate(columns):
            yield Hit(self, row, found, distance, score)

    # -- other shapes

    def to_arrow(self) -> pa.Table:
        """An Arrow table: id, distance, score, one column per metadata field, and vector if it was included.

        A field with values of several kinds becomes one column per kind, named ``field#kind``; a field named
        like one of the first columns is prefixed ``metadata.``.
        """
        wanted = DEFAULT_COLUMNS if self._columns is None else self._columns
        columns: dict[str, Any] = {"id": _id_array(self._id_column())}
        if "distance" in wanted:
            columns["distance"] = arrow_of_numpy(self.distances)
        if "score" in wanted:
            columns["score"] = arrow_of_numpy(self.scores)
        if "vector" in wanted and self.vectors is not None:
            flat = arrow_of_numpy(np.ascontiguousarray(self.vectors).reshape(-1))
            columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, self._field.dimension)
        if "metadata" in wanted and self.metadata:
            for name, values in payload_table(self.metadata):
                columns[f"metadata.{name}" if name in columns else name] = values
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with the columns of :meth:`to_arrow`."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """A polars DataFrame with the columns of :meth:`to_arrow`."""
        import polars  # here, because only this method needs it

        return polars.from_arrow(self.to_arrow())

    def __repr__(self) -> str:
        head = f"SearchResults({len(self)} hits in {self.performance.latency_ms:.3f} ms)"
        if not len(self):
            return head
        rows = [("", "id", "distance", "score", "metadata" if self.metadata is not None else "")]
        for row, hit in enumerate(self[:_ROWS_SHOWN]):
            metadata = "" if hit.metadata is None else shorten(hit.metadata)
            rows.append((str(row), shorten(hit.id, 24), f"{hit.distance:.6g}", f"{hit.score:.6g}", metadata))
        widths = [max(len(line[column]) for line in rows) for column in range(4)]
        lines = ["  ".join([*(line[c].rjust(widths[c]) for c in range(4)), line[4]]).rstrip() for line in rows]
        return "\n".join([head, *lines, *(["…"] if len(self) > _ROWS_SHOWN else [])])


def payload_table(metadata: list[dict[str, Any]]) -> Iterator[tuple[str, pa.Array]]:
    """Payloads as named Arrow columns: ``path``, or ``path#kind`` where a path holds several kinds."""
    batch = columns_from_rows(metadata)
    paths = [split_name(name)[0] for name in batch.schema.names]
    for name, path, column in zip(batch.schema.names, paths, batch.columns, strict=True):
        yield (path if paths.count(path) == 1 else name), column


def _id_array(column: IdColumn) -> pa.Array:
    """uint64 or string; the integers of a mixed column become strings."""
    if column.strs is None:
        return arrow_of_numpy(column.ints if column.ints is not None else np.empty(0, np.uint64))
    return column.strs if column.ints is None else arrow_of_texts([str(i) for i in column.to_list()])


@dataclass(frozen=True, slots=True)
class NoWork:
    """The performance of a search that had nothing to search."""

    latency_ms: float = 0.0
    vectors_scanned: int = 0
    segments_searched: int = 0
    segments_skipped: int = 0
    cache_hit_rate: float = 1.0
    cost_estimate: float = 0.0


class NoPoints:
    """No points."""

    def __len__(self) -> int:
        return 0

    def ids(self) -> IdColumn:
        """No ids."""
        return IdColumn.empty()

    def payload(self) -> list[dict[str, Any]]:
        """No payload."""
        return []

    def vectors(self, field: str, schema: CollectionSchema) -> npt.NDArray[Any]:
        """No vectors."""
        spec = schema.vector(field)
        return np.empty((0, spec.dimension), spec.numpy_dtype)


class EmptyAnswer:
    """The answer to ``queries`` queries of a collection that does not exist yet."""

    performance: Performance = NoWork()

    def __init__(self, queries: int) -> None:
        self.distances: Float32 = np.empty((queries, 0), np.float32)
        self.counts: Int64 = np.zeros(queries, np.int64)

    def picked(self, query: int) -> Points:
        """No points."""
        return NoPoints()


__all__ = ["EmptyAnswer", "Hit", "NoPoints", "NoWork", "SearchResults", "payload_table"]

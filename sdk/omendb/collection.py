"""One collection of points: write, read and search it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, overload
from uuid import UUID

import numpy as np

from omendb.backend import NO_OPTIONS, Answer, CallOptions, CollectionBackend, Consistency
from omendb.calls import call_options
from omendb.records import Deleted, Page, Record, WriteResult, records_of
from omendb.results import EmptyAnswer, SearchResults
from omendb.session import Session
from omendb_common import inputs
from omendb_common.errors import InvalidArgumentError, NotFoundError, VersionConflictError
from omendb_common.expected import checked_versions, conflict
from omendb_common.explanation import Explanation
from omendb_common.filters import Filter, MatchAll, parse_filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.matrices import as_queries
from omendb_common.schema import SCROLL_LIMIT_MAX, CollectionSchema, VectorField
from omendb_common.writes import checked_update, checked_upsert

FilterLike = Filter | Mapping[str, Any] | None
IfVersion = int | Sequence[int | None] | None


class Maker(Protocol):
    """Makes a collection that does not exist before its first write."""

    def find(self, options: CallOptions) -> CollectionBackend | None:
        """The collection, if it exists by now."""

    def schema_for(self, vectors: Any) -> CollectionSchema:
        """The schema that a first write of ``vectors`` gives."""

    def create(self, schema: CollectionSchema, options: CallOptions) -> CollectionBackend:
        """Create it; when somebody was first, theirs."""


class Collection:
    """A named set of points with one schema. Handles are thread-safe and cheap.

    Vectors may be a NumPy array (no copy when it is C-contiguous and of the collection's element type), nested
    lists, Arrow list arrays, or pandas or polars columns. ``metadata`` is a mapping of column to values, one
    mapping per point, or a table. ``filters`` is made with :class:`omendb.FilterOp` or written as JSON.

    Every call takes ``timeout``, the seconds after which it gives up with DeadlineExceededError, and every read
    ``consistency``: ``one`` (any replica's state), ``session`` (at least this client's own writes), ``verified`` (of a
    search: nothing deleted or superseded, but a new point may be missed) or ``quorum`` (every acknowledged write; also
    named ``majority``). A folder in this process answers at once and has one state: there they change nothing.
    ``collection`` names another collection, where the call is one of a Database or a Client.
    """

    def __init__(
        self, session: Session, name: str, handle: CollectionBackend | None, maker: Maker | None = None
    ) -> None:
        self._session = session
        self._name = name
        self._handle = handle
        self._maker = maker

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._name

    @property
    def schema(self) -> CollectionSchema | None:
        """Vector fields, metric and element type; None for a default collection nothing was written to."""
        handle = self._reader()
        return None if handle is None else handle.schema

    @property
    def dimension(self) -> int | None:
        """The dimension of the collection's vectors; None while it has no schema."""
        schema = self.schema
        return None if schema is None else schema.vectors[0].dimension

    # -- writing

    def add_batch(
        self,
        vectors: Any,
        metadata: Any = None,
        ids: Any = None,
        *,
        create_only: bool = False,
        if_version: IfVersion = None,
        id_column: str = "id",
        vector_column: str = "vector",
        collection: str | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store points; whole or not at all, searchable when this returns.

        Args:
            vectors: (n, dimension) numbers, or a whole Arrow table or pandas or polars frame whose
                ``vector_column`` holds the vectors, whose ``id_column`` (if any) the ids, and all other
                columns the metadata.
            metadata: a mapping of column to n values, or one mapping per point.
            ids: n ints, strings or UUIDs; None numbers the points automatically. A point that exists is
                replaced; of an id named twice in the batch, the last wins.
            create_only: refuse the batch when one of the ids exists.
            if_version: the version that each point must have (of all, or one per id), as ``get`` and ``scroll`` told
                it; 0 or None for a point that must not exist. All points are written, or none.

        Returns:
            The ids, with the write's durability.

        Raises:
            InvalidArgumentError: input that cannot be stored; nothing was written.
            AlreadyExistsError: ``create_only`` and an id exists; nothing was written.
            VersionConflictError: a point has another version than ``if_version``; nothing was written.
            ResourceExhaustedError: memory or disk is used up; try again after ``retry_after`` seconds.
            UnavailableError: the write could not be made durable; ``outcome`` says what became of it.
        """
        self._session.check_writable()
        if inputs.is_table(vectors):
            vectors, metadata, ids = _from_table(vectors, metadata, ids, id_column, vector_column)
        options = call_options(timeout)
        handle = self._reader(collection, options)
        schema = self._first_schema(vectors) if handle is None else handle.schema
        batch = checked_upsert(schema, vectors, metadata, ids)
        versions = checked_versions(if_version, batch.ids, may_be_absent=True)
        if versions is not None and create_only:
            raise InvalidArgumentError("got both", field="create_only, if_version", bound="one of them")
        if handle is None and versions is not None and batch.ids is not None and versions.any():
            raise _nothing_there(batch.ids, versions)
        handle = self._create(schema, options) if handle is None else handle
        given = batch.ids, batch.vectors, batch.payload, batch.n
        return WriteResult(handle.upsert(*given, create_only=create_only, versions=versions))

    def upsert(
        self,
        ids: Any,
        vectors: Any = None,
        metadata: Any = None,
        *,
        if_version: IfVersion = None,
        id_column: str = "id",
        vector_column: str = "vector",
        collection: str | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store points under the given ids, replacing those that exist, or that have the versions ``if_version``.

        ``ids`` may be a whole table or frame instead, as for :meth:`add_batch`; it must have an id column.
        """
        if inputs.is_table(ids):
            self._session.check_writable()
            vectors, metadata, ids = _from_table(ids, metadata, vectors, id_column, vector_column)
            if ids is None:
                raise InvalidArgumentError(
                    "the table has no ids", field="ids", bound=f"a column {id_column!r}", mend="or use add_batch"
                )
        elif ids is None:
            raise InvalidArgumentError(
                "ids are missing", field="ids", bound="one id per vector", mend="or use add_batch"
            )
        return self.add_batch(vectors, metadata, ids, if_version=if_version, collection=collection, timeout=timeout)

    def update(
        self,
        ids: Any,
        vectors: Any = None,
        metadata: Any = None,
        *,
        unset: Iterable[str] = (),
        if_version: IfVersion = None,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Change parts of points that exist: their vectors, some metadata keys, or both.

        A metadata key is replaced whole in the points that get a value for it; keys in ``unset`` are removed from
        all of them; everything else stays.

        Raises:
            NotFoundError: a point does not exist; nothing was changed.
            VersionConflictError: a point has another version than ``if_version``, or is gone; nothing was changed.
        """
        self._session.check_writable()
        handle = self._reader(collection, call_options(timeout))
        batch = checked_update(None if handle is None else handle.schema, ids, vectors, metadata, unset)
        versions = checked_versions(if_version, batch.ids, may_be_absent=False)
        if handle is None and versions is not None:
            raise _nothing_there(batch.ids, versions)
        if handle is None:
            raise NotFoundError("no such points", field="ids", bound="ids of stored points", mend="use upsert")
        return WriteResult(handle.update(batch.ids, batch.vectors, batch.payload, unset=batch.unset, versions=versions))

    def delete(
        self,
        ids: Any = None,
        *,
        filters: FilterLike = None,
        if_version: IfVersion = None,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> Deleted:
        """Delete points by id or by filter; returns how many there were.

        Raises:
            VersionConflictError: a point has another version than ``if_version``, or is gone; nothing was deleted.
        """
        self._session.check_writable()
        if (ids is None) == (filters is None):
            raise InvalidArgumentError("got both or none", field="ids, filters", bound="exactly one of them")
        column = None if ids is None else inputs.as_ids(ids)
        versions = checked_versions(if_version, column, may_be_absent=False)
        tree = parse_filter(filters)
        if isinstance(tree, MatchAll):
            raise InvalidArgumentError(
                "an empty filter would delete everything",
                field="filters",
                bound="a condition",
                mend="use drop_collection",
            )
        handle = self._reader(collection, call_options(timeout))
        if handle is None and column is not None and versions is not None and len(column):
            raise _nothing_there(column, versions)
        if handle is None or (column is not None and not len(column)):
            return Deleted(0)
        if column is not None:
            return Deleted.of(handle.delete(column, versions=versions))
        return Deleted.of(handle.delete_where(MatchAll() if tree is None else tree))

    # -- searching

    @overload
    def search(
        self,
        query: Any = None,
        k: int = 10,
        *,
        vectors: None = None,
        vector: Any = None,
        filters: FilterLike = None,
        include: Sequence[str] | None = None,
        exact: bool = False,
        score_threshold: float | None = None,
        recall_target: float | None = None,
        ef: int | None = None,
        field: str | None = None,
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> SearchResults: ...
    @overload
    def search(
        self,
        query: None = None,
        k: int = 10,
        *,
        vectors: Any,
        vector: None = None,
        filters: FilterLike = None,
        include: Sequence[str] | None = None,
        exact: bool = False,
        score_threshold: float | None = None,
        recall_target: float | None = None,
        ef: int | None = None,
        field: str | None = None,
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> list[SearchResults]: ...
    def search(
        self,
        query: Any = None,
        k: int = 10,
        *,
        vectors: Any = None,
        vector: Any = None,
        filters: FilterLike = None,
        include: Sequence[str] | None = None,
        exact: bool = False,
        score_threshold: float | None = None,
        recall_target: float | None = None,
        ef: int | None = None,
        field: str | None = None,
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> SearchResults | list[SearchResults]:
        """Find the ``k`` nearest points.

        Args:
            query: the query vector (dimension,); ``vector`` is the same by name. With (m, dimension), or
                ``vectors``, m queries are searched in one native pass and a list of m results comes back.
            k: hits wanted, 1..16384; fewer come back only when fewer points match.
            filters: only points that match, exactly.
            include: of id, distance, score, metadata, vector. None reads metadata and vectors when they are
                first looked at; over a network, metadata comes with the hits and vectors are fetched then.
            exact: compare with every (matching) point instead of using an index.
            score_threshold: leave out hits with a lower score.
            recall_target: share of the true neighbours to find, 0..1; the setting's when None.
            ef: the effort of a graph search, instead of ``recall_target``.
            field: the vector field to search; the first when None.

        Raises:
            InvalidArgumentError: a bad query, k, filter or name.
        """
        columns = None if include is None else inputs.check_include(include)
        handle, session = self._handle, self._session
        plain = collection is None and timeout is None and consistency is None
        if handle is None or session.closed or not session.local or not plain:
            handle = self._reader(collection, call_options(timeout, consistency, columns))
        name, value = inputs.one_query(query, vector, vectors)
        if type(k) is not int or not 1 <= k <= inputs.K_MAX:
            k = inputs.check_k(k)
        tree = None if filters is None else parse_filter(filters)
        if ef is not None or recall_target is not None or score_threshold is not None:
            inputs.check_effort(ef, recall_target, score_threshold)
        answer: Answer
        if handle is None:
            queries, single = as_queries(value, None, name=name)
            schema = CollectionSchema("", (VectorField(max(1, queries.shape[1])),))
            return _results(EmptyAnswer(len(queries)), schema, schema.vectors[0], columns, single and vectors is None)
        schema = handle.schema
        target = schema.vectors[0] if field is None else schema.vector(field)
        queries, single = as_queries(value, target, name=name)
        if not len(queries):
            return []
        answer = handle.search(
            queries,
            k,
            field=target.name,
            condition=tree,
            exact=exact,
            ef=ef,
            recall_target=recall_target,
            score_threshold=score_threshold,
        )
        if single and vectors is None:
            return SearchResults(answer, 0, schema, target, columns)
        return _results(answer, schema, target, columns, False)

    def explain(
        self,
        query: Any = None,
        k: int = 10,
        *,
        vectors: Any = None,
        vector: Any = None,
        filters: FilterLike = None,
        exact: bool = False,
        recall_target: float | None = None,
        ef: int | None = None,
        field: str | None = None,
        measure: bool = False,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> Explanation:
        """Tell how :meth:`search` with the same arguments is made: the plan of every segment, and why it is that.

        Args:
            measure: also search, search again exactly, and tell the share of the true neighbours that was found.

        In a cluster one replica of each shard tells it. Deadlines, limits and errors are those of a search.
        """
        name, value = inputs.one_query(query, vector, vectors)
        k = inputs.check_k(k)
        tree = parse_filter(filters)
        inputs.check_effort(ef, recall_target, None)
        handle = self._reader(collection, call_options(timeout))
        if handle is None:
            return Explanation(k, 1.0 if recall_target is None else recall_target, ())
        schema = handle.schema
        target = schema.vectors[0] if field is None else schema.vector(field)
        queries, _ = as_queries(value, target, name=name)
        if not len(queries):
            raise InvalidArgumentError("got no query", field=name, bound="one or more")
        return handle.explain(
            queries,
            k,
            field=target.name,
            condition=tree,
            exact=exact,
            ef=ef,
            recall_target=recall_target,
            measure=measure,
        )

    # -- reading

    @overload
    def get(
        self,
        ids: int | str | UUID,
        *,
        include: Sequence[str] = ("metadata",),
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> Record | None: ...
    @overload
    def get(
        self,
        ids: Any,
        *,
        include: Sequence[str] = ("metadata",),
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> list[Record | None]: ...
    def get(
        self,
        ids: Any,
        *,
        include: Sequence[str] = ("metadata",),
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> Record | list[Record | None] | None:
        """The points with these ids, in their order; None for each that does not exist.

        One id gives one record, a sequence of ids a list. ``include``: any of metadata and vector.
        """
        columns = inputs.check_include(include)
        column = inputs.as_ids(ids)
        handle = self._reader(collection, call_options(timeout, consistency, columns))
        found: list[Record | None] = [None] * len(column)
        if handle is not None and len(column):
            points, positions = handle.get(column)
            for position, record in zip(positions.tolist(), records_of(points, handle.schema, columns), strict=True):
                found[position] = record
        return found[0] if isinstance(ids, (int, str, UUID)) else found

    def scroll(
        self,
        limit: int = 100,
        cursor: str | None = None,
        filters: FilterLike = None,
        *,
        include: Sequence[str] = ("metadata",),
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> Page:
        """A page of at most ``limit`` points (1..100000) in a fixed order that writes do not disturb.

        Pass the page's cursor back for the next one. A point that exists during the whole walk appears exactly
        once; one written or deleted meanwhile may or may not.
        """
        inputs.check_count(limit, "limit", SCROLL_LIMIT_MAX)
        columns = inputs.check_include(include)
        if cursor is not None and not isinstance(cursor, str):
            raise InvalidArgumentError(
                f"got {cursor!r}", field="cursor", bound="a cursor that scroll returned, or None"
            )
        tree = parse_filter(filters)
        handle = self._reader(collection, call_options(timeout, consistency, columns))
        if handle is None:
            return Page([], None)
        page = handle.scroll(cursor, int(limit), tree)
        return Page(records_of(page.picked, handle.schema, columns), page.cursor)

    def iterate(
        self,
        filters: FilterLike = None,
        *,
        include: Sequence[str] = ("metadata",),
        page_rows: int = 1000,
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> Iterator[Record]:
        """Every point (that matches), read ``page_rows`` at a time; ``timeout`` is that of one page."""
        cursor: str | None = None
        call: dict[str, Any] = {"collection": collection, "timeout": timeout, "consistency": consistency}
        while True:
            page = self.scroll(page_rows, cursor, filters, include=include, **call)
            yield from page.records
            if page.cursor is None:
                return
            cursor = page.cursor

    def count(
        self,
        filters: FilterLike = None,
        *,
        collection: str | None = None,
        timeout: float | None = None,
        consistency: Consistency | None = None,
    ) -> int:
        """How many points there are, or how many match; exact."""
        tree = parse_filter(filters)
        handle = self._reader(collection, call_options(timeout, consistency))
        return 0 if handle is None else handle.count(tree)

    # -- behind the writes

    def stats(self, *, collection: str | None = None, timeout: float | None = None) -> Any:
        """Rows, segments, indexes and their progress, memory and disk."""
        handle = self._reader(collection, call_options(timeout))
        return None if handle is None else handle.stats()

    def wait_until_indexed(self, timeout: float = 60.0, *, collection: str | None = None) -> bool:
        """Wait until every segment has its index, at most ``timeout`` seconds; whether it came to that.

        Only speed depends on it: points are searchable from the moment they are written.
        """
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout < math.inf:
            raise InvalidArgumentError(f"got {timeout!r}", field="timeout", bound="seconds, 0 or more")
        handle = self._reader(collection)
        return True if handle is None else handle.wait_until_indexed(float(timeout))

    def flush(self, *, collection: str | None = None, timeout: float | None = None) -> None:
        """Turn the growing buffer into a segment now."""
        self._session.check_writable()
        handle = self._reader(collection, call_options(timeout))
        if handle is not None:
            handle.flush()

    def compact(self, *, collection: str | None = None, timeout: float | None = None) -> None:
        """Merge small segments and remove deleted and superseded points now."""
        self._session.check_writable()
        handle = self._reader(collection, call_options(timeout))
        if handle is not None:
            handle.compact()

    def __repr__(self) -> str:
        if self._session.closed:
            return f"<{type(self).__name__} {self._name!r} of {self._session.backend.location!r}, closed>"
        schema = self.schema
        if schema is None:
            return f"<{type(self).__name__} {self._name!r} of {self._session.backend.location!r}, empty>"
        fields = ", ".join(
            f"{f'{v.name}: ' if v.name else ''}{v.dimension} × {v.dtype} {v.metric}" for v in schema.vectors
        )
        where = self._session.backend.location
        return f"<{type(self).__name__} {self._name!r} of {where!r}, {self.count():,} points, {fields}>"

    # -- which collection this is

    def _reader(self, collection: str | None = None, options: CallOptions = NO_OPTIONS) -> CollectionBackend | None:
        """The collection in the backend; None for a default collection that does not exist yet."""
        self._session.check_open()
        if collection is not None and collection != self._name:
            return self._named(collection, options)
        if self._handle is None:
            if self._maker is None:
                raise self._gone()
            self._handle = self._maker.find(options)
            if self._handle is None:
                return None
        return self._session.backend.bind(self._handle, options)

    def _named(self, collection: str, options: CallOptions) -> CollectionBackend | None:
        """Another collection of the database."""
        raise InvalidArgumentError(
            f"got {collection!r}",
            field="collection",
            bound=f"{self._name!r}, whose handle this is",
            mend="call the Database or the Client",
        )

    def _first_schema(self, vectors: Any) -> CollectionSchema:
        if self._maker is None:
            raise self._gone()
        return self._maker.schema_for(vectors)

    def _create(self, schema: CollectionSchema, options: CallOptions) -> CollectionBackend:
        if self._maker is None:
            raise self._gone()
        self._handle = self._maker.create(schema, options)
        return self._session.backend.bind(self._handle, options)

    def _gone(self) -> NotFoundError:
        return NotFoundError("the collection was dropped", field=self._name, bound="a collection that exists")


def _nothing_there(ids: IdColumn, versions: U64Array) -> VersionConflictError:
    """The refusal where not even the collection exists."""
    rows = np.flatnonzero(versions)
    return conflict(ids, rows, np.zeros(len(rows), np.uint64))


def _from_table(table: Any, metadata: Any, ids: Any, id_column: str, vector_column: str) -> tuple[Any, Any, Any]:
    """(vectors, metadata, ids) of a table; what is in the table may not be passed a second time."""
    if metadata is not None or ids is not None:
        raise InvalidArgumentError(
            "passed beside a table",
            field="metadata, ids, vectors",
            bound="a table alone",
            mend="add them to the table as columns",
        )
    columns = inputs.split_table(table, id_column, vector_column)
    return columns.vectors, columns.metadata, columns.ids


def _results(
    answer: Answer, schema: CollectionSchema, field: VectorField, include: frozenset[str] | None, single: bool
) -> SearchResults | list[SearchResults]:
    if single:
        return SearchResults(answer, 0, schema, field, include)
    return [SearchResults(answer, query, schema, field, include) for query in range(len(answer.counts))]


__all__ = ["Collection", "FilterLike", "IfVersion", "Maker"]

"""A database: a folder of collections, and itself the default one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from omendb.backend import NO_OPTIONS, Backend, CallOptions, CollectionBackend, Spread
from omendb.calls import call_options
from omendb.collection import Collection
from omendb.session import Session
from omendb_common.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError
from omendb_common.matrices import infer_dimension
from omendb_common.new_schema import index_options, vector_fields
from omendb_common.quorum import REPLICATION_MAX
from omendb_common.schema import CollectionSchema, Metric, VectorDType, VectorField, check_collection_name

DEFAULT_COLLECTION = "default"


class FieldHints(NamedTuple):
    """What a caller said about the default collection; None where it said nothing."""

    dimension: int | None = None
    metric: Metric | None = None
    dtype: VectorDType | None = None

    def field(self, dimension: int) -> VectorField:
        """The vector field these hints and a dimension give."""
        return VectorField(dimension, self.metric or "l2", self.dtype or "float32")

    def check_self(self) -> None:
        """Raise InvalidArgumentError for a bad dimension, metric or dtype."""
        self.field(1 if self.dimension is None else self.dimension)

    def check(self, stored: VectorField) -> None:
        """Raise AlreadyExistsError when the stored field is not what the hints say."""
        for name, wanted in self._asdict().items():
            found = getattr(stored, name)
            if wanted is not None and wanted != found:
                raise AlreadyExistsError(
                    f"got {wanted!r}, the default collection has {found!r}",
                    field=name,
                    bound=f"{found!r}",
                    mend=f"leave {name} out, or create another collection",
                )


class DefaultCollection:
    """Finds the default collection, or makes it from the first vectors written."""

    def __init__(self, session: Session, hints: FieldHints) -> None:
        self._session = session
        self._hints = hints

    def find(self, options: CallOptions) -> CollectionBackend | None:
        """The default collection, if there is one; AlreadyExistsError when it contradicts the hints."""
        handle = self._session.backend.within(options).find(DEFAULT_COLLECTION)
        if handle is not None:
            self._hints.check(handle.schema.vectors[0])
        return handle

    def schema_for(self, vectors: Any) -> CollectionSchema:
        """The schema a first write of ``vectors`` gives."""
        dimension = self._hints.dimension if self._hints.dimension is not None else infer_dimension(vectors)
        return CollectionSchema(str(uuid.uuid4()), (self._hints.field(dimension),))

    def create(self, schema: CollectionSchema, options: CallOptions) -> CollectionBackend:
        """Create it; when somebody was first, theirs, if the vectors fit there too."""
        with self._session.lock:
            self._session.check_open()
            handle, made = _find_or_create(self._session.backend.within(options), DEFAULT_COLLECTION, schema, Spread())
        if not made and handle.schema.vectors != schema.vectors:
            stored = handle.schema.vectors[0]
            raise InvalidArgumentError(
                f"got dimension {schema.vectors[0].dimension}",
                field="vectors",
                bound=f"dimension {stored.dimension}, which a concurrent first write chose",
            )
        return handle


class Database(Collection):
    """An open database.

    The methods of :class:`Collection` work on its default collection, which the first write creates with the
    dimension it finds. Use it as a context manager, or call :meth:`close`.
    """

    def __init__(self, backend: Backend, *, read_only: bool = False, hints: FieldHints | None = None) -> None:
        session = Session(backend, read_only=read_only)
        default = DefaultCollection(session, hints or FieldHints())
        # Hints are checked now. Without any, a network is not asked before it must be: a cluster whose coordinators are
        # away still serves the collections that it has.
        asked = backend.local or (hints is not None and any(hint is not None for hint in hints))
        super().__init__(session, DEFAULT_COLLECTION, default.find(NO_OPTIONS) if asked else None, default)
        self._collections: dict[str, Collection] = {DEFAULT_COLLECTION: self}

    @property
    def path(self) -> str:
        """Where the database lies."""
        return self._session.backend.location

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._session.closed

    def create_collection(
        self,
        name: str,
        dimension: int | None = None,
        metric: Metric = "l2",
        dtype: VectorDType = "float32",
        *,
        vectors: Mapping[str, VectorField] | None = None,
        index: str = "auto",
        if_not_exists: bool = False,
        shards: int | None = None,
        replication: int | None = None,
        write_quorum: int | None = None,
        read_quorum: int | None = None,
        partition_key: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Collection:
        """Create a collection.

        Args:
            name: 1..255 letters, digits, ``_``, ``-`` or ``.``.
            dimension: elements of a vector, 1..65536.
            metric: ``l2``, ``cosine`` or ``dot``.
            dtype: ``float32``, ``float16``, ``int8`` or ``uint8``: how elements are stored.
            vectors: several named vector fields instead of the four arguments above.
            index: ``auto``, ``flat`` (always exact), ``hnsw`` or ``ivf``.
            if_not_exists: return the collection if it exists with the same fields.
            shards: into how many parts a cluster cuts it; a folder is one.
            replication: copies of each shard, 1..7; a folder has one.
            write_quorum: copies that must have a write before it is acknowledged; the majority when None.
            read_quorum: copies that a read at ``majority`` asks; the majority when None.
            partition_key: the metadata key that decides in which shard of a cluster a point lies; its id when None.
            timeout: seconds; see :class:`Collection`.
            options: ``quantization``, ``nlist``, ``hnsw_m`` and ``hnsw_ef_construction`` of this collection, instead of
                the settings'.

        Raises:
            InvalidArgumentError: a bad name, dimension, metric, dtype or option.
            AlreadyExistsError: it exists, or, with ``if_not_exists``, has other fields.
        """
        self._session.check_writable()
        check_collection_name(name)
        schema = CollectionSchema(
            str(uuid.uuid4()), vector_fields(dimension, metric, dtype, vectors), index_options(index, options)
        )
        spread = Spread(shards, replication, write_quorum, read_quorum, partition_key)
        backend = self._session.backend.within(call_options(timeout))
        with self._session.lock:
            self._session.check_open()
            existing, made = _find_or_create(backend, name, schema, spread)
            if made:
                return self._handed_out(name, existing)
        if not if_not_exists:
            raise AlreadyExistsError(
                f"collection {name!r} exists",
                field="name",
                bound="a new name",
                mend="use collection(name) or if_not_exists=True",
            )
        if existing.schema.vectors != schema.vectors:
            raise AlreadyExistsError(
                f"collection {name!r} exists with {existing.schema.vectors}",
                field="name",
                bound="the same vector fields",
            )
        return self._handed_out(name, existing)

    def collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """The collection called ``name``; NotFoundError when there is none."""
        return self._found(name, call_options(timeout))

    def list_collections(self, *, timeout: float | None = None) -> list[str]:
        """The collections' names, sorted."""
        self._session.check_open()
        return sorted(self._session.backend.within(call_options(timeout)).names())

    def drop_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a collection and all its points; NotFoundError when there is none."""
        self._session.check_writable()
        self.collection(name, timeout=timeout)
        with self._session.lock:
            self._session.backend.within(call_options(timeout)).drop(name)
            collection = self._collections[name]
            collection._handle = None
            if collection is not self:
                del self._collections[name]

    def rename_collection(self, old: str, new: str, *, timeout: float | None = None) -> None:
        """Give a collection another name; handles of it go on working."""
        self._session.check_writable()
        check_collection_name(new)
        self.collection(old, timeout=timeout)
        backend = self._session.backend.within(call_options(timeout))
        with self._session.lock:
            if backend.find(new) is not None:
                raise AlreadyExistsError(f"collection {new!r} exists", field="new", bound="a new name")
            handle = backend.rename(old, new)
            collection = self._collections[old]
            if collection is self:
                self._handle = None
                return
            del self._collections[old]
            collection._name, collection._handle = new, handle
            self._collections[new] = collection
        if new == DEFAULT_COLLECTION:
            self._handle = None

    def alter_collection(
        self,
        name: str,
        *,
        replication: int | None = None,
        write_quorum: int | None = None,
        read_quorum: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Ask for another number of copies of each shard, and for other quorums; what is None stays.

        Shards get there one copy at a time, while they serve; `omendb cluster moves` tells how far they are. A quorum
        that was a majority of the copies, or all of them, stays that of another number. In a folder all are 1.
        """
        self._session.check_writable()
        self.collection(name, timeout=timeout)
        numbers = {"replication": replication, "write_quorum": write_quorum, "read_quorum": read_quorum}
        for field, value in numbers.items():
            if value is not None and (type(value) is not int or not 1 <= value <= REPLICATION_MAX):
                raise InvalidArgumentError(f"got {value!r}", field=field, bound=f"1..{REPLICATION_MAX}")
        backend = self._session.backend.within(call_options(timeout))
        backend.alter(name, Spread(None, replication, write_quorum, read_quorum, None))

    def close(self) -> None:
        """Make everything durable and let the folder go; closing twice is fine."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _named(self, collection: str, options: CallOptions) -> CollectionBackend | None:
        # A collection that another client dropped is noticed by the call itself.
        known = self._collections.get(check_collection_name(collection))
        return (self._found(collection, options) if known is None else known)._reader(None, options)

    def _found(self, name: str, options: CallOptions) -> Collection:
        self._session.check_open()
        backend = self._session.backend.within(options)
        handle = backend.find(check_collection_name(name))
        if handle is None:
            raise NotFoundError(
                f"no collection {name!r}",
                field="name",
                bound=f"one of {sorted(backend.names())}",
                mend="create_collection makes one",
            )
        return self._handed_out(name, handle)

    def _handed_out(self, name: str, handle: CollectionBackend) -> Collection:
        """One handle object per collection, so that a rename or a drop reaches all its users."""
        with self._session.lock:
            found = self._collections.get(name)
            if found is None:
                found = self._collections[name] = Collection(self._session, name, handle)
            found._handle = handle
            return found


def _find_or_create(
    backend: Backend, name: str, schema: CollectionSchema, spread: Spread
) -> tuple[CollectionBackend, bool]:
    """The collection, and whether this call made it."""
    handle = backend.find(name)
    if handle is not None:
        return handle, False
    try:
        return backend.create(name, schema, spread), True
    except AlreadyExistsError:
        handle = backend.find(name)  # another client was quicker
        if handle is None:
            raise
        return handle, False


__all__ = ["DEFAULT_COLLECTION", "Database", "DefaultCollection", "FieldHints"]

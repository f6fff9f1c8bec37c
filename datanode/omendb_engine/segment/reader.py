"""A segment as readers see it: immutable, mapped, and verified before any byte of it is believed.

Opening checks the manifest's hash and every file's size, and maps every file: a snapshot is read to its end
though a merge has removed the names meanwhile. Keys and statistics are verified then as well, the big files
(vectors, payload, index) once, whole, when first used. After ``close`` no new part can be read, and what was handed
out stays valid: arrays keep their mapping alive.
"""

from __future__ import annotations

import copy
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from omendb_common.checksum import BLOCK_BYTES, verify_blocks
from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError, DatabaseClosedError
from omendb_common.ids import IdColumn, U64Array
from omendb_common.plain_arrow import numpy_of_arrow
from omendb_common.schema import Float32Array, VectorField
from omendb_engine.index.base import VectorIndex
from omendb_engine.index.hnsw import HnswBuild
from omendb_engine.index.ivf import IvfBuild
from omendb_engine.index.kinds import IndexBuild, load_index, may_grow
from omendb_engine.overrides import FieldStamps
from omendb_engine.payload.cache import ColumnCache
from omendb_engine.payload.columns import BatchColumns, ColumnStore, ParquetColumns
from omendb_engine.payload.statistics import SegmentStatistics
from omendb_engine.segment import layout
from omendb_engine.segment.arrow_file import decode_batch_file, decode_vectors
from omendb_engine.segment.index_files import IndexDocument, read_index_document
from omendb_engine.segment.keys import Bloom, I32Array, KeyTable, keys_from_batch
from omendb_engine.segment.layout import FileEntry
from omendb_engine.segment.manifest import SegmentRef
from omendb_engine.segment.writer import KIND, Overrides

T = TypeVar("T")
Vectors = tuple[npt.NDArray[Any], Float32Array | None]
Keys = tuple[IdColumn, U64Array, KeyTable]
_uids = itertools.count(1)

REREAD_BYTES = 64 * BLOCK_BYTES
"""Read at a time when files are read again: some milliseconds, after which others have their turn."""


class _Lazy(Generic[T]):
    """A value made once, by the first thread that asks; an error is not remembered.

    How to make it is said by who asks: kept here, it would tie a segment into a circle that only the garbage
    collector undoes, and until then the space of files that a merge removed would stay taken.
    """

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: T | None = None

    def get(self, make: Callable[[], T]) -> T:
        value = self._value
        if value is None:
            with self._lock:
                if self._value is None:
                    self._value = make()
                value = self._value
        return value


class Files:
    """The files of one folder, by name, as a document describes them."""

    def __init__(self, disk: Disk, folder: str, entries: Mapping[str, FileEntry]) -> None:
        self._disk = disk
        self.folder = folder
        self.entries = entries
        self._maps: dict[str, memoryview] = {}

    def path(self, name: str) -> str:
        """Path of a file."""
        return f"{self.folder}/{name}"

    def pin(self) -> None:
        """Map every file; CorruptionError unless it is there with its size. No content is looked at."""
        for name, entry in self.entries.items():
            layout.check_size(self._disk, self.path(name), entry)
            try:
                self._maps[name] = self._disk.map(self.path(name))
            except FileNotFoundError:
                raise CorruptionError("the file is missing", path=self.path(name)) from None

    def view(self, name: str) -> memoryview:
        """The verified content of a file, mapped; CorruptionError when any byte differs."""
        path = self.path(name)
        entry = self.entries.get(name)
        if entry is None:
            raise CorruptionError("the segment's manifest does not name the file", path=path)
        if name not in self._maps:
            return self.fresh_view(name)
        if self._disk.exists(path):
            # To read a map past the end of its file is not an error but the end of the process.
            layout.check_size(self._disk, path, entry)
        view = self._maps[name]
        layout.verify(view, entry, path)
        return view

    def fresh_view(self, name: str) -> memoryview:
        """The verified content as it is on disk now."""
        path, entry = self.path(name), self.entries[name]
        layout.check_size(self._disk, path, entry)
        view = self._disk.map(path)
        layout.verify(view, entry, path)
        return view

    def reread(self, name: str) -> Iterator[int]:
        """Check a file as it is on disk now, a piece at a time; the bytes of each, CorruptionError when one differs.

        Nothing of the file is held between two pieces, so that whoever reads may take as long as it likes.
        """
        path, entry = self.path(name), self.entries[name]
        at = 0
        while True:
            layout.check_size(self._disk, path, entry)
            end = min(at + REREAD_BYTES, entry.size)
            self._reread_piece(path, entry, at, end)
            yield end - at
            if end == entry.size:
                return
            at = end

    def _reread_piece(self, path: str, entry: FileEntry, at: int, end: int) -> None:
        try:
            file = self._disk.open(path, "r")
        except FileNotFoundError:
            raise CorruptionError("the file is missing", path=path) from None
        try:
            # Read, not mapped: to touch a page that the disk does not give back ends the process.
            piece = file.pread(end - at, at)
        finally:
            file.close()
        last = None if end == entry.size else end // BLOCK_BYTES
        verify_blocks(piece, entry.blocks[at // BLOCK_BYTES : last], path, start=at)


class Segment:
    """An immutable segment; safe to use from any number of threads.

    ``id``, ``n`` (rows), ``ref``; ``uid`` is unique among the segments opened in this process (a cache key);
    ``payload_bytes`` is what the payload takes in memory.
    """

    def __init__(self, disk: Disk, replica_path: str, ref: SegmentRef, body: Mapping[str, Any], cache: ColumnCache):
        path = f"{layout.segment_path(replica_path, ref.segment_id)}/{layout.MANIFEST}"
        self.ref = ref
        self.id = ref.segment_id
        self.n = int(body["rows"])
        self.uid = next(_uids)
        self.int_id_max = int(body["int_id_max"])
        # Folders written before this was noted count as small.
        self.payload_bytes = int(body.get("payload_bytes", 0))
        self._disk = disk
        self._replica_path = replica_path
        self._closed = False
        self.index_damage: CorruptionError | None = None
        self._files = Files(disk, layout.segment_path(replica_path, ref.segment_id), layout.file_entries(body, path))
        self._fields = {str(f["name"]): f for f in body["fields"]}
        self._cache = cache
        self._keys: _Lazy[Keys] = _Lazy()
        self._vectors: dict[str, _Lazy[Vectors]] = {name: _Lazy() for name in self._fields}
        self._columns: _Lazy[ColumnStore] = _Lazy()
        self._stats: _Lazy[SegmentStatistics] = _Lazy()
        self._tombstones: _Lazy[Keys] = _Lazy()
        self._overrides: _Lazy[Overrides] = _Lazy()
        self._digest_form = int(body.get("digest_form", 0))
        # Shared with what ``with_index`` makes of this one.
        self._wrong_digests = threading.Event()
        self._digests: _Lazy[U64Array] = _Lazy()
        self._document: _Lazy[IndexDocument] = _Lazy()
        self._index_files: _Lazy[Files] = _Lazy()
        self._indexes: dict[str, _Lazy[VectorIndex]] = {name: _Lazy() for name in self._fields}

    @staticmethod
    def open(disk: Disk, replica_path: str, ref: SegmentRef, *, cache: ColumnCache, verify: bool = True) -> Segment:
        """Open the segment that ``ref`` names.

        ``verify=False`` puts the check of keys and statistics off to their first use, as for the big files;
        nothing is ever used unchecked. Damage to the files of an index is kept in ``index_damage``.

        Raises:
            CorruptionError: another file is missing, has another size, or is damaged.
            FormatVersionError: written by a newer release.
        """
        path = f"{layout.segment_path(replica_path, ref.segment_id)}/{layout.MANIFEST}"
        body = layout.read_document(disk, path, kind=KIND, format_max=layout.SEGMENT_FORMAT, expected=ref.manifest_hash)
        if (int(body["segment_id"]), int(body["rows"])) != (ref.segment_id, ref.rows):
            raise CorruptionError("the manifest of another segment", path=path, offset=0)
        segment = Segment(disk, replica_path, ref, body, cache)
        segment._files.pin()
        if ref.index_hash is not None:
            try:
                segment._index_files.get(segment._read_index_files).pin()
            except CorruptionError as error:  # an index only saves time: see ``usable_index``
                segment.index_damage = error
        if verify:
            segment._keys.get(segment._read_keys)
            segment._stats.get(segment._read_stats)
            segment._tombstones.get(segment._read_tombstones)
            segment._overrides.get(segment._read_overrides)
        return segment

    # Keys

    @property
    def ids(self) -> IdColumn:
        """Ids in row order."""
        return self._keys.get(self._read_keys)[0]

    @property
    def stamps(self) -> U64Array:
        """Stamps in row order, u64 (n)."""
        return self._keys.get(self._read_keys)[1]

    @property
    def hi(self) -> U64Array:
        """High halves of the id hashes in row order, u64 (n)."""
        return self._keys.get(self._read_keys)[2].hi

    @property
    def lo(self) -> U64Array:
        """Low halves of the id hashes in row order, u64 (n)."""
        return self._keys.get(self._read_keys)[2].lo

    @property
    def sorted_hi(self) -> U64Array:
        """``hi`` ascending, u64 (n)."""
        return self._keys.get(self._read_keys)[2].sorted_hi

    @property
    def sorted_row(self) -> I32Array:
        """The row of each element of ``sorted_hi``, i32 (n)."""
        return self._keys.get(self._read_keys)[2].sorted_row

    @property
    def bloom(self) -> Bloom | None:
        """The filter in front of :meth:`lookup`."""
        return self._keys.get(self._read_keys)[2].bloom

    def lookup(self, hi: U64Array, lo: U64Array, masks: U64Array | None = None) -> I32Array:
        """Row of each id hash (m), -1 where absent; ``masks`` as in ``KeyTable.lookup``."""
        return self._keys.get(self._read_keys)[2].lookup(hi, lo, masks)

    def _read_keys(self) -> Keys:
        bloom = Bloom.decode(self._view(layout.BLOOM), self._files.path(layout.BLOOM))
        path = self._files.path(layout.KEYS)
        ids, stamps, table = keys_from_batch(decode_batch_file(self._view(layout.KEYS), path), bloom, path)
        if len(ids) != self.n or bloom.keys != self.n:
            raise CorruptionError(f"{len(ids)} keys", path=path, bound=f"{self.n} rows")
        return ids, stamps, table

    # Vectors

    @property
    def fields(self) -> tuple[VectorField, ...]:
        """The vector fields, as they were when the segment was written."""
        return tuple(self._spec(name) for name in self._fields)

    def vectors(self, field: str = "") -> npt.NDArray[Any]:
        """The stored vectors of a field, (n, d) in its dtype: a view of the mapped file."""
        return self._vectors_of(field)[0]

    def norms(self, field: str = "") -> Float32Array | None:
        """Original lengths (n) float32 of a cosine field's vectors, None for other metrics."""
        return self._vectors_of(field)[1]

    def _vectors_of(self, name: str) -> Vectors:
        return self._vectors[name].get(lambda: self._read_vectors(self._fields[name]))

    def _read_vectors(self, field: Mapping[str, Any]) -> Vectors:
        file = str(field["file"])
        return decode_vectors(
            self._view(file),
            self._files.path(file),
            n=self.n,
            dimension=int(field["dimension"]),
            dtype=np.dtype(str(field["dtype"])),
            with_norms=field["metric"] == "cosine",
        )

    # Payload

    @property
    def columns(self) -> ColumnStore:
        """The payload."""
        return self._columns.get(self._read_columns)

    @property
    def stats(self) -> SegmentStatistics:
        """What lets a filter skip the segment."""
        return self._stats.get(self._read_stats)

    def _read_columns(self) -> ColumnStore:
        if layout.METADATA not in self._files.entries:
            return BatchColumns.of([None], [self.n])
        path = self._files.path(layout.METADATA)
        return ParquetColumns(self._view(layout.METADATA), self.n, self._cache, path)

    def _read_stats(self) -> SegmentStatistics:
        if layout.MINMAX not in self._files.entries:
            return SegmentStatistics(self.n, {})
        path = self._files.path(layout.MINMAX)
        stats = SegmentStatistics.from_json(json.loads(bytes(self._view(layout.MINMAX))), path)
        if stats.n != self.n:
            raise CorruptionError(f"statistics of {stats.n} rows", path=path, bound=f"{self.n} rows")
        self._view(layout.QUANTILES)  # nothing reads it at this time, but damage is damage
        return stats

    # Tombstones and field stamps

    def lookup_tombstones(self, hi: U64Array, lo: U64Array) -> U64Array:
        """Stamp of each id hash's tombstone here, 0 where there is none; u64 (m)."""
        found = self._tombstones.get(self._read_tombstones)
        out = np.zeros(len(hi), np.uint64)
        if len(found[0]):
            rows = found[2].lookup(hi, lo)
            hit = rows >= 0
            out[hit] = found[1][rows[hit]]
        return out

    def tombstones(self) -> tuple[IdColumn, U64Array]:
        """Ids and stamps of all tombstones here."""
        ids, stamps, _ = self._tombstones.get(self._read_tombstones)
        return ids, stamps

    def overrides(self) -> Overrides | None:
        """Per-field stamps, sorted by row; None when there are none."""
        found = self._overrides.get(self._read_overrides)
        return found if len(found) else None

    def _read_tombstones(self) -> Keys:
        if layout.TOMBSTONES not in self._files.entries:
            none = np.empty(0, np.uint64)
            return IdColumn.empty(), none, KeyTable(none, none, none, np.empty(0, np.int32), None)
        path = self._files.path(layout.TOMBSTONES)
        return keys_from_batch(decode_batch_file(self._view(layout.TOMBSTONES), path), None, path)

    def _read_overrides(self) -> Overrides:
        if layout.OVERRIDES not in self._files.entries:
            return FieldStamps.empty()
        path = self._files.path(layout.OVERRIDES)
        batch = decode_batch_file(self._view(layout.OVERRIDES), path)
        rows, fields, stamps = (numpy_of_arrow(batch.column(name)) for name in ("row", "field", "stamp"))
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= self.n):
            raise CorruptionError("a row outside the segment", path=path, bound=f"0..{self.n - 1}")
        return FieldStamps(rows, fields, stamps).by_row()

    # Digests

    def digests(self) -> U64Array | None:
        """Of the rows' records, u64 (n), as they were when the segment was written: no vector is read for them.

        None where there are none, they are of another form than this release's, or they were found to be wrong.
        """
        if self._digest_form != layout.DIGEST_FORM or self._wrong_digests.is_set():
            return None
        return self._digests.get(self._read_digests)

    def distrust_digests(self) -> None:
        """Believe the stored digests no more, for as long as the segment is open."""
        self._wrong_digests.set()

    def _read_digests(self) -> U64Array:
        path = self._files.path(layout.DIGESTS)
        digests = numpy_of_arrow(decode_batch_file(self._view(layout.DIGESTS), path).column("digest"))
        if len(digests) != self.n:
            raise CorruptionError(f"{len(digests)} digests", path=path, bound=f"{self.n} rows")
        return np.asarray(digests, np.uint64)

    # Index

    @property
    def index(self) -> VectorIndex | None:
        """The index of the first vector field, None while that is searched exactly."""
        return self.index_of(next(iter(self._fields)))

    def index_of(self, field: str) -> VectorIndex | None:
        """The index of a vector field, None while that is searched exactly."""
        if self.ref.index_hash is None or field not in self._document.get(self._read_index_document).indexes:
            return None
        return self._indexes[field].get(lambda: self._read_index(field))

    def usable_index(self, field: str) -> VectorIndex | None:
        """The index of a vector field, None also once it is found damaged (``index_damage`` says how).

        An index only saves time: without it the rows, which are verified by themselves, are compared exactly.
        """
        if self.index_damage is not None:
            return None
        try:
            return self.index_of(field)
        except CorruptionError as error:
            self.index_damage = error
            return None

    def with_index(self, index_hash: str | None) -> Segment:
        """This segment with the index that ``write_index`` wrote (None: without any); shares everything else."""
        other = copy.copy(self)
        ref = self.ref
        other.ref = SegmentRef(
            ref.segment_id, ref.rows, ref.manifest_hash, index_hash, ref.deletes, ref.size_bytes,
            ref.min_stamp, ref.max_stamp,
        )  # fmt: skip
        other.index_damage = None
        other._document = _Lazy()
        other._index_files = _Lazy()
        other._indexes = {name: _Lazy() for name in self._fields}
        if index_hash is not None:
            other._index_files.get(other._read_index_files).pin()
        return other

    def _read_index_document(self) -> IndexDocument:
        self._check_open()
        assert self.ref.index_hash is not None
        return read_index_document(self._disk, self._replica_path, self.id, self.ref.index_hash)

    def _read_index_files(self) -> Files:
        return Files(self._disk, self._files.folder, self._document.get(self._read_index_document).files)

    def _read_index(self, name: str) -> VectorIndex:
        self._check_open()
        described = self._document.get(self._read_index_document).indexes[name]
        files = self._index_files.get(self._read_index_files)
        field = self._spec(name)
        graph = np.frombuffer(files.view(described.graph), np.uint8)
        path = files.path(described.graph)
        vectors = self.vectors(name)
        if described.kind == "ivf":
            built: IndexBuild = IvfBuild(
                graph, self.n, described.nlist, described.quantization, described.ladder, described.curve
            )
        else:
            codes = None if described.codes is None else np.frombuffer(files.view(described.codes), np.uint8)
            built = HnswBuild(
                graph, codes, self.n, described.m, described.ef_construction, described.curve, described.quantization
            )
        return load_index(built, field, vectors, norms=self.norms(name), path=path)

    def graph_of(self, field: str) -> npt.NDArray[np.uint8] | None:
        """The verified bytes of a field's graph, to grow a new one from; None without one."""
        index = self.index_of(field)
        if index is None or not may_grow(index.kind):
            return None
        described = self._document.get(self._read_index_document).indexes[field]
        return np.frombuffer(self._index_files.get(self._read_index_files).view(described.graph), np.uint8)

    def _spec(self, name: str) -> VectorField:
        field = self._fields[name]
        return VectorField(int(field["dimension"]), field["metric"], field["dtype"], name)

    # The whole

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of all files, those of a sound index included."""
        if self.ref.index_hash is None or self.index_damage is not None:
            return self.ref.size_bytes
        return self.ref.size_bytes + self._document.get(self._read_index_document).size_bytes

    def verify_all(self) -> list[CorruptionError]:
        """Read and check every byte of every file again; returns what is wrong (``omendb check``)."""
        problems = self.verify_data()
        if self.ref.index_hash is not None:
            try:
                for _ in _reread(self._index_files.get(self._read_index_files), problems):
                    pass
            except CorruptionError as error:
                problems.append(error)
        return problems

    def verify_data(self) -> list[CorruptionError]:
        """The same without the index, which can be built again."""
        problems: list[CorruptionError] = []
        for _ in self.reread_data(problems):
            pass
        return problems

    def reread_data(self, problems: list[CorruptionError]) -> Iterator[int]:
        """The same a piece at a time, with the bytes of each; ``problems`` is given what is wrong."""
        return _reread(self._files, problems)

    def close(self) -> None:
        """Refuse further first uses; arrays already handed out stay valid."""
        self._closed = True

    def _view(self, name: str) -> memoryview:
        self._check_open()
        return self._files.view(name)

    def _check_open(self) -> None:
        if self._closed:
            raise DatabaseClosedError(f"segment {self.id} is closed")


def _reread(files: Files, problems: list[CorruptionError]) -> Iterator[int]:
    for name in files.entries:
        try:
            yield from files.reread(name)
        except CorruptionError as error:
            problems.append(error)


__all__ = ["Files", "Segment"]

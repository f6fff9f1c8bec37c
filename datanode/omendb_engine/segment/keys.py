"""A segment's ids, hashes and stamps, and the lookup from a 128-bit id hash to a row.

``keys.arrow`` holds, in row order, the id columns, ``hash_hi``, ``hash_lo`` and ``stamp``, and beside them
``sorted_hi`` (the ascending hashes) with ``sorted_row`` (the row of each). A lookup asks the bloom filter,
then searches the survivors in ``sorted_hi`` and compares all 128 bits.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.checksum import crc32c
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_common.ids import IdColumn, U64Array
from omendb_common.plain_arrow import arrow_of_numpy, numpy_of_arrow

I32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

BLOOM_MAGIC = b"OMBLOOM\0"
BLOOM_FORMAT = 1
BLOOM_BITS_PER_KEY = 12
# magic, format, bits set per key, reserved, words, keys, crc of the words, crc of the header before it
_BLOOM_HEADER = struct.Struct("<8sHHIQQI")
_HEADER_CRC = struct.Struct("<I")
_BLOOM_BYTES = _BLOOM_HEADER.size + _HEADER_CRC.size

_PATTERNS = 4_096
_PATTERN_MASK = np.uint64(_PATTERNS - 1)
_S32 = np.uint64(32)
# Needles from which on sorting them first pays.
_SORTED_NEEDLES_MIN = 64
_ROW_MAX = (1 << 31) - 1


class Bloom:
    """A blocked bloom filter: each key sets four bits of one 64-bit word.

    One word per key means one cache line and one gather per probe; at 12 bits per key about 1 % of the absent
    keys pass.
    """

    __slots__ = ("keys", "words")

    def __init__(self, words: U64Array, keys: int) -> None:
        self.words = words
        self.keys = keys

    @staticmethod
    def build(hi: U64Array, lo: U64Array) -> Bloom:
        """The filter of the keys (hi, lo), u64 arrays of n."""
        count = max(1, -(-len(hi) * BLOOM_BITS_PER_KEY // 64))
        words = np.zeros(count, np.uint64)
        np.bitwise_or.at(words, _word_of(lo, count), bloom_masks(hi))
        return Bloom(words, len(hi))

    def probe(self, lo: U64Array, masks: U64Array) -> BoolArray:
        """Which keys may be present; ``masks`` is ``bloom_masks(hi)``, the same for every segment asked."""
        words = self.words.take(_word_of(lo, len(self.words)))
        words &= masks
        result: BoolArray = words == masks
        return result

    def encode(self) -> list[bytes]:
        """The parts of ``bloom.bin``; the header carries a checksum of itself and one of the words."""
        words = self.words.astype("<u8").tobytes()
        header = _BLOOM_HEADER.pack(BLOOM_MAGIC, BLOOM_FORMAT, 4, 0, len(self.words), self.keys, crc32c(words))
        return [header, _HEADER_CRC.pack(crc32c(header)), words]

    @staticmethod
    def decode(data: memoryview, path: str) -> Bloom:
        """Read what :meth:`encode` wrote; CorruptionError or FormatVersionError otherwise."""
        if data.nbytes < _BLOOM_BYTES:
            raise CorruptionError("the bloom filter is cut short", path=path, offset=data.nbytes)
        header = bytes(data[: _BLOOM_HEADER.size])
        magic, version, bits, _, count, keys, body_crc = _BLOOM_HEADER.unpack(header)
        (header_crc,) = _HEADER_CRC.unpack(data[_BLOOM_HEADER.size : _BLOOM_BYTES])
        if magic != BLOOM_MAGIC or crc32c(header) != header_crc:
            raise CorruptionError("the bloom filter's header is damaged", path=path, offset=0)
        if version > BLOOM_FORMAT or bits != 4:
            raise FormatVersionError(f"bloom format {version}", field=path, bound=f"at most {BLOOM_FORMAT}")
        body = data[_BLOOM_BYTES:]
        if body.nbytes != count * 8 or count < 1 or crc32c(body) != body_crc:
            raise CorruptionError("the bloom filter's words are damaged", path=path, offset=_BLOOM_BYTES)
        return Bloom(np.frombuffer(body, "<u8"), keys)


def _patterns() -> U64Array:
    """4,096 fixed words of four random bits each: part of the file format, never to be changed."""
    state = np.arange(_PATTERNS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    words = np.zeros(_PATTERNS, np.uint64)
    for shift in (0, 6, 12, 18):
        words |= np.uint64(1) << ((state >> np.uint64(shift)) & np.uint64(63))
    return words


_PATTERN_WORDS = _patterns()


def bloom_masks(hi: U64Array) -> U64Array:
    """The bits of each key, chosen by the low 12 bits of ``hi``: a table in the cache beats four shifts."""
    return _PATTERN_WORDS.take((hi & _PATTERN_MASK).view(np.int64))


def _word_of(lo: U64Array, count: int) -> npt.NDArray[np.int64]:
    # A multiply-shift over the top 32 bits of lo: independent of the bits, which come from hi.
    place = lo >> _S32
    place *= np.uint64(count)
    place >>= _S32
    return place.view(np.int64)


class KeyTable:
    """Row of a 128-bit hash among n rows; immutable, views over mapped memory are welcome.

    ``hi``, ``lo``: u64 (n) in row order. ``sorted_hi``: u64 (n) ascending. ``sorted_row``: i32 (n).
    """

    __slots__ = ("bloom", "hi", "lo", "sorted_hi", "sorted_row")

    def __init__(
        self, hi: U64Array, lo: U64Array, sorted_hi: U64Array, sorted_row: I32Array, bloom: Bloom | None
    ) -> None:
        self.hi = hi
        self.lo = lo
        self.sorted_hi = sorted_hi
        self.sorted_row = sorted_row
        self.bloom = bloom

    def __len__(self) -> int:
        return len(self.hi)

    @staticmethod
    def build(hi: U64Array, lo: U64Array, *, bloom: bool = True) -> KeyTable:
        """Sort the keys; ValueError when a key appears twice or there are more rows than an int32 counts."""
        if len(hi) > _ROW_MAX:
            raise ValueError(f"{len(hi)} rows in one segment, more than {_ROW_MAX}")
        order = np.argsort(hi)
        sorted_hi = hi[order]
        table = KeyTable(hi, lo, sorted_hi, order.astype(np.int32), Bloom.build(hi, lo) if bloom else None)
        twice = table.duplicate()
        if twice is not None:
            raise ValueError(f"rows {twice[0]} and {twice[1]} have the same id")
        return table

    def duplicate(self) -> tuple[int, int] | None:
        """Two rows with the same 128-bit key, if there are any."""
        same = self.sorted_hi[1:] == self.sorted_hi[:-1]
        if not same.any():
            return None
        at = np.flatnonzero(same)
        rows = self.sorted_row[np.union1d(at, at + 1)]
        rows = rows[np.lexsort((self.lo[rows], self.hi[rows]))]
        twin = (self.hi[rows[1:]] == self.hi[rows[:-1]]) & (self.lo[rows[1:]] == self.lo[rows[:-1]])
        found = np.flatnonzero(twin)
        return (int(rows[found[0]]), int(rows[found[0] + 1])) if len(found) else None

    def lookup(self, hi: U64Array, lo: U64Array, masks: U64Array | None = None) -> I32Array:
        """Rows of the keys (m), -1 where absent.

        ``masks`` may carry ``bloom_masks(hi)`` when several segments are asked for the same keys.
        """
        out = np.full(len(hi), -1, np.int32)
        if not len(self.hi) or not len(hi):
            return out
        if self.bloom is None:
            out[:] = self._search(hi, lo)
            return out
        maybe = np.flatnonzero(self.bloom.probe(lo, bloom_masks(hi) if masks is None else masks))
        if len(maybe):
            out[maybe] = self._search(hi[maybe], lo[maybe])
        return out

    def _search(self, hi: U64Array, lo: U64Array) -> I32Array:
        """Exact rows of (hi, lo): binary search by hi, then a walk along equal hi until lo agrees."""
        at = self._places(hi)
        np.minimum(at, len(self.sorted_hi) - 1, out=at)
        out = np.full(len(hi), -1, np.int32)
        pending = np.flatnonzero(self.sorted_hi.take(at) == hi)
        while len(pending):
            rows = self.sorted_row.take(at[pending])
            exact = self.lo.take(rows) == lo[pending]
            if exact.all():  # always, but for a collision of 64 bits
                out[pending] = rows
                break
            out[pending[exact]] = rows[exact]
            pending = pending[~exact]
            at[pending] += 1
            pending = pending[at[pending] < len(self.sorted_hi)]
            pending = pending[self.sorted_hi[at[pending]] == hi[pending]]
        return out

    def _places(self, hi: U64Array) -> npt.NDArray[np.int64]:
        if len(hi) < _SORTED_NEEDLES_MIN:
            return self.sorted_hi.searchsorted(hi)
        order = np.argsort(hi)  # ascending needles walk sorted_hi once instead of missing the cache each time
        at = np.empty(len(hi), np.int64)
        at[order] = self.sorted_hi.searchsorted(hi[order])
        return at


def keys_batch(ids: IdColumn, stamps: U64Array, table: KeyTable) -> pa.RecordBatch:
    """The record batch of ``keys.arrow`` (and of ``tombstones.arrow``)."""
    columns = ids.to_arrow()
    columns += [
        ("hash_hi", arrow_of_numpy(table.hi)),
        ("hash_lo", arrow_of_numpy(table.lo)),
        ("stamp", arrow_of_numpy(stamps)),
    ]
    columns += [("sorted_hi", arrow_of_numpy(table.sorted_hi)), ("sorted_row", arrow_of_numpy(table.sorted_row))]
    return pa.RecordBatch.from_arrays([c for _, c in columns], names=[n for n, _ in columns])


def keys_from_batch(batch: pa.RecordBatch, bloom: Bloom | None, path: str) -> tuple[IdColumn, U64Array, KeyTable]:
    """Ids, stamps and the lookup table of a batch that :func:`keys_batch` made; zero-copy."""
    names = batch.schema.names
    for name in ("hash_hi", "hash_lo", "stamp", "sorted_hi", "sorted_row"):
        if name not in names:
            raise CorruptionError(f"the column {name} is missing", path=path)
    hi, lo, stamps, sorted_hi = (
        numpy_of_arrow(batch.column(name)) for name in ("hash_hi", "hash_lo", "stamp", "sorted_hi")
    )
    rows = numpy_of_arrow(batch.column("sorted_row"))
    ids = IdColumn.from_arrow(batch)
    if len(ids) != batch.num_rows:
        raise CorruptionError("there is no id column", path=path)
    return ids, stamps, KeyTable(hi, lo, sorted_hi, rows, bloom)


__all__ = [
    "BLOOM_BITS_PER_KEY",
    "BLOOM_FORMAT",
    "BLOOM_MAGIC",
    "Bloom",
    "KeyTable",
    "bloom_masks",
    "keys_batch",
    "keys_from_batch",
]

"""Point ids in columns: unsigned 64-bit integers and UTF-8 strings, hashed 128 bits wide.

An id is an integer in 0..2**64-1 or a string of 1..512 bytes; ``uuid.UUID`` becomes its canonical
string. A column keeps integers in a NumPy array and strings in an Arrow array, so that nothing on
the write path touches one id at a time.

The 128-bit hash ``(hi, lo)`` is the engine's key. Integers hash by two bijections, so two integers
never collide; strings are folded eight bytes at a time with two independent multiply-rotate chains
and finished with the MurmurHash3 finalizer (Appleby, 2011). The lowest bit of ``lo`` is 0 for integers
and 1 for strings, so the two kinds never meet.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.errors import InvalidArgumentError
from omendb_common.plain_arrow import arrow_of_numpy, arrow_of_texts, numpy_of_arrow
from omendb_common.schema import ID_BYTES_MAX

U64Array = npt.NDArray[np.uint64]
PointId = int | str
_INT_MAX = (1 << 64) - 1

_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
_K1 = np.uint64(0x87C37B91114253D5)
_K2 = np.uint64(0x4CF5AD432745937F)
_SEED_HI = np.uint64(0x9E3779B97F4A7C15)
_SEED_LO = np.uint64(0xD1B54A32D192ED03)
_S33 = np.uint64(33)
_S29 = np.uint64(29)
_ONE = np.uint64(1)


def _finalize(x: U64Array) -> U64Array:
    """MurmurHash3's 64-bit finalizer: a bijection in which every input bit reaches every output bit."""
    x = x ^ (x >> _S33)
    x *= _M1
    x ^= x >> _S33
    x *= _M2
    x ^= x >> _S33
    return x


def _hash_ints(ints: U64Array) -> tuple[U64Array, U64Array]:
    hi = _finalize(ints + _SEED_HI)
    lo = _finalize(ints ^ _SEED_LO)
    return hi, lo & ~_ONE


def _string_buffers(strs: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Offsets (n + 1) and bytes of a string array, without copying the bytes."""
    _, offsets_buffer, data_buffer = strs.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[strs.offset : strs.offset + len(strs) + 1].astype(np.int64)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.empty(0, np.uint8)
    return offsets, data


def _hash_strings(strs: pa.Array) -> tuple[U64Array, U64Array]:
    n = len(strs)
    if n == 0:
        empty = np.empty(0, np.uint64)
        return empty, empty.copy()
    offsets, data = _string_buffers(strs)
    lengths = np.diff(offsets)
    width = int(lengths.max())
    words = max(1, (width + 7) // 8)
    padded = np.zeros((n, words * 8), np.uint8)
    uniform = bool((lengths == width).all())
    if uniform:
        padded[:, :width] = data[offsets[0] : offsets[0] + n * width].reshape(n, width)
    else:
        row = np.repeat(np.arange(n, dtype=np.int64), lengths)
        column = np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(offsets[:-1] - offsets[0], lengths)
        padded[row, column] = data[offsets[0] : offsets[-1]]
    blocks = padded.view("<u8")
    size = lengths.astype(np.uint64)
    hi = size ^ _SEED_HI
    lo = size * _K2 + _SEED_LO
    for w in range(words):
        # Only strings that reach this word take part: a hash must not depend on its neighbours' lengths.
        rows: Any = slice(None) if uniform or w == 0 else np.flatnonzero(lengths > 8 * w)
        block = blocks[rows, w]
        h = (hi[rows] ^ _finalize(block * _K1)) * _K2
        hi[rows] = h ^ (h >> _S33)
        h = (lo[rows] + _finalize(block ^ _SEED_LO)) * _K1
        lo[rows] = h ^ (h >> _S29)
    return _finalize(hi), _finalize(lo) | _ONE


class IdSpan(NamedTuple):
    """Bounds of a set of ids: integers in ``low``..``high`` (none when low > high), and whether strings."""

    low: int
    high: int
    strings: bool

    def meets(self, other: IdSpan) -> bool:
        """Whether an id may be in both sets."""
        return (self.strings and other.strings) or (self.low <= other.high and other.low <= self.high)

    def joined(self, other: IdSpan) -> IdSpan:
        """Bounds of both sets together."""
        return IdSpan(min(self.low, other.low), max(self.high, other.high), self.strings or other.strings)


NO_IDS = IdSpan(_INT_MAX, -1, False)


class IdColumn:
    """A column of ids; immutable.

    Exactly one of three shapes: only ``ints`` (u64, n), only ``strs`` (Arrow string, n), or both for a
    mixed column, where ``strs`` is null at the rows whose id is in ``ints``.
    """

    __slots__ = ("_hashes", "_span", "ints", "strs")

    def __init__(self, ints: U64Array | None, strs: pa.Array | None) -> None:
        self.ints = ints
        self.strs = strs
        self._hashes: tuple[U64Array, U64Array] | None = None
        self._span: IdSpan | None = None

    def __len__(self) -> int:
        if self.ints is not None:
            return len(self.ints)
        return 0 if self.strs is None else len(self.strs)

    def __repr__(self) -> str:
        kind = "int" if self.strs is None else ("str" if self.ints is None else "mixed")
        return f"IdColumn({len(self)} {kind} ids)"

    @staticmethod
    def empty() -> IdColumn:
        """A column of no ids."""
        return IdColumn(np.empty(0, np.uint64), None)

    @staticmethod
    def of(values: Any) -> IdColumn:
        """Read ids from a NumPy or Arrow array, a pandas or polars series, or a sequence.

        Raises:
            InvalidArgumentError: a type that is no id, an integer outside 0..2**64-1, a string of 0 or
                more than 512 bytes, or a null.
        """
        if isinstance(values, IdColumn):
            return values
        if isinstance(values, (int, str, uuid.UUID)):
            values = [values]
        if isinstance(values, np.ndarray):
            return _from_numpy(values)
        if isinstance(values, (pa.Array, pa.ChunkedArray)):
            return _from_arrow(values)
        if hasattr(values, "to_arrow"):
            return _from_arrow(values.to_arrow())
        if hasattr(values, "to_numpy"):
            return _from_numpy(values.to_numpy())
        if isinstance(values, Iterable):
            return _from_sequence(list(values))
        raise InvalidArgumentError(f"got {type(values).__name__}", field="ids", bound="a sequence of int, str or UUID")

    @staticmethod
    def concat(columns: Sequence[IdColumn]) -> IdColumn:
        """The columns one after the other."""
        parts = [c for c in columns if len(c)]
        if not parts:
            return IdColumn.empty()
        if len(parts) == 1:
            return parts[0]
        if all(c.strs is None for c in parts):
            return IdColumn(np.concatenate([c.ints for c in parts if c.ints is not None]), None)
        if all(c.ints is None for c in parts):
            return IdColumn(None, pa.concat_arrays([c.strs for c in parts]))
        ints = np.concatenate([c.ints if c.ints is not None else np.zeros(len(c), np.uint64) for c in parts])
        strs = pa.concat_arrays([c.strs if c.strs is not None else pa.nulls(len(c), pa.string()) for c in parts])
        return IdColumn(ints, strs)

    def hashes(self) -> tuple[U64Array, U64Array]:
        """The 128-bit hashes as two u64 arrays (hi, lo); computed once."""
        if self._hashes is None:
            self._hashes = self._hash()
        return self._hashes

    def _hash(self) -> tuple[U64Array, U64Array]:
        if self.strs is None:
            return _hash_ints(self.ints if self.ints is not None else np.empty(0, np.uint64))
        if self.ints is None:
            return _hash_strings(self.strs)
        hi, lo = _hash_ints(self.ints)
        rows = np.flatnonzero(self.is_str())
        s_hi, s_lo = _hash_strings(self.strs.take(arrow_of_numpy(rows)))
        hi[rows], lo[rows] = s_hi, s_lo
        return hi, lo

    def is_str(self) -> npt.NDArray[np.bool_]:
        """Which rows hold a string."""
        if self.strs is None:
            return np.zeros(len(self), np.bool_)
        if self.ints is None:
            return np.ones(len(self), np.bool_)
        return np.asarray(numpy_of_arrow(self.strs.is_valid()), np.bool_)

    def span(self) -> IdSpan:
        """Bounds of the ids, perhaps a little wide for a mixed column; computed once."""
        if self._span is None:
            low, high = NO_IDS.low, NO_IDS.high
            if self.ints is not None and len(self.ints):
                low, high = int(self.ints.min()), int(self.ints.max())
            self._span = IdSpan(low, high, self.strs is not None and len(self.strs) > 0)
        return self._span

    def int_max(self) -> int:
        """The greatest integer id, or -1 when there is none."""
        if self.ints is None or not len(self.ints):
            return -1
        if self.strs is None:
            return int(self.ints.max())
        ints = self.ints[~self.is_str()]
        return int(ints.max()) if len(ints) else -1

    def take(self, rows: npt.NDArray[Any]) -> IdColumn:
        """The ids at ``rows``."""
        ints = self.ints[rows] if self.ints is not None else None
        strs = self.strs.take(arrow_of_numpy(rows)) if self.strs is not None else None
        return IdColumn(ints, strs)

    def slice(self, start: int, stop: int) -> IdColumn:
        """The ids of rows start..stop-1, without a copy."""
        ints = self.ints[start:stop] if self.ints is not None else None
        strs = self.strs.slice(start, max(stop - start, 0)) if self.strs is not None else None
        return IdColumn(ints, strs)

    def to_list(self) -> list[PointId]:
        """The ids as Python ints and strings."""
        if self.strs is None:
            out: list[PointId] = self.ints.tolist() if self.ints is not None else []
            return out
        strings: list[str | None] = self.strs.to_pylist()
        if self.ints is None:
            return [s for s in strings if s is not None]
        return [i if s is None else s for i, s in zip(self.ints.tolist(), strings, strict=True)]

    def to_arrow(self) -> list[tuple[str, pa.Array]]:
        """The column as named Arrow arrays (``id_int`` and/or ``id_str``)."""
        out = []
        if self.ints is not None:
            out.append(("id_int", arrow_of_numpy(self.ints)))
        if self.strs is not None:
            out.append(("id_str", self.strs))
        return out

    @staticmethod
    def from_arrow(table: pa.Table | pa.RecordBatch) -> IdColumn:
        """Read what :meth:`to_arrow` wrote as columns of ``table``; zero-copy when contiguous."""
        names = table.schema.names
        ints = numpy_of_arrow(_contiguous(table.column("id_int"))) if "id_int" in names else None
        strs = _contiguous(table.column("id_str")) if "id_str" in names else None
        return IdColumn(ints, strs)


def _contiguous(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _from_numpy(values: npt.NDArray[Any]) -> IdColumn:
    if values.ndim != 1:
        raise InvalidArgumentError(f"got {values.ndim} dimensions", field="ids", bound="a one-dimensional array")
    if values.dtype.kind == "u":
        return IdColumn(values.astype(np.uint64), None)
    if values.dtype.kind == "i":
        if len(values) and int(values.min()) < 0:
            raise InvalidArgumentError(f"got {int(values.min())}", field="ids", bound=f"integers in 0..{_INT_MAX}")
        return IdColumn(values.astype(np.uint64), None)
    if values.dtype.kind == "U":
        return _checked_strings(arrow_of_texts(values.tolist()))
    if values.dtype.kind == "O":
        return _from_sequence(values.tolist())
    raise InvalidArgumentError(f"got dtype {values.dtype}", field="ids", bound="integers or strings")


def _from_arrow(values: pa.Array | pa.ChunkedArray) -> IdColumn:
    array = _contiguous(values)
    if array.null_count:
        raise InvalidArgumentError(f"{array.null_count} ids are null", field="ids", bound="no nulls")
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_integer(array.type):
        return _from_numpy(numpy_of_arrow(array))
    if pa.types.is_large_string(array.type) or pa.types.is_string(array.type) or pa.types.is_string_view(array.type):
        return _checked_strings(array.cast(pa.string()))
    raise InvalidArgumentError(f"got Arrow type {array.type}", field="ids", bound="integers or strings")


def _from_sequence(values: list[Any]) -> IdColumn:
    kinds = {type(v) for v in values}
    if kinds <= {int}:
        try:
            return IdColumn(np.array(values, np.uint64), None)
        except OverflowError:
            bad = next(v for v in values if not 0 <= v <= _INT_MAX)
            raise InvalidArgumentError(f"got {bad}", field="ids", bound=f"integers in 0..{_INT_MAX}") from None
    if uuid.UUID in kinds:
        values = [str(v) if isinstance(v, uuid.UUID) else v for v in values]
        kinds = {type(v) for v in values}
    if kinds == {str}:
        return _checked_strings(_string_array(values))
    return _mixed(values)


def _string_array(values: list[Any]) -> pa.Array:
    try:
        return arrow_of_texts(values)
    except (UnicodeEncodeError, pa.ArrowInvalid) as error:
        raise InvalidArgumentError(f"not UTF-8: {error}", field="ids", bound="valid UTF-8 strings") from None


def _mixed(values: list[Any]) -> IdColumn:
    ints = np.zeros(len(values), np.uint64)
    strings: list[str | None] = [None] * len(values)
    for row, value in enumerate(values):
        if isinstance(value, str):
            strings[row] = str(value)
        elif isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
            if not 0 <= int(value) <= _INT_MAX:
                raise InvalidArgumentError(f"got {value}", field="ids", bound=f"integers in 0..{_INT_MAX}")
            ints[row] = int(value)
        else:
            raise InvalidArgumentError(
                f"row {row} has type {type(value).__name__}", field="ids", bound="int, str or uuid.UUID"
            )
    if all(s is None for s in strings):
        return IdColumn(ints, None)
    array = _string_array(strings)
    _check_lengths(array.drop_null())
    return IdColumn(None, array) if not array.null_count else IdColumn(ints, array)


def _checked_strings(array: pa.Array) -> IdColumn:
    _check_lengths(array)
    return IdColumn(None, array)


def _check_lengths(array: pa.Array) -> None:
    if not len(array):
        return
    extent = pc.min_max(pc.binary_length(array)).as_py()
    if extent["max"] > ID_BYTES_MAX:
        raise InvalidArgumentError(
            f"an id has {extent['max']} bytes", field="ids", bound=f"at most {ID_BYTES_MAX} bytes"
        )
    if extent["min"] < 1:
        raise InvalidArgumentError("an id is empty", field="ids", bound="at least 1 byte")


__all__ = ["NO_IDS", "IdColumn", "IdSpan", "PointId", "U64Array"]

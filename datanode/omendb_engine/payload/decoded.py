"""A payload column in memory, and the quick way to a few of its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.payload import Kind, values_of

Rows = npt.NDArray[np.int64]
_NUMBERS: dict[Kind, type[np.generic]] = {"i": np.int64, "f": np.float64}


class DecodedColumn:
    """An Arrow array of one kind with views of its buffers: Arrow makes an object for each value that is asked for.

    Numbers and text without nulls have views; other values are read one by one. Immutable.
    """

    __slots__ = ("_kind", "_numbers", "_offsets", "_text", "array")

    def __init__(self, array: pa.Array, kind: Kind) -> None:
        self.array = array
        self._kind: Kind = kind
        self._numbers: npt.NDArray[Any] | None = None
        self._offsets: npt.NDArray[np.int32] | None = None
        self._text: memoryview | None = None
        if array.null_count or not len(array):
            return
        start, stop = array.offset, array.offset + len(array)
        buffers = array.buffers()
        if kind in _NUMBERS:
            self._numbers = np.frombuffer(buffers[1], _NUMBERS[kind])[start:stop]
        elif kind == "s":
            self._offsets = np.frombuffer(buffers[1], np.int32)[start : stop + 1]
            # All values may be empty: then there may be no text.
            self._text = memoryview(b"" if buffers[2] is None else buffers[2])

    def few(self, rows: Rows) -> list[Any]:
        """The Python values at a few rows, as ``values_of`` gives them; None where there is none."""
        if self._numbers is not None:
            values: list[Any] = self._numbers[rows].tolist()
            return values
        if self._offsets is None or self._text is None:
            return values_of(self.array, self._kind, rows)
        text = self._text
        ends = zip(self._offsets[rows].tolist(), self._offsets[rows + 1].tolist(), strict=True)
        return [str(text[start:end], "utf-8") for start, end in ends]


__all__ = ["DecodedColumn"]

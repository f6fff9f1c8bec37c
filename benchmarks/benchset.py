"""A prepared data set on disk, read in batches through plain file reads.

Plain reads and no memory map: the pages of a map would count as memory of the database under test. NumPy
and the standard library only, as this also runs inside the peers' virtualenvs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adapters.adapter import Batch, Space

# `bucket` is uniform over 0..999, so `bucket < b` keeps b/1000 of the rows.
SELECTIVITIES = {0.5: 500, 0.1: 100, 0.01: 10, 0.001: 1}


class ArrayFile:
    """The rows of a two-dimensional .npy file, read without mapping it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, self.dtype = read(file)
            self._start = file.tell()
        if fortran or len(shape) != 2:
            raise ValueError(f"{path.name} is not a C-ordered matrix")
        self.n, self.dimension = shape
        self._path = path

    def rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read rows start..stop (cut at the end) as they are stored."""
        stop = min(stop, self.n)
        count = max(stop - start, 0) * self.dimension
        offset = self._start + start * self.dimension * self.dtype.itemsize
        flat = np.fromfile(self._path, dtype=self.dtype, count=count, offset=offset)
        return flat.reshape(-1, self.dimension)


@dataclass(frozen=True, slots=True)
class BenchSet:
    """Vectors, two payload columns, queries and exact truths; the ids are the row numbers."""

    folder: Path
    name: str
    n: int
    space: Space

    @staticmethod
    def open(folder: Path) -> BenchSet:
        """Open a folder that `benchmarks.sets.prepare` made."""
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return BenchSet(folder, meta["name"], meta["n"], Space(meta["dimension"], meta["metric"]))

    def queries(self, count: int | None = None) -> npt.NDArray[np.float32]:
        """Read the first `count` queries, float32 (count, dimension)."""
        queries: npt.NDArray[np.float32] = np.load(self.folder / "queries.npy")
        return queries[:count]

    def truth(self, below: int | None = None) -> npt.NDArray[np.int32]:
        """Read the exact best rows of every query, among rows with `bucket < below` (None: all rows)."""
        truth: npt.NDArray[np.int32] = np.load(self.folder / truth_name(below))
        return truth

    def batches(self, size: int, limit: int | None = None) -> Iterator[Batch]:
        """Read the first `limit` rows in batches of `size`; the vectors of each are float32, C-contiguous."""
        n = self.n if limit is None else min(limit, self.n)
        vectors = ArrayFile(self.folder / "vectors.npy")
        buckets: npt.NDArray[np.int64] = np.load(self.folder / "bucket.npy")
        codes = np.load(self.folder / "label.npy")
        labels = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))["labels"]
        for start in range(0, n, size):
            stop = min(start + size, n)
            matrix = np.ascontiguousarray(vectors.rows(start, stop), dtype=np.float32)
            names = [labels[code] for code in codes[start:stop].tolist()]
            yield Batch(start, matrix, np.ascontiguousarray(buckets[start:stop]), names)


def truth_name(below: int | None) -> str:
    """Name the truth file of the filter `bucket < below`, or of no filter."""
    return "gt.npy" if below is None else f"gt_below_{below}.npy"

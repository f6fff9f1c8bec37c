"""Cutting big calls into messages of bounded size, and sending several of them at a time."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.ids import IdColumn
from omendb_common.plain_arrow import arrow_of_numpy

T = TypeVar("T")
R = TypeVar("R")

PART_BYTES = 4 << 20
"""About the size of one message: large enough to cost little per row, small enough to send several at a time."""
PARTS_AT_A_TIME = 4
_ID_BYTES = 24


class Rows(NamedTuple):
    """Some points of a write: the columns of a part."""

    ids: IdColumn | None
    vectors: Mapping[str, npt.NDArray[Any]]
    payload: pa.RecordBatch | None
    n: int


def spans(n: int, row_bytes: float, part_bytes: int) -> list[tuple[int, int]]:
    """``n`` rows of ``row_bytes`` cut into ``[start, stop)`` of at most ``part_bytes``, at least a row each."""
    rows = max(1, int(part_bytes // max(row_bytes, 1.0)))
    return [(start, min(n, start + rows)) for start in range(0, n, rows)]


def row_bytes(vectors: Mapping[str, npt.NDArray[Any]], payload: pa.RecordBatch | None, n: int) -> float:
    """About how many bytes one row of a write takes in a message."""
    total = sum(matrix.nbytes for matrix in vectors.values()) + (0 if payload is None else payload.nbytes)
    return total / n + _ID_BYTES


def cut(rows: Rows, start: int, stop: int) -> Rows:
    """The rows ``start..stop-1``, without a copy."""
    return Rows(
        None if rows.ids is None else rows.ids.slice(start, stop),
        {name: matrix[start:stop] for name, matrix in rows.vectors.items()},
        None if rows.payload is None else rows.payload.slice(start, stop - start),
        stop - start,
    )


def last_of_each(rows: Rows) -> Rows:
    """The rows without those whose id comes again later: in parts, the last one could not be told to win."""
    if rows.ids is None:
        return rows
    high, low = rows.ids.hashes()
    order = np.lexsort((np.arange(rows.n), low, high))
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    if not same.any():
        return rows
    kept = np.sort(order[np.append(~same, True)])
    payload = None if rows.payload is None else rows.payload.take(arrow_of_numpy(kept))
    return Rows(rows.ids.take(kept), {name: m[kept] for name, m in rows.vectors.items()}, payload, len(kept))


class Sender:
    """Runs the parts of a call on a few threads, made when they are first needed. Thread-safe."""

    def __init__(self, at_a_time: int = PARTS_AT_A_TIME) -> None:
        self._at_a_time = at_a_time
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def each(self, send: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
        """``send`` of every part, in their order; at the first error, what has not begun is left out."""
        if len(parts) == 1:
            yield send(parts[0])
            return
        pool = self._threads()
        # A context of its own for each: they run at the same time.
        futures = [pool.submit(contextvars.copy_context().run, send, part) for part in parts]
        _, pending = wait(futures, return_when=FIRST_EXCEPTION)
        for future in pending:
            future.cancel()
        wait(pending)
        failed = next((f for f in futures if not f.cancelled() and f.exception() is not None), None)
        if failed is not None:
            failed.result()
        yield from (future.result() for future in futures)

    def close(self) -> None:
        """Let the threads go."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._at_a_time, thread_name_prefix="omendb-client")
            return self._pool


__all__ = ["PARTS_AT_A_TIME", "PART_BYTES", "Rows", "Sender", "cut", "last_of_each", "row_bytes", "spans"]

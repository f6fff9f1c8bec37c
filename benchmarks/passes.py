"""One pass of writes, one point of a search curve: timed alike for libraries and for servers.

Standard library and NumPy only, as this runs inside the peers' own virtualenvs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks import measure
from benchmarks.adapters.adapter import Batch

K = 10
# The recall that a search must reach before its latency counts.
RECALL_WANTED = 0.95
WARM_UP_QUERIES = 20
# One point of a curve takes about this long at most, all repeats together, but at least so many queries.
POINT_LIMIT_S = 30.0
QUERIES_MIN = 50

Vectors = np.ndarray[Any, Any]


class Writer(Protocol):
    """What can be written to."""

    def prepare(self, batch: Batch) -> Any:
        """Turn a batch into what the write call takes."""
        ...

    def insert(self, prepared: Any) -> None:
        """Write one batch; on return it is acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A pass of writes: the rows, the last batch, and the seconds of preparing and of each call."""

    rows: int
    last: Batch
    prepared_s: float
    insert_s: list[float]

    def to_json(self, rows_wanted: int) -> dict[str, Any]:
        """Give the rates; ``whole`` says whether all that was wanted was written before the time was up."""
        total = sum(self.insert_s)
        return {
            "rows": self.rows,
            "whole": self.rows == rows_wanted,
            "batches": len(self.insert_s),
            "call_s": total,
            "prepare_s": self.prepared_s,
            "rows_per_s": self.rows / (total + self.prepared_s),
            "rows_per_s_call": self.rows / total,
            "batch_ms": measure.Spread.of(self.insert_s).to_json(),
        }


def write_all(writer: Writer, batches: Iterable[Batch], budget_s: float) -> Written:
    """Write batch after batch until they end or ``budget_s`` is used up."""
    prepared_s, insert_s, rows, last = 0.0, [], 0, None
    for batch in batches:
        start = time.perf_counter()
        prepared = writer.prepare(batch)
        ready = time.perf_counter()
        writer.insert(prepared)
        insert_s.append(time.perf_counter() - ready)
        prepared_s += ready - start
        rows, last = rows + batch.n, batch
        if prepared_s + sum(insert_s) > budget_s:
            break
    if last is None:
        raise ValueError("the set is empty")
    return Written(rows, last, prepared_s, insert_s)


def point(
    search: Callable[[Vectors], Any],
    rows: Callable[[Any], list[int]],
    queries: Vectors,
    truth: Vectors,
    repeats: int,
) -> dict[str, Any]:
    """Search one by one: recall, and the median over the repeats of queries/s, p50 and p99."""
    for query in queries[:WARM_UP_QUERIES]:
        search(query)
    spreads, found = [], []
    limit_s = POINT_LIMIT_S / repeats
    for repeat in range(repeats):
        times, answers, spent_s = [], [], 0.0
        for query in queries:
            start = time.perf_counter()
            answer = search(query)
            times.append(time.perf_counter() - start)
            answers.append(answer)
            spent_s += times[-1]
            # A slow database answers fewer queries, so that a large set does not take hours.
            if spent_s > limit_s and len(times) >= QUERIES_MIN:
                break
        if repeat == 0:
            found = [rows(answer) for answer in answers]
        spreads.append(measure.Spread.of(times))
    return {
        "queries": len(found),
        "recall": measure.recall(found, truth[: len(found)], K),
        "qps": 1000 / measure.median([spread.mean_ms for spread in spreads]),
        "p50_ms": measure.median([spread.p50_ms for spread in spreads]),
        "p99_ms": measure.median([spread.p99_ms for spread in spreads]),
    }

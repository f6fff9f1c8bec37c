"""What a replica remembers of versions that others gave it, and what it says where nothing newer proves anything."""

from __future__ import annotations

import numpy as np
import pytest

from omendb_common.clock import Clock
from omendb_common.ids import IdColumn
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import RECALL_S
from omendb_datanode.recall import ROWS_MAX, Recall
from omendb_engine.stamped import StampedResult

STAMP, NEWER = 7 << 22, 9 << 22


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def mono_s(self) -> float:
        return self.now_s


def batch(ids: range, stamp: int | None = None) -> WriteBatch:
    stamps = None if stamp is None else np.full(len(ids), stamp, np.uint64)
    return WriteBatch(Op.DELETE, IdColumn.of(list(ids)), stamps=stamps)


def result(superseded: list[int] | None = None, *, partial: bool = False) -> StampedResult:
    rows = np.array(superseded or [], np.int64)
    return StampedResult(1, "fsync", superseded=rows, newer=np.full(len(rows), NEWER, np.uint64), partial=partial)


def told(recall: Recall, ids: range, stamp: int = STAMP) -> tuple[list[int], list[int]]:
    answer = recall.told(batch(ids), stamp, result(list(range(len(ids)))))
    assert len(answer.superseded) == len(answer.newer)
    return answer.superseded.tolist(), answer.barred.tolist()


def test_what_was_given_counts_as_written_and_nothing_else() -> None:
    recall = Recall(Hand(), new=True)
    recall.given(batch(range(10, 20), STAMP), result([0, 1]))
    assert told(recall, range(8, 14)) == ([0, 1, 2, 3], [])
    assert told(recall, range(8, 14), STAMP + 1) == ([0, 1, 2, 3, 4, 5], [])


def test_what_was_given_in_part_proves_nothing_either_way() -> None:
    recall = Recall(Hand(), new=True)
    recall.given(batch(range(3), STAMP), result([1], partial=True))
    assert told(recall, range(4)) == ([1, 3], [1])


@pytest.mark.parametrize("how", ["opened", "lost"])
def test_where_nobody_remembers_nothing_newer_proves_anything(how: str) -> None:
    clock = Hand()
    recall = Recall(clock, new=how == "lost")
    if how == "lost":
        recall.lost()
    clock.now_s += RECALL_S - 0.1
    assert told(recall, range(2)) == ([0, 1], [0, 1])
    clock.now_s += 0.2
    assert told(recall, range(2)) == ([0, 1], [])


def test_what_is_too_old_or_too_much_is_forgotten_and_that_is_known() -> None:
    clock = Hand()
    recall = Recall(clock, new=True)
    recall.given(batch(range(5), STAMP), result())
    clock.now_s += RECALL_S + 1
    assert told(recall, range(2)) == ([0, 1], [])
    recall.given(batch(range(5), STAMP), result())
    clock.now_s += 1
    recall.given(batch(range(5, 5 + ROWS_MAX), STAMP), result())
    assert told(recall, range(4, 7)) == ([0], [0])

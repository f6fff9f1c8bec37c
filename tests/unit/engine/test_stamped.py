"""Writes with stamps from outside: deletions that outlive seals and merges, floors that outlive the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omendb_common.clock import SystemClock
from omendb_common.errors import AlreadyExistsError, InvalidArgumentError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.shard_calls import State
from omendb_engine.payload.hashes import payload_hashes, vector_hashes
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from omendb_engine.segment.layout import TOMBSTONES
from omendb_engine.stamped import StampedResult, StampedWrite
from tests.unit.engine.engine_cases import (
    UnsyncedDisk,
    check_invariants,
    ids_of,
    put,
    schema_of,
    settings_of,
    vectors_of,
)

SCHEMA = schema_of(VectorField(4))


def opened(path: Path, *, keep: bool = True, schema: CollectionSchema = SCHEMA, rows: int = 7) -> Replica:
    """The replica below ``path``, made when there is none."""
    folder, settings = str(path / "replica"), settings_of(rows=rows)
    if not (path / "replica").exists():
        Replica.create(UnsyncedDisk(), folder, schema, SystemClock())
    return Replica.open(
        UnsyncedDisk(), folder, schema.uuid, Resources(settings), settings, SystemClock(), keep_tombstones=keep
    )


def upsert(ids: Any, seed: int = 0, stamps: Any = None) -> WriteBatch:
    """An upsert of random vectors."""
    own = None if stamps is None else np.array(stamps, np.uint64)
    return WriteBatch(Op.UPSERT, IdColumn.of(ids), {"": vectors_of(len(ids), seed=seed)}, None, own)


def delete(ids: Any) -> WriteBatch:
    """A deletion."""
    return WriteBatch(Op.DELETE, IdColumn.of(ids))


def known(replica: Replica, *ids: Any) -> list[tuple[int, int]]:
    """State and stamp of each id."""
    versions = replica.versions(IdColumn.of(list(ids)))
    return list(zip(versions.states.tolist(), versions.stamps.tolist(), strict=True))


def tombstone_files(path: Path) -> int:
    """How many segments remember deletions."""
    return len(list((path / "replica").glob(f"segments/*/{TOMBSTONES}")))


def test_a_deletion_is_known_through_seal_merge_and_reopening(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    replica.write_at(upsert(["a", 1, 2]), 10)
    replica.write_at(delete(["a", 5]), 20)
    expected = [(State.DELETED, 20), (State.LIVE, 10), (State.DELETED, 20), (State.ABSENT, 0)]
    for step in ("as written", "flush", "more", "compact", "reopen", "kill"):
        if step == "flush":
            replica.flush()
            assert tombstone_files(tmp_path) == 1
        elif step == "more":
            for n in range(4):
                replica.write_at(upsert([100 + n]), 30 + n)
                replica.write_at(delete([200 + n]), 40 + n)
                replica.flush()
        elif step == "compact":
            replica.compact()
            assert len(replica.maintenance.manifest.segments) == 1
        elif step == "reopen":
            replica.close()
            replica = opened(tmp_path)
        elif step == "kill":
            replica = opened(tmp_path)  # without a close
        assert known(replica, "a", 1, 5, 6) == expected, step
        late = replica.write_at(upsert(["a", 5]), 15)
        assert late.superseded.tolist() == [0, 1] and late.newer.tolist() == [20, 20], step
        check_invariants(replica)
    assert known(replica, 203) == [(State.DELETED, 43)]
    replica.close()


def test_a_segment_of_deletions_alone(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    replica.write_at(delete([1, 2, 3]), 10)
    replica.flush()
    assert tombstone_files(tmp_path) == 1 and replica.count() == 0
    assert len(replica.search(vectors_of(1), 3).picked(0)) == 0 and ids_of(replica) == []
    replica.write_at(delete([4]), 11)
    replica.compact()
    replica.close()
    replica = opened(tmp_path)
    assert known(replica, 1, 4) == [(State.DELETED, 10), (State.DELETED, 11)]
    replica.write_at(upsert([1]), 12)
    assert known(replica, 1) == [(State.LIVE, 12)] and ids_of(replica) == [1]
    replica.close()


def test_the_floor_lets_deletions_go(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    replica.write_at(delete([1]), 10)
    replica.write_at(delete([2]), 20)
    replica.flush()
    replica.raise_floors(gc_floor=15, fence_epoch=3)
    replica.raise_floors(gc_floor=5, fence_epoch=2)
    assert (replica.maintenance.gc_floor, replica.maintenance.fence_epoch) == (15, 3), "floors never go down"
    replica.write_at(upsert([9]), 30)
    replica.compact()
    assert known(replica, 1, 2) == [(State.ABSENT, 0), (State.DELETED, 20)]
    replica.close()
    replica = opened(tmp_path)
    assert (replica.maintenance.gc_floor, replica.maintenance.fence_epoch) == (15, 3)
    assert replica.write_at(upsert([1]), 12).newer.tolist() == [15], "what was forgotten does not come back"
    replica.close()


def test_without_a_need_for_them_deletions_go_with_the_seal(tmp_path: Path) -> None:
    """A database with one writer: the floor rises to what was forgotten."""
    replica = opened(tmp_path, keep=False)
    replica.write_at(upsert([1, 2]), 10)
    replica.write_at(delete([1]), 20)
    replica.flush()
    assert tombstone_files(tmp_path) == 0 and known(replica, 1, 2) == [(State.ABSENT, 0), (State.LIVE, 10)]
    assert replica.write_at(upsert([1]), 15).newer.tolist() == [20]
    replica.close()
    replica = opened(tmp_path, keep=False)
    assert replica.write_at(upsert([1]), 15).newer.tolist() == [20]
    put(replica, [1])
    assert known(replica, 1)[0][0] == State.LIVE, "its own writes are newer than any floor"
    replica.close()


def test_stamps_of_both_kinds_go_on_above_each_other(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    far = (1 << 63) + 5
    replica.write_at(upsert([1]), far)
    put(replica, [1], seed=3)
    state, stamp = known(replica, 1)[0]
    assert state == State.LIVE and stamp > far
    assert replica.write_at(upsert([1]), far + 1).newer.tolist() == [stamp]
    replica.close()


def test_outcomes_of_a_group_are_each_their_own(tmp_path: Path) -> None:
    """Out of order, repeated, refused and late within one call; the end is that of any other order."""
    replica = opened(tmp_path, rows=50)
    writes = [
        StampedWrite(upsert([1, 2], seed=1), 30),
        StampedWrite(upsert([1, 3], seed=2), 20),
        StampedWrite(upsert([4, 4]), 25),
        StampedWrite(delete([2]), 25),
        StampedWrite(upsert([1, 2], seed=1), 30),
        StampedWrite(WriteBatch(Op.UPDATE, IdColumn.of([3, 9]), {}, columns_from_rows([{"a": 1}] * 2)), 40),
        StampedWrite(upsert([3]), 35, create_only=True),
    ]
    outcomes = replica.write_all(writes)
    assert [type(o) for o in outcomes] == [StampedResult] * 2 + [InvalidArgumentError] + [StampedResult] * 3 + [
        AlreadyExistsError
    ]
    assert isinstance(outcomes[5], StampedResult) and outcomes[5].missing.tolist() == [1]
    assert known(replica, 1, 2, 3, 4) == [(State.LIVE, 30), (State.LIVE, 30), (State.LIVE, 40), (State.ABSENT, 0)]
    check_invariants(replica)
    replica.close()


def test_nothing_is_written_where_a_stamp_is_missing(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    for write in (
        StampedWrite(upsert([1]), 0),
        StampedWrite(upsert([1], stamps=[5]), 7),
        StampedWrite(upsert([1, 2], stamps=[5]), 0),
        StampedWrite(upsert([1], stamps=[0]), 0),
        StampedWrite(upsert([1]), 1 << 64),
    ):
        assert [type(o) for o in replica.write_all([write])] == [InvalidArgumentError]
    assert replica.snapshot().lsn == 0
    replica.close()


def test_an_answer_older_than_the_log_end_waits_for_nothing(tmp_path: Path) -> None:
    """A repeated write answers with the position that everything was applied up to, and logs nothing."""
    replica = opened(tmp_path)
    first = replica.write_at(upsert([1]), 10)
    replica.write_at(upsert([2]), 11)
    again = replica.write_at(upsert([1]), 10)
    assert (first.lsn, again.lsn, replica.snapshot().lsn) == (1, 2, 2)
    replica.close()


# -- hashes of content


def test_hashes_of_payloads_see_every_change_and_no_layout() -> None:
    rows: list[dict[str, Any]] = [
        {},
        {"a": 1},
        {"a": 1.0},
        {"a": "1"},
        {"a": True},
        {"b": 1},
        {"a": [1]},
        {"a": [1, 2]},
        {"a": [2, 1]},
        {"a": []},
        {"a": ["x", "y"]},
        {"a": {"b": 1}},
        {"a": "x" * 5000},
        {"a": "x" * 4999 + "y"},
        {"a": 1, "b": 2},
        {"a": 2, "b": 1},
        {"a": ""},
        {"a": 0},
    ]
    together = payload_hashes(columns_from_rows(rows), len(rows))
    assert len(set(together.tolist())) == len(rows)
    for n, row in enumerate(rows):
        alone = payload_hashes(columns_from_rows([row]), 1)
        assert alone[0] == together[n], row
    batch = columns_from_rows(rows)
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = batch.select(batch.schema.names[::-1]).take(pa.array(order))
    assert payload_hashes(shuffled, len(rows)).tolist() == together[order].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_hashes_of_vectors(dtype: str) -> None:
    matrix = (np.random.default_rng(2).standard_normal((50, 5)) * 20).astype(dtype)
    hashes = vector_hashes(matrix)
    assert len(set(hashes.tolist())) == 50 and vector_hashes(matrix[::-1]).tolist() == hashes[::-1].tolist()
    changed = matrix.copy()
    changed[:, 4] += 1
    swapped = matrix[:, [1, 0, 2, 3, 4]]
    assert (vector_hashes(changed) != hashes).all() and (vector_hashes(swapped) != hashes).sum() >= 45

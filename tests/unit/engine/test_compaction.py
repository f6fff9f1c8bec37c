"""Compaction: a policy that ends, merges that lose nothing, and no work for deletions that are not in a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.disk import RealDisk
from omendb_common.schema import VectorField
from omendb_engine.check import check_folder
from omendb_engine.compaction import CompactionPolicy, SegmentSize
from omendb_engine.maintenance import Maintenance
from omendb_engine.parts import SegmentPart
from tests.unit.engine.engine_cases import (
    NAME,
    as_ids,
    check_invariants,
    open_folder,
    open_replica,
    put,
    rows_of,
    settings_of,
    state_of,
    vectors_of,
    with_memory,
)


def sizes(*rows: int, dead: int = 0) -> list[SegmentSize]:
    """Segments of some row counts, oldest first."""
    return [SegmentSize(i, n, dead, False) for i, n in enumerate(rows, start=1)]


@pytest.mark.parametrize(
    ("segments", "idle", "expected"),
    [
        ([], True, ()),
        (sizes(100), True, ()),
        (sizes(100, 100, 100), False, ()),  # below the fan-in, and not idle
        (sizes(100, 100, 100), True, (1, 2, 3)),
        (sizes(100, 100, 100, 100), False, (1, 2, 3, 4)),
        (sizes(100, 1000, 100, 100, 100), False, (1, 3, 4, 5)),  # one tier at a time
        (sizes(10_000, 100, 100), True, (2, 3)),  # a tail that is not worth the rewriting of the big one
        (sizes(10_000, 1_000), True, (1, 2)),
        (sizes(10_000, 999), True, ()),
        (sizes(60_000, 60_000), True, ()),  # together above the largest segment
        ([SegmentSize(1, 100, 19, False), *sizes()], False, ()),
        ([SegmentSize(1, 100, 20, False)], False, (1,)),
        ([SegmentSize(1, 100, 100, False)], False, (1,)),
        ([SegmentSize(1, 0, 0, False)], True, ()),
    ],
)
def test_what_is_merged(segments: list[SegmentSize], idle: bool, expected: tuple[int, ...]) -> None:
    assert CompactionPolicy(rows_max=100_000, fanin=4, busy_segments=3).choose(segments, idle=idle) == expected


def test_a_merge_is_bounded_in_payload_too() -> None:
    """A column of text above 2 GiB cannot be written: a merge that makes one would be tried for ever."""
    policy = CompactionPolicy(rows_max=100_000, payload_max=1000, fanin=4)

    def heavy(*sizes: int) -> list[SegmentSize]:
        return [SegmentSize(i, 100, 0, False, size) for i, size in enumerate(sizes, start=1)]

    assert policy.choose(heavy(250, 250, 250, 250), idle=True) == (1, 2, 3, 4)
    assert policy.choose(heavy(250, 250, 250, 251), idle=True) == (1, 2, 3)
    assert policy.choose(heavy(10, 10, 10, 1000, 10), idle=True) == (1, 2, 3, 5)
    assert policy.choose(heavy(600, 600), idle=True) == ()
    assert policy.choose([SegmentSize(1, 100, 50, False, 5000)], idle=True) == (1,), "cleaning makes it smaller"
    half_dead = [SegmentSize(i, 100, 10, False, 270) for i in range(1, 5)]
    assert policy.choose(half_dead, idle=True) == (1, 2, 3, 4), "what is dead is left out"


def test_segments_with_much_text_are_not_merged_beyond_memory(tmp_path: Path) -> None:
    """The limit of 64 MiB leaves a merge an eighth of it; without counting text these would be one segment."""
    folder, replica = open_replica(tmp_path / "db", with_memory(settings_of(rows=100), 64 << 20))
    for start in range(0, 40, 4):
        put(replica, range(start, start + 4), payload=[{"t": "x" * 500_000}] * 4)
        replica.flush()
    peak = 0
    reserve = replica.resources.budget.reserve

    def watched(purpose: str, size: int) -> None:
        nonlocal peak
        peak = max(peak, size if purpose == "compaction" else 0)
        reserve(purpose, size)

    replica.resources.budget.reserve = watched  # type: ignore[method-assign]
    replica.compact()
    sizes = [p.segment.payload_bytes for p in replica.snapshot().parts if isinstance(p, SegmentPart)]
    assert 1 < len(sizes) < 10 and max(sizes) <= 8 << 20 and sum(sizes) >= 20_000_000
    assert 2 * max(sizes) <= peak <= 2 * (8 << 20) + 100_000
    check_invariants(replica)
    folder.close()


def test_a_stream_is_left_the_disk_until_there_are_many_segments() -> None:
    policy = CompactionPolicy(fanin=4, busy_segments=16)
    assert policy.choose(sizes(*[100] * 16), idle=False) == ()
    assert len(policy.choose(sizes(*[100] * 17), idle=False)) == 17
    assert policy.choose([*sizes(*[100] * 15), SegmentSize(99, 100, 60, False)], idle=False) == (99,)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 100), st.integers(0, 20)), max_size=25),
    payload_max=st.sampled_from([30_000, 1 << 40]),
    fanin=st.integers(2, 5),
    idle=st.booleans(),
    appended=st.integers(0, 60),
)
def test_it_comes_to_rest_and_stays_within_its_bounds(
    rows: list[tuple[int, int, int]], payload_max: int, fanin: int, idle: bool, appended: int
) -> None:
    """Every choice is carried out as a merge would; there must be an end to it."""
    policy = CompactionPolicy(rows_max=5000, payload_max=payload_max, fanin=fanin)
    state = [SegmentSize(i, n, n * dead // 100, False, n * each) for i, (n, dead, each) in enumerate(rows, start=1)]
    next_id, live, written = len(state) + 1, sum(s.live for s in state), 0
    for step in range(2000):
        if step < appended:
            state.append(SegmentSize(next_id, 50, 0, False))
            next_id, live = next_id + 1, live + 50
        chosen = policy.choose(state, idle=idle)
        if not chosen and step >= appended:
            break
        merged = [s for s in state if s.segment_id in chosen]
        assert len(merged) == len(chosen) and chosen == tuple(sorted(chosen))
        total = sum(s.live for s in merged)
        payload = sum(s.live_bytes for s in merged)
        assert len(merged) == 1 or (total <= policy.rows_max and payload <= policy.payload_max)
        assert len(merged) != 1 or merged[0].dead, "a segment rewritten for nothing"
        written += total
        state = [s for s in state if s.segment_id not in chosen]
        if total:
            state.append(SegmentSize(next_id, total, 0, False, payload))
            next_id += 1
    else:
        raise AssertionError("it never comes to rest")
    assert sum(s.live for s in state) == live
    if idle and live <= policy.rows_max and sum(s.live_bytes for s in state) <= policy.payload_max:
        assert len(state) <= 2, "an idle collection keeps a tail of small segments"
    assert written <= live * 24 + 1, "rows are rewritten more often than tiers explain"


def test_a_purge_waits_for_the_manifest_and_happens_once(tmp_path: Path) -> None:
    """Deleted rows that only the log knows cannot be left out by a merge: doing it all the same would never end."""
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=50, fanin=4, delay_s=3600.0))
    put(replica, range(50))
    replica.flush()
    maintenance = replica.maintenance
    replica.delete(as_ids(range(25)))
    assert not maintenance.merge_one(idle=False) and not maintenance.merge_one(idle=True)
    assert not maintenance.seal_if_due(), "not while writes go on"
    maintenance.hurry(True)
    assert maintenance.seal_if_due(), "an idle replica writes the deletions down"
    assert maintenance.merge_one(idle=False)
    assert [(s.rows, s.dead) for s in replica.stats().segments] == [(25, 0)]
    assert not maintenance.merge_one(idle=True) and not maintenance.seal_if_due()
    check_invariants(replica)
    folder.close()


def test_a_segment_of_dead_rows_only_goes(tmp_path: Path) -> None:
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=50))
    put(replica, range(40))
    replica.flush()
    replica.delete(as_ids(range(40)))
    replica.compact()
    assert replica.stats().segments == () and replica.count() == 0
    check_invariants(replica)
    folder.close()
    folder, replica = open_replica(tmp_path / "db")
    assert replica.count() == 0 and replica.search(vectors_of(1), 3).counts.tolist() == [0]
    folder.close()


@pytest.mark.parametrize("grown", [False, True])
def test_merging_is_a_fold_and_carries_everything(tmp_path: Path, grown: bool) -> None:
    """Ids, stamps, vectors, payload and field stamps; with a graph that can be grown and without (I3)."""
    settings = settings_of(rows=60, flat=40 if grown else 1000, fanin=2)
    folder, replica = open_replica(
        tmp_path / "db", settings, VectorField(4, "cosine"), VectorField(2, "dot", "int8", "b")
    )
    for start in range(0, 240, 60):
        ids = as_ids([i if i % 2 else f"s{i}" for i in range(start, start + 60)])
        payload = rows_of(*[{"a": i, **({"only": "x"} if i % 3 else {})} for i in range(60)])
        small = np.arange(120).reshape(60, 2).astype(np.int8)
        replica.upsert(ids, {"": vectors_of(60, 4, seed=start), "b": small}, payload, 60)
        replica.flush()
        if grown:
            replica.maintenance.index_one(hurry=True)
    changed = as_ids([i if i % 2 else f"s{i}" for i in range(0, 120, 3)])
    replica.update(changed, {}, rows_of(*[{"a": 5} if i % 2 else {"z": 1} for i in range(40)]), unset=["only"])
    replica.delete(as_ids(["s4", 7, 189]))
    before = state_of(replica)
    field_stamps = sum(len(p.overrides()) for p in replica.snapshot().parts)
    replica.flush()
    while replica.maintenance.merge_one(idle=True):
        check_invariants(replica)
        assert state_of(replica) == before
    segments = replica.stats().segments
    assert len(segments) == 1 and segments[0].index == ("hnsw" if grown else "flat")
    assert sum(len(p.overrides()) for p in replica.snapshot().parts) == field_stamps > 0
    folder.close()
    folder, replica = open_replica(tmp_path / "db", settings)
    assert state_of(replica) == before
    folder.close()


def test_an_error_before_the_manifest_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=20))
    for start in range(0, 60, 20):
        put(replica, range(start, start + 20))
        replica.flush()
    before, names = state_of(replica), {s.segment_id for s in replica.stats().segments}

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(replica.maintenance._manifests, "commit", fails)
        with pytest.raises(OSError, match="no space"):
            replica.maintenance.merge_one(idle=True)
    assert {s.segment_id for s in replica.stats().segments} == names and not replica.failed
    assert not replica.maintenance._busy_segments
    replica.compact()
    assert state_of(replica) == before and len(replica.stats().segments) == 1
    on_disk = [p.name for p in (tmp_path / "db").glob("collections/*/segments/*")]
    assert len(on_disk) <= 1 + 3, "what the failed merge wrote is still there"
    folder.close()


def test_an_interrupt_between_manifest_and_swap_stops_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in flush: the next manifest would name the same rows twice, so there must not be one."""
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=20))
    put(replica, range(10))
    before = state_of(replica)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(replica._store, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replica.flush()
    assert replica.failed and state_of(replica) == before
    folder.close()
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=20))
    assert state_of(replica) == before
    check_invariants(replica)
    folder.close()


def test_a_removal_of_garbage_spares_an_index_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=60, flat=20))
    put(replica, range(50))
    replica.flush()
    real = Maintenance._commit

    def removing(self: Maintenance, *arguments: Any, **options: Any) -> None:
        self._manifests.remove(self._manifests.garbage(keep_segments=self._busy_segments))
        real(self, *arguments, **options)

    monkeypatch.setattr(Maintenance, "_commit", removing)
    assert replica.maintenance.index_one(hurry=True)
    folder.close()
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=60, flat=20))
    assert [s.index for s in replica.stats().segments] == ["hnsw"]
    folder.close()


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("job", ["merge", "seal", "index"])
def test_rows_that_die_while_a_job_runs_stay_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, sealed: bool
) -> None:
    """Deleted, replaced and updated between the reading of the inputs and the swap; also once reopened (I3)."""
    settings = settings_of(rows=40, flat=30, fanin=2)
    folder, replica = open_replica(tmp_path / "db", settings)
    put(replica, range(40), payload=[{"a": i} for i in range(40)])
    if job != "seal":
        replica.flush()
    put(replica, range(40, 70), payload=[{"a": i} for i in range(40, 70)])
    if job == "merge":
        replica.flush()
    maintenance = replica.maintenance
    name = "_build_index" if job == "index" else "_write"
    real = getattr(maintenance, name)
    changed: list[int] = []

    def changing(*arguments: Any, **options: Any) -> Any:
        out = real(*arguments, **options)
        if not changed:
            changed.append(1)
            replica.delete(as_ids([0, 41]))
            put(replica, [1, 42], payload=[{"a": -1}, {"a": -42}])
            replica.update(as_ids([2, 43]), {}, rows_of({"a": -2}, {"a": -43}))
            if sealed and job != "seal":
                replica.flush()
        return out

    monkeypatch.setattr(maintenance, name, changing)
    jobs = {"merge": lambda: maintenance.merge_one(idle=True), "seal": maintenance.seal_one}
    jobs["index"] = lambda: maintenance.index_one(hurry=True)
    if job == "seal" and not maintenance._store.frozen():
        replica.exclusively(maintenance._freeze_active)
    assert jobs[job]() and changed
    check_invariants(replica)
    before = state_of(replica)
    assert len(before) == 68 and not before.keys() & {0, 41}
    assert [before[i][2] for i in (1, 42, 2, 43)] == [f"[('a', {v})]" for v in (-1, -42, -2, -43)]
    folder.close()
    folder, replica = open_replica(tmp_path / "db", settings)
    assert state_of(replica) == before
    check_invariants(replica)
    folder.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("name", ["index.hnsw", "index.json"])
@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_damaged_index_costs_time_only_and_is_built_again(tmp_path: Path, mode: Any, name: str, damage: str) -> None:
    settings = settings_of(rows=100, flat=50)
    folder, replica = open_replica(tmp_path / "db", settings)
    vectors = put(replica, range(100))
    assert replica.wait_until_indexed(30)
    expected = replica.search(vectors[:3], 5, exact=True).picked(2).ids().to_list()
    folder.close()
    file = next((tmp_path / "db").glob(f"collections/*/segments/*/{name}"))
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content if damage == "flip" else content[:-1])
    if damage == "remove":
        file.unlink()
    assert [f.path for f in check_folder(RealDisk(), str(tmp_path / "db"))] == [str(file)]
    folder = open_folder(tmp_path / "db", settings, mode)
    replica = folder.replica(NAME)
    for _ in range(2):
        assert replica.search(vectors[:3], 5).picked(2).ids().to_list() == expected
    assert [s.index for s in replica.stats().segments] == ["flat"]
    if mode == "rw":
        assert replica.maintenance.index_one(hurry=True)
        assert name in str(replica.stats().last_error), "damage must be told"
        assert [s.index for s in replica.stats().segments] == ["hnsw"]
        folder.close()
        folder, replica = open_replica(tmp_path / "db", settings)
        assert [s.index for s in replica.stats().segments] == ["hnsw"]
        assert replica.search(vectors[:3], 5).picked(2).ids().to_list() == expected
    folder.close()

"""The memory budget: refused before it is passed, given back in full, and engines that live within it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.errors import ResourceExhaustedError
from omendb_common.schema import VectorField
from omendb_engine.budget import MemoryBudget
from omendb_engine.recovery import BUFFERS
from tests.unit.engine.engine_cases import (
    NAME,
    as_ids,
    check_invariants,
    open_folder,
    open_replica,
    put,
    schema_of,
    settings_of,
    state_of,
    vectors_of,
    with_memory,
)

MIB = 1 << 20


def test_the_limit_is_passed_by_no_byte() -> None:
    budget = MemoryBudget(100, headroom_percent=30)
    budget.reserve("a", 70)
    assert not budget.pressed, "at the soft mark is not above it"
    budget.reserve("b", 30)
    assert budget.pressed and budget.used_bytes == 100
    with pytest.raises(ResourceExhaustedError) as caught:
        budget.reserve("c", 1)
    assert caught.value.field == "memory_limit_bytes" and caught.value.retry_after and caught.value.retry_after > 0
    assert budget.account() == {"a": 70, "b": 30} and budget.refusals == 1
    budget.release("a", 70)
    assert budget.account() == {"b": 30} and budget.used_bytes == 30
    with pytest.raises(AssertionError):
        budget.release("a", 1)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), max_size=30))
def test_the_account_is_the_sum_of_what_was_granted(steps: list[tuple[str, int]]) -> None:
    budget = MemoryBudget(100)
    held: list[tuple[str, int]] = []
    for purpose, size in steps:
        try:
            budget.reserve(purpose, size)
            held.append((purpose, size))
        except ResourceExhaustedError:
            assert sum(s for _, s in held) + size > 100
        assert budget.used_bytes == sum(s for _, s in held) <= 100
        if len(held) > 3:
            budget.release(*held.pop(0))
    for purpose, size in held:
        budget.release(purpose, size)
    assert budget.used_bytes == 0 and budget.account() == {}


def test_threads_cannot_pass_it_together() -> None:
    budget = MemoryBudget(1000)
    granted: list[int] = []

    def take() -> None:
        for _ in range(200):
            try:
                budget.reserve("x", 7)
                granted.append(7)
            except ResourceExhaustedError:
                pass

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(granted) == budget.used_bytes == 994


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_payload_beyond_the_limit_goes_through(tmp_path: Path, workers: int) -> None:
    """Three times the limit: buffers are sealed early, and a refused batch succeeds when it is sent again."""
    settings = with_memory(settings_of(rows=1000, flat=100_000, workers=workers), 64 * MIB)
    folder, replica = open_replica(tmp_path / "db", settings)
    text = "x" * 100_000
    for number in range(40):
        for _ in range(2_000):
            try:
                put(replica, range(number * 50, number * 50 + 50), payload=[{"t": text}] * 50)
                break
            except ResourceExhaustedError as error:
                assert error.retry_after
                replica.maintenance.wait_for_change(0.05)
        assert replica.resources.budget.used_bytes <= 64 * MIB
    assert replica.count() == 2000
    folder.close()
    assert replica.resources.budget.used_bytes == 0


def test_a_buffer_ends_even_when_there_is_no_room_for_a_second(tmp_path: Path) -> None:
    """The buffer must then end all the same, or every write would be refused for ever."""
    settings = with_memory(settings_of(rows=1000), 64 * MIB)
    folder, replica = open_replica(tmp_path / "db", settings, VectorField(1000))
    put(replica, [0])
    budget = replica.resources.budget
    budget.reserve("others", budget.limit_bytes - budget.used_bytes - 2 * MIB)
    put(replica, [1], payload=[{"k": "x" * 900_000}])
    assert budget.used_bytes <= budget.limit_bytes
    budget.release("others", budget.account()["others"])
    put(replica, [2], payload=[{"k": "x" * 900_000}])
    assert replica.count() == 3
    check_invariants(replica)
    folder.close()


def test_a_batch_that_can_never_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    settings = with_memory(settings_of(rows=10), 64 * MIB)
    folder, replica = open_replica(tmp_path / "db", settings, VectorField(10_000))
    put(replica, [1, 2])
    before, held = state_of(replica), replica.resources.budget.account()
    for _ in range(3):
        with pytest.raises(ResourceExhaustedError):
            put(replica, range(3000), vectors=vectors_of(3000, 10_000))
    assert state_of(replica) == before
    assert replica.resources.budget.account().get(BUFFERS, 0) <= held[BUFFERS] * 2, "a refusal leaks memory"
    assert replica.delete(as_ids([1])).count == 1
    folder.close()


def test_dropped_and_closed_collections_give_everything_back(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "db", settings_of(rows=10))
    kept = folder.create(NAME, schema_of())
    alone = folder.resources.budget.used_bytes
    other = folder.create("other", schema_of())
    put(other, range(35), payload=[{"a": 1}] * 35)
    other.delete(as_ids(range(5)))
    folder.drop("other")
    assert folder.resources.budget.used_bytes == alone
    folder.close()
    assert kept.resources.budget.used_bytes == 0


def test_deletions_alone_end_a_buffer_and_are_counted(tmp_path: Path) -> None:
    """A million deletions must not keep the whole log and a list of tombstones for ever."""
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=20))
    put(replica, range(15))
    replica.flush()
    before = replica.resources.budget.used_bytes
    replica.delete(as_ids(range(1000, 1010)))
    assert replica.resources.budget.used_bytes > before
    for start in range(0, 100, 10):
        replica.delete(as_ids(range(2000 + start, 2010 + start)))
    check_invariants(replica)
    replica.flush()
    assert replica.maintenance.manifest.checkpoint_lsn == replica.stats().applied_lsn
    assert replica.resources.budget.used_bytes == before
    folder.close()

"""Ctrl-C in the thread that writes the log: it comes, but not before the change is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omendb_engine.interrupts import uninterrupted
from omendb_engine.replica import Replica
from tests.unit.engine.engine_cases import apply_beside, check_invariants, open_replica, put, settings_of, state_of


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    """Python's own handler, whatever the test runner has; put back afterwards, and checked to be in force."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    left = signal.signal(signal.SIGINT, before)
    assert left is signal.default_int_handler


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_it_comes_at_the_end_of_the_body_and_once() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        interrupt()
        steps.append("went on")
        interrupt()
        with uninterrupted():
            interrupt()
        steps.append("after an inner one")
    assert steps == ["went on", "after an inner one"]


def test_without_one_nothing_is_raised_and_the_handler_is_as_before() -> None:
    with uninterrupted():
        pass
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_other_handlers_get_it_with_their_arguments() -> None:
    got: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
    with uninterrupted():
        interrupt()
        assert got == []
    assert got == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with uninterrupted():
        interrupt()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_are_not_concerned() -> None:
    seen: list[Any] = []

    def look() -> None:
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(20)
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("where", ["append", "sync", "stage", "publish"])
def test_a_write_that_is_interrupted_is_whole_and_so_is_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, beside: bool
) -> None:
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=50, durability="fsync"))
    if beside:
        apply_beside(replica)
    put(replica, range(5))
    owner = replica._wal if where in ("append", "sync") else replica._store
    whole: Callable[..., Any] = getattr(owner, where)

    def interrupted(*given: Any, **named: Any) -> Any:
        done = whole(*given, **named)
        interrupt()
        return done

    monkeypatch.setattr(owner, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(replica, range(3, 9), seed=1)
    monkeypatch.undo()
    check_still_whole(replica, 9)
    before = state_of(replica)
    folder.close()
    folder, replica = open_replica(tmp_path / "db")
    assert state_of(replica) == before
    folder.close()


def check_still_whole(replica: Replica, points: int) -> None:
    """It takes writes, and its parts agree."""
    assert not replica.failed and replica.count() == points
    put(replica, [0], seed=2)
    check_invariants(replica)


@pytest.mark.parametrize("where", ["_commit", "_swap"])
def test_a_seal_that_is_interrupted_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Between the manifest and the parts in memory, where they differ."""
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=50))
    put(replica, range(20))
    maintenance = replica.maintenance
    whole = getattr(maintenance, where)

    def interrupted(*given: Any, **named: Any) -> None:
        whole(*given, **named)
        interrupt()

    monkeypatch.setattr(maintenance, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        replica.flush()
    monkeypatch.undo()
    assert [s.rows for s in replica.stats().segments] == [20] and replica.stats().growing_rows == 0
    check_still_whole(replica, 20)
    folder.close()
    assert replica.resources.budget.used_bytes == 0


def test_ctrl_c_before_its_turn_leaves_nobody_leading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just after a caller became the leader and before it began: others must not wait for it for ever."""
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=50))
    commits = replica._commits
    monkeypatch.setattr(commits, "_lead", lambda operation: interrupt())
    with pytest.raises(KeyboardInterrupt):
        put(replica, [1])
    monkeypatch.undo()
    put(replica, [2])
    assert replica.count() == 1
    folder.close()

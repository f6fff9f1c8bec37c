"""What is done while the log is synced: in a thread that comes and goes, seen by nobody before the sync succeeded."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from omendb_common.errors import ReplicaFailedError
from omendb_engine.beside import Beside
from omendb_engine.folder import Folder
from omendb_engine.replica import Replica
from tests.unit.engine.engine_cases import (
    apply_beside,
    as_ids,
    ids_of,
    open_replica,
    put,
    settings_of,
    state_of,
    vectors_of,
)

LIMIT_S = 30


def threads_beside() -> list[threading.Thread]:
    """The living threads of this kind."""
    return [thread for thread in threading.enumerate() if thread.name == "omendb-beside"]


def test_call_and_body_run_at_the_same_time_in_two_threads() -> None:
    beside = Beside()
    met = threading.Barrier(2)
    threads: list[int] = []

    def call() -> None:
        threads.append(threading.get_ident())
        met.wait(LIMIT_S)

    for _ in range(50):
        with beside.running(call):
            met.wait(LIMIT_S)
    assert len(threads) == 50 and len(set(threads)) == 1 and threads[0] != threading.get_ident()
    beside.close()
    assert not threads_beside()
    with beside.running(lambda: None):  # a new thread, where the old one was ended
        pass
    beside.close()


def test_leaving_waits_for_the_call_whatever_the_body_did() -> None:
    beside = Beside()
    begun, go_on = threading.Event(), threading.Event()
    ended: list[bool] = []

    def call() -> None:
        begun.set()
        assert go_on.wait(LIMIT_S)
        ended.append(True)

    with pytest.raises(OSError, match="the body's"), beside.running(call):
        assert begun.wait(LIMIT_S)
        threading.Timer(0.01, go_on.set).start()
        raise OSError("the body's")
    assert ended == [True]
    beside.close()


def test_the_calls_error_is_raised_and_the_bodys_comes_first() -> None:
    beside = Beside()

    def fail() -> None:
        raise MemoryError("the call's")

    with pytest.raises(MemoryError, match="the call's"), beside.running(fail):
        pass
    with pytest.raises(OSError, match="the body's"), beside.running(fail):
        raise OSError("the body's")
    with beside.running(lambda: None):  # neither is left over
        pass
    beside.close()


def test_a_signal_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that raises while the owner waits: the call still works on what the owner would give back."""
    beside = Beside()
    begun, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def call() -> None:
        begun.set()
        assert go_on.wait(LIMIT_S)
        order.append("call")

    def handler(number: int, frame: object) -> None:
        threading.Timer(0.02, go_on.set).start()
        raise TimeoutError("the handler's")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(TimeoutError), beside.running(call):
            assert begun.wait(LIMIT_S)
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        order.append("owner")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert order == ["call", "owner"]
    for _ in range(20):
        with beside.running(lambda: order.append("again")):
            pass
    assert len(order) == 22
    beside.close()


def test_a_thread_without_calls_ends_and_comes_again() -> None:
    beside = Beside(idle_s=0.001)
    done: list[int] = []
    for number in range(30):
        with beside.running(partial(done.append, number)):
            pass
        if number % 3 == 0:
            for thread in threads_beside():
                thread.join(LIMIT_S)
                assert not thread.is_alive()
    assert done == list(range(30))
    beside.close()


def test_without_a_thread_to_be_had_the_call_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    order: list[str] = []
    with Beside().running(lambda: order.append("call")):
        order.append("body")
    assert order == ["call", "body"]


def opened(path: Path) -> tuple[Folder, Replica]:
    """A replica with a few points that applies beside the sync."""
    folder, replica = open_replica(path, settings_of(rows=50, durability="fsync"))
    apply_beside(replica)
    put(replica, range(10), payload=[{"v": 0}] * 10)
    return folder, replica


def test_nobody_sees_an_operation_before_its_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the sync hangs everything was applied, and reads show what they showed before."""
    folder, replica = opened(tmp_path / "db")
    syncing, go_on = threading.Event(), threading.Event()
    sync = replica._wal.sync

    def slow_sync() -> int:
        syncing.set()
        assert go_on.wait(LIMIT_S)
        return sync()

    for write in (
        lambda: put(replica, range(5, 15), seed=1, payload=[{"v": 1, "late": True}] * 10),
        lambda: replica.delete(as_ids([1, 2])),
        lambda: replica.update(as_ids([0, 9]), {"": vectors_of(2, seed=9)}, None, unset=["v"]),
    ):
        staged = threading.Event()
        stage = Replica._stage
        monkeypatch.setattr(Replica, "_stage", lambda *a, s=stage, e=staged: (s(*a), e.set()))
        before, snapshot = state_of(replica), replica.snapshot()
        answers = replica.search(vectors_of(1), 20).picked(0).ids().to_list()
        monkeypatch.setattr(replica._wal, "sync", slow_sync)
        writer = threading.Thread(target=write)
        writer.start()
        assert syncing.wait(LIMIT_S) and staged.wait(LIMIT_S)
        assert replica.snapshot() is snapshot and state_of(replica) == before
        assert replica.search(vectors_of(1), 20).picked(0).ids().to_list() == answers
        assert replica.count() == len(before) and replica.get(as_ids(range(20)))[1].tolist() == sorted(before)
        go_on.set()
        writer.join(LIMIT_S)
        monkeypatch.setattr(replica._wal, "sync", sync)
        monkeypatch.setattr(Replica, "_stage", stage)
        assert not writer.is_alive() and replica.snapshot() is not snapshot and state_of(replica) != before
        syncing.clear()
        go_on.clear()
    assert replica.count() == 13
    folder.close()


def test_what_a_failed_sync_leaves_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, replica = opened(tmp_path / "db")
    before = state_of(replica)

    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(replica._wal._file), "datasync", fail)
    with pytest.raises(ReplicaFailedError) as caught:
        put(replica, range(5, 15), seed=1, payload=[{"v": 1}] * 10)
    assert caught.value.outcome == "unknown"
    monkeypatch.undo()
    assert replica.failed and state_of(replica) == before and replica.count() == 10
    assert not replica.maintenance.seal_one() and replica.snapshot().lsn == 1
    folder.close()
    folder, replica = open_replica(tmp_path / "db")  # the write got as far as the file, so it is there
    assert set(ids_of(replica)) == set(range(15))
    folder.close()


def test_an_apply_that_fails_beside_a_good_sync_stops_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replica = opened(tmp_path / "db")
    before = state_of(replica)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(replica._store, "stage", fail)
    with pytest.raises(MemoryError):
        put(replica, [100])
    with pytest.raises(ReplicaFailedError):
        put(replica, [101])
    assert replica.failed and state_of(replica) == before
    folder.close()
    folder, replica = open_replica(tmp_path / "db")
    assert np.isin(100, ids_of(replica)) and not np.isin(101, ids_of(replica))
    folder.close()

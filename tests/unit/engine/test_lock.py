"""One writer at a time, named by its pid; nothing stays locked behind a process that died, or forked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from omendb_common.errors import DatabaseLockedError
from omendb_engine.lock import ALIVE_NAME, LOCK_NAME, WriterLock, writer_is_alive
from tests.unit.engine.engine_cases import NAME, open_folder, open_replica, put

_HOLDER = """
import sys
sys.path[:0] = {paths!r}
from omendb_engine.lock import WriterLock
lock = WriterLock({folder!r})
print("held", flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    code = _HOLDER.format(paths=sys.path, folder=str(folder))
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_a_second_handle_in_this_process_is_refused(tmp_path: Path) -> None:
    lock = WriterLock(str(tmp_path))
    with pytest.raises(DatabaseLockedError) as caught:
        WriterLock(str(tmp_path))
    assert caught.value.pid == os.getpid() and "this process" in str(caught.value)
    lock.release()
    lock.release()
    WriterLock(str(tmp_path)).release()


def test_another_process_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    child = holder(tmp_path)
    assert writer_is_alive(str(tmp_path))
    with pytest.raises(DatabaseLockedError) as caught:
        WriterLock(str(tmp_path))
    assert caught.value.pid == child.pid and str(child.pid) in str(caught.value)
    assert 'mode="r"' in str(caught.value)
    child.kill()
    child.wait(20)
    assert not writer_is_alive(str(tmp_path))
    WriterLock(str(tmp_path)).release()


def test_the_same_folder_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "db")
    lock = WriterLock(str(tmp_path / "db"))
    with pytest.raises(DatabaseLockedError):
        WriterLock(str(tmp_path / "link"))
    with pytest.raises(DatabaseLockedError):
        WriterLock(f"{tmp_path}/link/../db")
    lock.release()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """It inherits the descriptors; only unlocking, not closing, frees what they share."""
    lock = WriterLock(str(tmp_path))
    inherited = [os.dup(fd) for fd in lock._fds]
    lock.release()
    assert not writer_is_alive(str(tmp_path))
    WriterLock(str(tmp_path)).release()
    for fd in inherited:
        os.close(fd)


def test_askers_never_keep_a_writer_out(tmp_path: Path) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            writer_is_alive(str(tmp_path))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            lock = WriterLock(str(tmp_path))
            assert writer_is_alive(str(tmp_path))
            lock.release()
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def test_a_garbled_pid_is_no_obstacle(tmp_path: Path) -> None:
    child = holder(tmp_path)
    (tmp_path / LOCK_NAME).write_bytes(b"\xff\xfe junk")
    with pytest.raises(DatabaseLockedError) as caught:
        WriterLock(str(tmp_path))
    assert caught.value.pid is None and "another process" in str(caught.value)
    child.kill()
    child.wait(20)


def test_what_cannot_be_asked_counts_as_a_writer(tmp_path: Path) -> None:
    """A reader that guesses wrong must err towards showing only what is acknowledged."""
    assert not writer_is_alive(str(tmp_path))
    (tmp_path / ALIVE_NAME).symlink_to(tmp_path / ALIVE_NAME)  # cannot be opened
    assert writer_is_alive(str(tmp_path))


def test_a_folder_that_fails_to_open_is_not_left_locked(tmp_path: Path) -> None:
    folder, replica = open_replica(tmp_path / "db")
    put(replica, [1])
    with pytest.raises(DatabaseLockedError):
        open_folder(tmp_path / "db")
    assert folder.replica(NAME).count() == 1, "the attempt disturbed the one who holds it"
    folder.close()
    (tmp_path / "db" / "catalog.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(Exception, match=r"catalog\.json"):
            open_folder(tmp_path / "db")
        assert not writer_is_alive(str(tmp_path / "db"))

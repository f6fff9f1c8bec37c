"""The writer lock of a folder: one process writes, any number read.

It is an advisory ``flock`` on the file ``LOCK``, which the kernel gives up when the process ends however it
ends, so that no stale lock is ever left behind. The file holds the writer's pid for the error message.

A second one, on the file ``WRITER``, tells readers whether there is a writer. They ask by taking it for an instant,
which must not get in the way of a writer that is about to start: so that one waits for it, and ``LOCK`` is left alone.
"""

from __future__ import annotations

import fcntl
import os

from omendb_common.errors import DatabaseLockedError

LOCK_NAME = "LOCK"
ALIVE_NAME = "WRITER"


class WriterLock:
    """Held from construction to :meth:`release`.

    Raises:
        DatabaseLockedError: another process, or another handle in this one, has it; ``pid`` names the process.
    """

    def __init__(self, folder: str) -> None:
        self._pid = os.getpid()
        self._fds: tuple[int, ...] = ()  # first, because __del__ runs for a lock that was not got too
        path = os.path.realpath(f"{folder}/{LOCK_NAME}")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(fd)
            os.close(fd)
            raise _locked(folder, pid) from None
        except BaseException:
            os.close(fd)
            raise
        self._fds = (fd,)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        alive = os.open(f"{folder}/{ALIVE_NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._fds = (alive, fd)
        fcntl.flock(alive, fcntl.LOCK_EX)

    def __del__(self) -> None:
        # A forked child shares the lock with its parent: unlocking here would take it from the parent.
        if os.getpid() == self._pid:
            self.release()

    def release(self) -> None:
        """Give the lock up; twice is fine. A handle that is forgotten gives it up when it is collected."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            # A process forked meanwhile has the same lock: closing our descriptor alone would leave it locked.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def writer_is_alive(folder: str) -> bool:
    """Whether a process has the folder open for writing; True when that cannot be told."""
    try:
        fd = os.open(f"{folder}/{ALIVE_NAME}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


def _locked(folder: str, pid: int | None) -> DatabaseLockedError:
    owner = "another process" if pid is None else ("this process" if pid == os.getpid() else f"process {pid}")
    return DatabaseLockedError(
        f"{owner} has the database open for writing",
        pid=pid,
        field=folder,
        mend='close it there first, or open it here with mode="r"',
    )


__all__ = ["ALIVE_NAME", "LOCK_NAME", "WriterLock", "writer_is_alive"]

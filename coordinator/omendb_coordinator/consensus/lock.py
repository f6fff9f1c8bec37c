"""One process per member: an advisory lock on the folder, which the kernel gives up when the process ends."""

from __future__ import annotations

import fcntl
import os

from omendb_common.errors import DatabaseLockedError


class FolderLock:
    """Held from construction to :meth:`release`. DatabaseLockedError when somebody else holds it."""

    def __init__(self, folder: str) -> None:
        fd = os.open(f"{folder}/LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise DatabaseLockedError("another process runs this member", pid=None, field=folder) from error
        self._fd = fd

    def release(self) -> None:
        """Give it up; twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


__all__ = ["FolderLock"]

"""The operating system's errors in OmenDB's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from omendb_common.errors import DiskFullError, OmenDBError, Outcome, UnavailableError
from omendb_engine.wal.prepare import is_full


def disk_error(error: OSError, doing: str, *, outcome: Outcome = "none") -> OmenDBError:
    """What a user is told when the disk refused something; ``outcome`` as in ``UnavailableError``."""
    field = str(error.filename or "disk")
    if is_full(error) and outcome == "none":
        return DiskFullError(
            f"{doing}: no space left", field=field, mend="delete points or free space on the volume", retry_after=1.0
        )
    return UnavailableError(f"{doing}: {error}", field=field, mend="look at the disk, then try again", outcome=outcome)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise what :func:`disk_error` makes of an OSError inside; for work that changes nothing or can be done again."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, doing) from error


__all__ = ["disk_error", "translated"]

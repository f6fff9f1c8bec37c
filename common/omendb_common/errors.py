"""The errors OmenDB raises, as one tree.

::

    OmenDBError
    ├── InvalidArgumentError      400  the caller's input is wrong; sending it again cannot help
    │   ├── DatabaseClosedError        the handle was closed
    │   └── FormatVersionError         the files are newer than this release
    ├── UnauthenticatedError      401
    ├── PermissionDeniedError     403
    │   └── ReadOnlyError              the folder was opened with mode="r"
    ├── NotFoundError             404
    ├── AlreadyExistsError        409
    ├── VersionConflictError      412  a point has another version than the caller demanded (``found``)
    ├── ResourceExhaustedError    429  try again after ``retry_after`` seconds
    │   └── DiskFullError              the volume passed its watermark
    ├── UnavailableError          503  ``outcome`` says what became of a write
    │   ├── DatabaseLockedError        another process writes to the folder (``pid``)
    │   └── ReplicaFailedError         a failed write or fsync stopped this replica
    ├── DeadlineExceededError     504
    └── CorruptionError           500  damage on disk, with ``path`` and ``offset``

Each class carries policy (code, HTTP status, whether a retry can help), so that every face
translates it the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

Outcome = Literal["none", "unknown"]


class OmenDBError(Exception):
    """Base of all OmenDB errors.

    Args:
        message: what went wrong, one sentence without a full stop.
        field: the argument, setting or file the error is about.
        bound: the limit or expectation that was broken.
        mend: what the caller can do about it.
    """

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, field: str | None = None, bound: str | None = None, mend: str | None = None
    ) -> None:
        self.message = message
        self.field = field
        self.bound = bound
        self.mend = mend
        super().__init__(message)

    def __str__(self) -> str:
        text = self.message
        if self.field is not None:
            text = f"{self.field}: {text}"
        if self.bound is not None:
            text += f" (expected {self.bound})"
        if self.mend is not None:
            text += f"; {self.mend}"
        return text


class InvalidArgumentError(OmenDBError):
    """Malformed or wrong-shaped input; nothing was changed."""

    code = "INVALID_ARGUMENT"
    http_status = 400


class DatabaseClosedError(InvalidArgumentError):
    """The database or collection handle was used after ``close()``."""


class FormatVersionError(InvalidArgumentError):
    """A file was written by a newer release than this one can read."""


class UnauthenticatedError(OmenDBError):
    """No credential, or a bad one."""

    code = "UNAUTHENTICATED"
    http_status = 401


class PermissionDeniedError(OmenDBError):
    """The caller may not do this."""

    code = "PERMISSION_DENIED"
    http_status = 403


class ReadOnlyError(PermissionDeniedError):
    """A write was tried on a database opened for reading."""


class NotFoundError(OmenDBError):
    """No such collection, point or file."""

    code = "NOT_FOUND"
    http_status = 404


class AlreadyExistsError(OmenDBError):
    """It exists already, or with a conflicting schema."""

    code = "ALREADY_EXISTS"
    http_status = 409


class VersionConflictError(OmenDBError):
    """A write with ``if_version`` met other versions than it demanded; nothing of it was written.

    ``found``: some of the points by id (at most 3), and the version that each has; 0: there is no such point.
    """

    code = "FAILED_PRECONDITION"
    http_status = 412
    outcome: ClassVar[Outcome] = "none"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        bound: str | None = None,
        mend: str | None = None,
        found: Mapping[int | str, int] | None = None,
    ) -> None:
        self.found = dict(found or {})
        super().__init__(message, field=field, bound=bound, mend=mend)


class ResourceExhaustedError(OmenDBError):
    """Memory, disk, rate or quota is used up; try again after ``retry_after`` seconds."""

    code = "RESOURCE_EXHAUSTED"
    http_status = 429
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        bound: str | None = None,
        mend: str | None = None,
        retry_after: float = 0.1,
    ) -> None:
        self.retry_after = retry_after
        super().__init__(message, field=field, bound=bound, mend=mend)


class DiskFullError(ResourceExhaustedError):
    """The volume is past its watermark, or has no space left; nothing was half-applied."""


class UnavailableError(OmenDBError):
    """The operation could not be completed now.

    ``outcome`` is ``"none"`` when a write certainly did not happen and ``"unknown"`` when it may
    appear after recovery. Of a write to several replicas: ``acked`` of the ``required`` acknowledgements came,
    under ``stamp``, with which the same write may be sent again (None where that says nothing).
    """

    code = "UNAVAILABLE"
    http_status = 503
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        bound: str | None = None,
        mend: str | None = None,
        outcome: Outcome = "none",
        acked: int | None = None,
        required: int | None = None,
        stamp: int | None = None,
    ) -> None:
        self.outcome: Outcome = outcome
        self.acked = acked
        self.required = required
        self.stamp = stamp
        super().__init__(message, field=field, bound=bound, mend=mend)


class DatabaseLockedError(UnavailableError):
    """Another process holds the writer lock; ``pid`` names it (None if it could not be read)."""

    def __init__(self, message: str, *, pid: int | None, field: str | None = None, mend: str | None = None) -> None:
        self.pid = pid
        super().__init__(message, field=field, mend=mend, outcome="none")


class ReplicaFailedError(UnavailableError):
    """A write or fsync failed; the replica acknowledges nothing until it is opened again."""


class DeadlineExceededError(OmenDBError):
    """The deadline passed before the operation finished.

    ``outcome``, ``acked``, ``required`` and ``stamp`` say the same of a write as those of
    :class:`UnavailableError`; a deadline alone leaves the outcome unknown.
    """

    code = "DEADLINE_EXCEEDED"
    http_status = 504
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        bound: str | None = None,
        mend: str | None = None,
        outcome: Outcome = "unknown",
        acked: int | None = None,
        required: int | None = None,
        stamp: int | None = None,
    ) -> None:
        self.outcome: Outcome = outcome
        self.acked = acked
        self.required = required
        self.stamp = stamp
        super().__init__(message, field=field, bound=bound, mend=mend)


class CorruptionError(OmenDBError):
    """Bytes on disk are not what was written.

    ``path`` is the damaged file, ``offset`` the byte where the damage was noticed (None: the
    whole file).
    """

    code = "DATA_LOSS"
    http_status = 500

    def __init__(
        self, message: str, *, path: str, offset: int | None = None, bound: str | None = None, mend: str | None = None
    ) -> None:
        self.path = path
        self.offset = offset
        where = path if offset is None else f"{path} at byte {offset}"
        super().__init__(message, field=where, bound=bound, mend=mend)


__all__ = [
    "AlreadyExistsError",
    "CorruptionError",
    "DatabaseClosedError",
    "DatabaseLockedError",
    "DeadlineExceededError",
    "DiskFullError",
    "FormatVersionError",
    "InvalidArgumentError",
    "NotFoundError",
    "OmenDBError",
    "Outcome",
    "PermissionDeniedError",
    "ReadOnlyError",
    "ReplicaFailedError",
    "ResourceExhaustedError",
    "UnauthenticatedError",
    "UnavailableError",
    "VersionConflictError",
]

"""One error of every class, with every attribute set and with none."""

from __future__ import annotations

from omendb_common import errors
from omendb_common.errors import OmenDBError

ATTRIBUTES = (
    *("message", "field", "bound", "mend", "outcome", "retry_after", "acked", "required", "stamp"),
    *("pid", "path", "offset", "found"),
)


def told(error: OmenDBError) -> dict[str, object]:
    """Class and attributes of an error: what must survive a journey."""
    return {"class": type(error), "text": str(error)} | {
        name: getattr(error, name) for name in ATTRIBUTES if hasattr(error, name)
    }


def classes() -> list[type[OmenDBError]]:
    """Every class of the tree."""
    return [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


def full(cls: type[OmenDBError]) -> OmenDBError:
    """An error of ``cls`` with every attribute set."""
    texts = {"field": "vectors", "bound": "at most 3", "mend": "send fewer"}
    write = {"outcome": "unknown", "acked": 1, "required": 2, "stamp": (1 << 64) - 1}
    if issubclass(cls, errors.CorruptionError):
        return cls("bad", path="/data/a.log", offset=1 << 40, bound="a sum", mend="repair")
    if issubclass(cls, errors.DatabaseLockedError):
        return cls("locked", pid=42, field="path", mend="close it")
    if issubclass(cls, errors.ResourceExhaustedError):
        return cls("full", retry_after=2.5, **texts)
    if issubclass(cls, (errors.UnavailableError, errors.DeadlineExceededError)):
        return cls("away", **texts, **write)  # type: ignore[arg-type]
    if issubclass(cls, errors.VersionConflictError):
        return cls("another version", found={(1 << 64) - 1: (1 << 64) - 2, "ä": 0, 3: 4}, **texts)
    return cls("wrong — 'ä'", **texts)


def bare(cls: type[OmenDBError]) -> OmenDBError:
    """An error of ``cls`` with nothing that may be left out."""
    if issubclass(cls, errors.CorruptionError):
        return cls("bad", path="x")
    if issubclass(cls, errors.DatabaseLockedError):
        return cls("locked", pid=None)
    return cls("")

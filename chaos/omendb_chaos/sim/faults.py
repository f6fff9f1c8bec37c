"""Which call to a simulated disk fails, and how: the n-th of a kind, once or from then on."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

KINDS = (
    "open",
    "pwrite",
    "pread",
    "datasync",
    "sync",
    "sync_dir",
    "allocate",
    "reserve",
    "truncate",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "listdir",
    "usage",
)
# The calls that change something, and those that make it last.
WRITE_KINDS = ("open", "pwrite", "allocate", "reserve", "truncate", "rename", "unlink", "mkdir", "rmdir")
SYNC_KINDS = ("datasync", "sync", "sync_dir")


@dataclass(slots=True)
class Fault:
    """One planned failure. ``fired`` counts how often it struck."""

    kinds: frozenset[str]
    nth: int
    error: int
    sticky: bool
    path_part: str
    seen: int = 0
    fired: int = 0

    def strikes(self, kind: str, path: str) -> bool:
        """Count one call, and say whether it fails."""
        if kind not in self.kinds or self.path_part not in path:
            return False
        self.seen += 1
        if self.seen != self.nth and not (self.sticky and self.seen > self.nth):
            return False
        self.fired += 1
        return True


class FaultPlan:
    """The planned failures of one disk, and a count of all calls by kind.

    A sweep fails the n-th call for every n: run once without faults, read ``calls``, run again for each.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._faults: list[Fault] = []

    def fail(
        self,
        kinds: str | Collection[str],
        nth: int = 1,
        error: int = errno.EIO,
        *,
        sticky: bool = False,
        path_part: str = "",
    ) -> Fault:
        """Let the ``nth`` call from now on (1 is the next) of these kinds fail; ``sticky``: and all after it."""
        names = frozenset([kinds] if isinstance(kinds, str) else kinds)
        if not names <= set(KINDS):
            raise ValueError(f"unknown kinds {sorted(names - set(KINDS))}; there are {KINDS}")
        fault = Fault(names, nth, error, sticky, path_part)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """The disk is mended: no planned failure is left."""
        self._faults.clear()

    def error_for(self, kind: str, path: str) -> int | None:
        """Count a call; the errno it fails with, or None."""
        self.calls[kind] += 1
        struck = [fault.error for fault in self._faults if fault.strikes(kind, path)]
        return struck[0] if struck else None


__all__ = ["KINDS", "SYNC_KINDS", "WRITE_KINDS", "Fault", "FaultPlan"]

"""R7: an I/O error at every read, write, rename and unlink."""

from __future__ import annotations

import errno

from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.sweep import sweep
from omendb_chaos.workloads import WORKLOADS

_SPACE = ("allocate", "reserve", "truncate")
KINDS = ("open", "pread", "pwrite", *_SPACE, "rename", "unlink", "mkdir", "rmdir", "listdir", "usage")
_SMALL = ("updates", "delete_sealed", "merge", "index", "drop", "reopen_clean")
_FULL = (
    *_SMALL,
    "rotate",
    "flush_often",
    "late_writes_in_merge",
    "reopen_killed",
    "rename",
    "two_fields",
    "retire",
    "lists",
)


def run(seed: int, budget: Budget) -> Outcome:
    """Fail every call once, and from there on."""
    outcome = Outcome("R7", seed, budget)
    names = _SMALL if budget == "small" else tuple(w.name for w in WORKLOADS if w.name in _FULL)
    done = sweep(outcome, names, KINDS, errno.EIO, per_workload=8 if budget == "small" else None)
    outcome.figure = f"{done.summary('I/O errors')}, {len(outcome.violations)} violations"
    return outcome


__all__ = ["run"]

"""R6: a full disk at every call that needs space, once and for good, and deletes on a disk that is really full."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from omendb_chaos.oracle import Violation
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.sweep import sweep
from omendb_chaos.session import BusyDisk, Session
from omendb_common.disk import DiskUsage
from omendb_common.errors import DiskFullError, OmenDBError

KINDS = ("open", "pwrite", "allocate", "reserve", "rename", "mkdir")
_SMALL = ("append_wide", "rotate", "delete_sealed", "merge", "index", "rename")
_FULL = (
    *_SMALL,
    *("updates", "large_record", "flush_often", "overflow", "late_writes_in_merge", "late_deletes_in_seal"),
    *("merge_indexed", "reopen_clean", "reopen_killed", "drop", "unsynced_rotation", "two_fields", "mixed_second"),
)
_PERCENT = 1 << 20


def run(seed: int, budget: Budget) -> Outcome:
    """Fill the disk at every call, and then for real."""
    outcome = Outcome("R6", seed, budget)
    names = _SMALL if budget == "small" else _FULL
    done = sweep(outcome, names, KINDS, errno.ENOSPC, per_workload=8 if budget == "small" else None)
    filled = 0
    for turn in range(2 if budget == "small" else 20):
        filled += 1
        for problem in _problems_when_full(seed + turn):
            outcome.violated(f"really full, seed {seed + turn}: {problem}")
    for problem in _problems_at_watermarks(seed):
        outcome.violated(f"watermarks, seed {seed}: {problem}")
    outcome.figure = (
        f"{done.summary('full disks')}, {filled} disks filled to the last byte, deletes pass at 95 %, "
        f"{len(outcome.violations)} violations"
    )
    return outcome


def _problems_at_watermarks(seed: int) -> Iterator[str]:
    """What passes and what is refused at 89, 92 and 96 % of the volume."""
    for percent, upsert, update in ((89, True, True), (92, False, True), (96, False, False)):
        session = Session(seed=seed).open()
        session.create()
        session.upsert(session.rows(range(20)))
        session.flush()
        session.disk.set_usage(DiskUsage(100 * _PERCENT, (100 - percent) * _PERCENT))
        session.reopen()
        passed = (session.upsert(session.rows([1, 30])), session.update([2], {"n": 1}), session.delete([3, 4]))
        if passed != (upsert, update, True):
            yield f"at {percent} % upsert, update, delete passed: {passed}"
        if any(not isinstance(error, DiskFullError) for error in session.refused):
            yield f"at {percent} % refused with {session.refused}"
        session.check()
        session.disk.set_usage(None)
        session.reopen()
        if not session.upsert(session.rows([40])):
            yield f"an upsert was refused after space came back: {session.refused[-1]}"
        session.check()


def _problems_when_full(seed: int) -> Iterator[str]:
    """Somebody else fills the volume to the last byte. Reads and deletes go on; with space, so does all else."""
    disk = BusyDisk(seed, capacity_bytes=4 << 20)
    settings = {"storage.ballast_bytes": 1 << 20, "storage.disk_high_percent": 100, "storage.disk_full_percent": 100}
    session = Session(disk, settings, seed=seed).open()
    session.create()
    for start in range(0, 60, 5):
        session.upsert(session.rows(range(start, start + 5), text_bytes=2000))
    session.flush()
    hog = disk.open("hog", "create")
    try:
        while disk.used_bytes() < 4 << 20:
            hog.allocate(hog.size() + 4096)
    except OSError:
        pass
    session.tolerant = True
    deleted = 0
    while session.delete([deleted]) and deleted < 40:
        deleted += 1
        session.upsert(session.rows([100 + deleted], text_bytes=2000))
    if deleted < 40:
        yield f"only {deleted} deletes went through: {session.refused[-1]}"
    session.check()
    session.reopen(clean=seed % 2 == 0)
    if not session.is_open:
        yield f"could not be opened on a full disk: {session.refused[-1]}"
        return
    session.check()
    hog.truncate(0)
    session.clock.pass_time(10)
    session.tolerant = False
    try:
        if not session.upsert(session.rows([99])):
            raise Violation(f"refused after space came back: {session.refused[-1]}")
        session.compact()
        session.check()
        session.reopen(clean=False)
    except (Violation, OmenDBError) as error:
        yield f"after space came back: {error}"


__all__ = ["run"]

"""Fail the n-th call of a kind, for every n: run a workload through it, then see what is left.

A run ends in five looks: what the still open database says, whether it works again once the fault is gone, what a new
process finds, what a power cut would have left, and what the deep check says.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

from omendb_chaos.oracle import State, Violation, match, observe
from omendb_chaos.rows.outcome import Outcome, dice
from omendb_chaos.session import DEFAULT, PATH, BusyDisk, Session, open_folder
from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.sim.faults import Fault
from omendb_chaos.workloads import WORKLOADS, Workload
from omendb_common.errors import OmenDBError
from omendb_engine.folder import COLLECTIONS
from omendb_engine.segment.check import check_replica_files

# What no operation may ever end in, whatever the disk does.
UNTYPED = (AssertionError, ValueError, IndexError, KeyError, TypeError, AttributeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Planned:
    """A failure to be planned: the ``nth`` call of ``kinds``, once or from then on."""

    kinds: Collection[str]
    nth: int
    error: int
    sticky: bool = False

    def on(self, disk: SimDisk) -> Fault:
        """Plan it."""
        return disk.faults.fail(self.kinds, self.nth, self.error, sticky=self.sticky)


def chosen(names: Collection[str]) -> list[Workload]:
    """The workloads of these names."""
    found = [w for w in WORKLOADS if w.name in names]
    assert len(found) == len(names), f"unknown among {sorted(names)}"
    return found


def calls_of(workload: Workload, kinds: Collection[str], seed: int) -> int:
    """How many calls of these kinds the workload makes when nothing fails."""
    session = run_through(workload, seed, None)
    return sum(session.disk.faults.calls[kind] for kind in kinds)


def run_through(workload: Workload, seed: int, planned: Planned | None, *, tolerant: bool = False) -> Session:
    """Run a workload on a disk that fails once, or from then on, going on as far as it goes."""
    disk = BusyDisk(seed)
    session = Session(disk, workload.changes, seed=seed)
    session.tolerant = tolerant or planned is not None
    if planned is not None:
        planned.on(disk)
    session.open()
    session.create(DEFAULT, *workload.fields)
    workload.run(session)
    return session


@dataclass(slots=True)
class Swept:
    """How much a sweep did: failures struck, by how many workloads, and how many were planned but not reached."""

    workloads: int = 0
    struck: int = 0
    unreached: int = 0

    def summary(self, what: str) -> str:
        """In words."""
        unreached = f" ({self.unreached} not reached)" if self.unreached else ""
        return f"{self.struck} {what} over {self.workloads} workloads{unreached}"


def sweep(
    outcome: Outcome, names: Collection[str], kinds: Collection[str], error: int, *, per_workload: int | None = None
) -> Swept:
    """Fail the n-th call of ``kinds`` in each workload, once and from then on.

    ``per_workload``: that many different n, spread evenly; None for every n.
    """
    done = Swept()
    for workload in chosen(names):
        done.workloads += 1
        total = calls_of(workload, kinds, outcome.seed)
        step = 1 if per_workload is None else max(1, total // per_workload)
        for nth in range(1 + outcome.seed % step, total + 1, step):
            for sticky in (False, True) if per_workload is None else ((nth // step) % 2 == 0,):
                where = f"{workload.name}, call {nth} of {total}{' and all after' if sticky else ''}"
                planned = Planned(kinds, nth, error, sticky)
                try:
                    session = run_through(workload, outcome.seed, planned)
                except (Violation, *UNTYPED) as failure:
                    outcome.violated(f"{where}: {_where(failure)}")
                    continue
                reached = session.disk.faults.calls.total() >= nth
                done.struck += reached
                done.unreached += not reached
                for problem in _after(session, outcome.seed, error):
                    outcome.violated(f"{where}: {problem}")
    return done


def _after(session: Session, seed: int, error: int) -> Iterator[str]:
    if error == errno.ENOSPC and session.is_open:
        # The disk is still full: reads must not mind.
        try:
            session.check()
        except (Violation, OmenDBError, OSError) as problem:
            yield f"while the disk is full: {problem}"
    session.disk.faults.clear()
    yield from problems_after(session, power_cuts=1, seed=seed)


def _where(failure: BaseException) -> str:
    frames = traceback.extract_tb(failure.__traceback__)
    return f"{type(failure).__name__}: {failure} in {frames[-1].name}, {frames[-1].filename.rpartition('/')[2]}"


def problems_after(session: Session, *, power_cuts: int = 3, seed: int = 0) -> Iterator[str]:
    """Everything that is wrong after a run; the fault is over when this is called."""
    session.disk.calm_down()
    if session.is_open:
        yield from _problems_alive(session)
    session.abandon()
    yield from _problems_reopened(session)
    yield from _problems_after_power_cut(session, power_cuts, seed)


def _problems_alive(session: Session) -> Iterator[str]:
    try:
        session.check()
    except Violation as problem:
        yield f"while open: {problem}"
    except OmenDBError as error:
        yield f"while open, reads failed: {type(error).__name__}: {error}"
    session.tolerant = False
    session.clock.pass_time(10)
    for name in session.folder.names():
        if not session.replica(name).failed:
            yield from _guarded(partial(_works_again, session, name), f"{name!r} did not work again")


def _works_again(session: Session, name: str) -> None:
    fields = session.replica(name).schema.vectors
    for ids in ([900, 901], [901, 902]):
        if not session.upsert(session.rows(ids, fields=fields), name):
            raise Violation(f"an upsert was refused: {session.refused[-1]}")
        session.flush(name)
    session.compact(name)
    session.work(name)
    session.check()


def _guarded(act: Callable[[], object], doing: str) -> Iterator[str]:
    try:
        act()
    except Violation as problem:
        yield f"{doing}: {problem}"
    except (OmenDBError, OSError, *UNTYPED) as error:
        yield f"{doing}: {type(error).__name__}: {error}"


def _problems_reopened(session: Session) -> Iterator[str]:
    """A new process finds what was acknowledged; what it finds stays."""
    survivor = session.disk.copy()
    found: list[State] = []

    def look() -> None:
        folder = open_folder(survivor, session.settings)
        found.append(observe(folder, sorted(session.known, key=str)))
        match(session.history, found[0])
        folder.close()
        again = observe(open_folder(survivor.copy(), session.settings), sorted(session.known, key=str))
        if again != found[0]:
            raise Violation("the second opening found something else than the first")

    yield from _guarded(look, "reopened")
    folder = f"{PATH}/{COLLECTIONS}"
    for uuid in survivor.listdir(folder) if survivor.exists(folder) else []:
        for finding in check_replica_files(survivor, f"{folder}/{uuid}"):
            yield f"check: {finding.path}: {finding.problem}"


def _problems_after_power_cut(session: Session, count: int, seed: int) -> Iterator[str]:
    for survivor in session.disk.crash_states(count, dice("sweep", seed, session.disk.position)):
        crash = survivor.crash
        assert crash is not None

        def look(survivor: SimDisk = survivor, at: int = crash.at) -> None:
            folder = open_folder(survivor, session.settings)
            match(session.history, observe(folder, sorted(session.known, key=str)), at)

        yield from _guarded(look, f"power cut ({crash.label} at {crash.at} of {session.disk.position})")


__all__ = ["UNTYPED", "Planned", "Swept", "calls_of", "chosen", "problems_after", "run_through", "sweep"]

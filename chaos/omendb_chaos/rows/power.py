"""R3: power cuts. Every workload is run once, and every disk that a power cut may leave of it is opened."""

from __future__ import annotations

import random
from collections.abc import Iterator

from omendb_chaos.oracle import Violation, match, observe
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_chaos.session import PATH, Session, open_folder
from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.workloads import WORKLOADS, Workload
from omendb_common.errors import OmenDBError
from omendb_engine.folder import COLLECTIONS
from omendb_engine.segment.check import check_replica_files

_STATES = {"small": 12, "full": 560}
_ROUNDS = {"small": 1, "full": 2}
# One state in so many is also opened twice, written to and deeply checked, which takes longer than all the rest.
_DEEP_EVERY = 4
_SECOND_CUTS = 4


def run(seed: int, budget: Budget) -> Outcome:
    """Power cuts over all workloads."""
    outcome = Outcome("R3", seed, budget)
    states = 0
    for turn in range(_ROUNDS[budget]):
        for workload in WORKLOADS:
            states += cut_power(workload, seed + turn, _STATES[budget] // _ROUNDS[budget], outcome)
    outcome.figure = (
        f"{states} distinct power-loss states over {len(WORKLOADS)} workloads, "
        f"{len(outcome.violations)} of them lost, invented or refused something"
    )
    return outcome


def cut_power(workload: Workload, seed: int, limit: int, outcome: Outcome) -> int:
    """Run a workload and open what power cuts leave of it; returns how many states there were."""
    session = run_workload(workload, seed)
    rng = dice("R3", workload.name, seed)
    count = 0
    for survivor in session.disk.crash_states(limit, rng):
        count += 1
        for problem in problems_of(session, survivor, deep=rng.random() * _DEEP_EVERY < 1):
            assert survivor.crash is not None
            outcome.violated(f"{workload.name}, seed {seed}, {survivor.crash}: {problem}")
    return count


def run_workload(workload: Workload, seed: int) -> Session:
    """The session after a workload."""
    session = workload.session(seed)
    workload.run(session)
    if session.is_open:
        session.check()
    return session


def problems_of(session: Session, survivor: SimDisk, *, deep: bool) -> Iterator[str]:
    """What is wrong with a disk after a power cut."""
    assert survivor.crash is not None
    known = sorted(session.known, key=str)
    try:
        folder = open_folder(survivor, session.settings)
        seen = observe(folder, known)
        match(session.history, seen, survivor.crash.at)
        if deep:
            yield from _deep_problems(session, survivor, random.Random(survivor.crash.at))
    except Violation as problem:
        yield str(problem)
    except (OmenDBError, OSError, ValueError, AssertionError, IndexError, KeyError, TypeError) as error:
        yield f"{type(error).__name__}: {error}"


def _deep_problems(session: Session, survivor: SimDisk, rng: random.Random) -> Iterator[str]:
    """Recovery must be final: what it found once it finds again, after another crash and after a clean close."""
    known = sorted(session.known, key=str)
    folder = open_folder(survivor, session.settings)
    first = observe(folder, known)
    if rng.random() < 0.5:
        folder.close()
    # A power cut in the middle of recovery, or after it, must change nothing of what recovery shows.
    for again in survivor.crash_states(_SECOND_CUTS, rng):
        second = observe(open_folder(again, session.settings), known)
        if second != first:
            yield f"a second power cut ({again.crash}) changed what recovery had found"
    again = survivor.copy()
    if observe(open_folder(again, session.settings), known) != first:
        yield "a second opening found something else than the first"
    for uuid in again.listdir(f"{PATH}/{COLLECTIONS}") if again.exists(f"{PATH}/{COLLECTIONS}") else []:
        for finding in check_replica_files(again, f"{PATH}/{COLLECTIONS}/{uuid}"):
            yield f"check: {finding.path}: {finding.problem}"


__all__ = ["cut_power", "problems_of", "run", "run_workload"]

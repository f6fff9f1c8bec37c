"""R9: a refused memory reservation at every site: a typed refusal, nothing torn, nothing leaked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from omendb_chaos.oracle import Violation
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.sweep import UNTYPED, chosen, problems_after, run_through
from omendb_chaos.session import Session
from omendb_chaos.workloads import WORKLOADS
from omendb_common.errors import AlreadyExistsError, NotFoundError, OmenDBError, ResourceExhaustedError
from omendb_engine.budget import RETRY_AFTER_S, MemoryBudget

_SMALL = ("overflow", "merge", "index", "reopen_killed", "collections")
# Those that fail by themselves are refused for other reasons than memory.
_FULL = tuple(w.name for w in WORKLOADS if not w.name.startswith("failed"))


class Refusals:
    """Counts reservations, and refuses the ``nth`` (0: none) or all from it on."""

    def __init__(self, nth: int, *, sticky: bool = False) -> None:
        self.nth = nth
        self.sticky = sticky
        self.calls = 0
        self.over = False

    def strikes(self) -> bool:
        """Count a reservation; whether it is refused."""
        self.calls += 1
        return not self.over and (self.calls == self.nth or (self.sticky and 0 < self.nth <= self.calls))


@contextmanager
def refusing(refusals: Refusals) -> Iterator[None]:
    """Every budget refuses what ``refusals`` says."""
    original = MemoryBudget.reserve

    def reserve(self: MemoryBudget, purpose: str, size: int) -> None:
        if refusals.strikes():
            raise ResourceExhaustedError(f"refused by the test: {purpose}", retry_after=RETRY_AFTER_S)
        original(self, purpose, size)

    MemoryBudget.reserve = reserve  # type: ignore[method-assign]
    try:
        yield
    finally:
        MemoryBudget.reserve = original  # type: ignore[method-assign]


def run(seed: int, budget: Budget) -> Outcome:
    """Refuse every reservation once, and all from there on."""
    outcome = Outcome("R9", seed, budget)
    workloads = chosen(_SMALL if budget == "small" else _FULL)
    refused = 0
    for workload in workloads:
        counting = Refusals(0)
        with refusing(counting):
            run_through(workload, seed, None)
        step = 1 if budget == "full" else max(1, counting.calls // 8)
        for nth in range(1 + seed % step, counting.calls + 1, step):
            for sticky in (False, True) if budget == "full" else ((nth // step) % 2 == 0,):
                where = f"{workload.name}, reservation {nth} of {counting.calls}{' and all after' if sticky else ''}"
                refusals = Refusals(nth, sticky=sticky)
                try:
                    with refusing(refusals):
                        session = run_through(workload, seed, None, tolerant=True)
                        refusals.over = True
                        refused += 1
                        for problem in [*_problems(session), *problems_after(session, power_cuts=1, seed=seed)]:
                            outcome.violated(f"{where}: {problem}")
                except (Violation, OmenDBError, *UNTYPED) as error:
                    outcome.violated(f"{where}: {type(error).__name__}: {error}")
    outcome.figure = (
        f"{refused} refused reservations over {len(workloads)} workloads, {len(outcome.violations)} violations"
    )
    return outcome


def _problems(session: Session) -> Iterator[str]:
    """Errors of the wrong type, and memory that nobody gives back."""
    for error in session.refused:
        # Not found is what must follow when a collection could not be made.
        if not isinstance(error, ResourceExhaustedError | NotFoundError | AlreadyExistsError):
            yield f"refused with {type(error).__name__}: {error}"
    if session.is_open:
        session.check()
        yield from leaks(session)
        session.open()


def leaks(session: Session) -> Iterator[str]:
    """Memory that is still reserved after closing."""
    budget = session.folder.resources.budget
    session.close()
    if budget.used_bytes:
        yield f"{budget.used_bytes} bytes are still reserved after closing: {budget.account()}"
    session.tolerant = False


__all__ = ["Refusals", "leaks", "refusing", "run"]

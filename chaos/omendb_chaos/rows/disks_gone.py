"""R21: the disk of a data node is gone, another's, or an old one: no point is called absent, and all is made whole.

Simulated, under load; at full length also on real processes.
"""

from __future__ import annotations

from omendb.fleet.plan import FleetSize
from omendb_chaos.cluster.disks_gone import KINDS
from omendb_chaos.fleet.disk_stories import STORIES
from omendb_chaos.fleet.running import running_fleet
from omendb_chaos.rows.convergence import environment
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.simulated import simulate
from omendb_common.errors import OmenDBError

_RUNS = {"small": 3, "full": 24}
_REAL = {"small": 0, "full": 2}
"""Times that each story is told of real processes; ``tests/cluster`` tell each once."""


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R21", seed, budget)
    sums = simulate(outcome, "R21", _RUNS[budget])
    told = 0
    for _ in range(_REAL[budget]):
        for kind in KINDS:
            told += 1
            _tell(outcome, kind)
    outcome.figure = (
        f"{sums.runs} simulated runs and {told} of real processes with a disk that was lost, swapped or old: "
        f"{len(outcome.violations)} in which a point was called absent, or redundancy did not come back"
    )
    return outcome


def _tell(outcome: Outcome, kind: str) -> None:
    story = STORIES[kind]
    with environment(story.environment), running_fleet(outcome, FleetSize(1, 1, 3)) as fleet:
        try:
            with fleet.client(timeout=10) as client:
                story.tell(fleet, client)
        except (AssertionError, OmenDBError) as broken:
            outcome.violated(f"{kind} disk, real processes: {type(broken).__name__}: {broken}")


__all__ = ["run"]

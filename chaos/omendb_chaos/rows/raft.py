"""R15: Raft. Groups of three and five members on one virtual clock, with every fault that the design names.

The core, the log, the vote and the snapshots are the real ones, on simulated disks. What must hold is in
``raft.checks``; at full length every rule of the group is also taken out in turn, and the runs must notice. Then real
processes, with real files and connections, are killed and stopped while clients write.
"""

from __future__ import annotations

from collections import Counter

from omendb_chaos.raft.ablations import ABLATIONS, Ablation
from omendb_chaos.raft.checks import Violation
from omendb_chaos.raft.processes import torment
from omendb_chaos.raft.profiles import PROFILES
from omendb_chaos.raft.world import simulate
from omendb_chaos.rows.outcome import Budget, Outcome

SEEDS_PER_PROFILE = {"small": 10, "full": 400}
REAL_S = {"small": 4.0, "full": 60.0}
# Seeds after which a rule that nobody missed counts as untested.
NOTICED_WITHIN = 200


def run(seed: int, budget: Budget) -> Outcome:
    """Simulate groups, every profile with its own seeds."""
    outcome = Outcome("R15", seed, budget)
    acknowledged = reads = terms = runs = 0
    faults: Counter[str] = Counter()
    first = seed * SEEDS_PER_PROFILE["full"]
    for name, profile in PROFILES.items():
        for number in range(first, first + SEEDS_PER_PROFILE[budget]):
            result = simulate(profile, number)
            if result.violation:
                outcome.violated(f"profile {name}, run {number}: {result.violation}")
            runs += 1
            acknowledged += result.acknowledged
            reads += result.reads
            terms += result.terms
            faults += result.faults
    real = ""
    try:
        tally = torment(seed, REAL_S[budget])
        real = ", ".join(f"{count} {name}" for name, count in sorted(tally.faults.items()))
        real = f"real processes: {tally.acknowledged} acknowledged, {tally.reads} reads, {real}"
    except* Violation as errors:
        outcome.violations += [f"real processes: {error}" for error in errors.exceptions]
    if budget == "full":
        for ablation in ABLATIONS.values():
            noticed = notice(ablation)
            if noticed is None:
                outcome.violated(f"{NOTICED_WITHIN} runs of {ablation.profile} do not miss the rule '{ablation.rule}'")
            else:
                outcome.notes.append(f"without '{ablation.rule}': {noticed}")
    said = ", ".join(f"{count} {name}" for name, count in sorted(faults.items()))
    outcome.figure = (
        f"{runs} simulated runs, {acknowledged} acknowledged commands, {reads} linearizable reads, {terms} leaders; "
        f"{said}; {real}; {len(outcome.violations)} violations"
    )
    return outcome


def notice(ablation: Ablation) -> str | None:
    """The first run that breaks a promise without a rule, in words; None when none does."""
    for number in range(ablation.first, ablation.first + NOTICED_WITHIN):
        result = simulate(PROFILES[ablation.profile], number, parts=ablation.parts)
        if result.violation:
            return f"run {number}: {result.violation}"
    return None


__all__ = ["NOTICED_WITHIN", "REAL_S", "SEEDS_PER_PROFILE", "notice", "run"]

"""R8: a failed fsync, at every fsync. After it nothing is acknowledged and nothing is synced a second time."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from omendb_chaos.oracle import Violation
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.sweep import UNTYPED, Planned, calls_of, chosen, problems_after, run_through
from omendb_chaos.session import Session
from omendb_chaos.sim.faults import SYNC_KINDS
from omendb_chaos.sim.oplog import SyncFile, Write
from omendb_chaos.workloads import WORKLOADS
from omendb_common.errors import OmenDBError

_SMALL = ("append", "rotate", "flush_often", "merge", "index", "reopen_killed", "rename", "unsynced_seals")


def run(seed: int, budget: Budget) -> Outcome:
    """Fail every sync of every workload once, and from there on."""
    outcome = Outcome("R8", seed, budget)
    # Those that plan failures of their own would end the one that is swept.
    workloads = chosen(_SMALL) if budget == "small" else [w for w in WORKLOADS if not w.name.startswith("failed")]
    syncs = late_acks = repeated = 0
    for workload in workloads:
        total = calls_of(workload, SYNC_KINDS, seed)
        step = 1 if budget == "full" else max(1, total // 8)
        for nth in range(1 + seed % step, total + 1, step):
            for sticky in (False, True) if budget == "full" else (nth % 2 == 0,):
                syncs += 1
                where = f"{workload.name}, seed {seed}, sync {nth} of {total}{' and all after' if sticky else ''}"
                try:
                    session = run_through(workload, seed, Planned(SYNC_KINDS, nth, errno.EIO, sticky))
                except (Violation, OmenDBError, OSError, *UNTYPED) as error:
                    outcome.violated(f"{where}: {type(error).__name__}: {error}")
                    continue
                session.disk.faults.clear()
                late, again = session.late_acks, list(repeated_syncs(session))
                late_acks += late
                repeated += len(again)
                if late:
                    outcome.violated(f"{where}: {late} operations were acknowledged after it")
                for problem in [*again, *problems_after(session, seed=seed)]:
                    outcome.violated(f"{where}: {problem}")
    outcome.figure = (
        f"{syncs} failed syncs over {len(workloads)} workloads, {late_acks} acknowledgements after a failure, "
        f"{repeated} syncs repeated, {len(outcome.violations)} violations"
    )
    return outcome


def repeated_syncs(session: Session) -> Iterator[str]:
    """Files that were synced again after a sync of them failed, with what was lost still lost."""
    lost: dict[int, list[tuple[int, int]]] = {}
    pending: dict[int, list[tuple[int, int]]] = {}
    for op in session.disk.log:
        if isinstance(op, Write):
            span = (op.offset, op.offset + len(op.data))
            pending.setdefault(op.node, []).append(span)
            lost[op.node] = [s for s in lost.get(op.node, []) if not (span[0] <= s[0] and s[1] <= span[1])]
        elif isinstance(op, SyncFile) and not op.ok:
            lost.setdefault(op.node, []).extend(pending.pop(op.node, []))
        elif isinstance(op, SyncFile):
            pending.pop(op.node, None)
            if lost.get(op.node):
                yield f"file {op.node} was synced again and {len(lost[op.node])} writes of it were lost"
                lost[op.node] = []


__all__ = ["repeated_syncs", "run"]

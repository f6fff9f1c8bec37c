"""Claims and waivers on their way into the log: decided on as they are asked for, stored as tombstones (P19)."""

from __future__ import annotations

import numpy as np

from omendb_common.shard_calls import Claim
from omendb_engine.claimed import Claims
from omendb_engine.operation import Operation, WriteResult
from omendb_engine.parts import Snapshot
from omendb_engine.verdicts import judge_claims


def take_claims(operation: Operation, snapshot: Snapshot, claims: Claims, gc_floor: int, durability: str) -> bool:
    """Turn a claim or a waiver into what is stored of it; False when there is nothing to be logged."""
    ids, stamp = operation.batch.ids, operation.stamp
    if operation.claim is Claim.WAIVE:
        operation.mark(np.arange(len(ids)), np.zeros(len(ids), np.uint64))
        return True
    verdicts, held = judge_claims(snapshot, ids, stamp, gc_floor, claims)
    operation.verdicts = verdicts
    if not len(verdicts.keep):
        operation.result, operation.done = WriteResult(ids, 0, stamp, snapshot.lsn, durability), True
        return False
    operation.mark(verdicts.keep, held[verdicts.keep])
    return True


__all__ = ["take_claims"]

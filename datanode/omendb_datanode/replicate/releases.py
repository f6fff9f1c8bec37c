"""Claims whose makers are gone, ended by all replicas of a shard together (P19).

A router that dies between its claim and its write leaves points of which no replica takes an older version any more,
not even from repair. No quorum can tell whether the write under such a claim will still come. All replicas can: they
are claimed above it, so that it comes nowhere any more; where none of them has it, it is waived on each, which keeps it
out for good; and only then is the claim above it waived. A step that fails leaves that claim, for the next time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import UnavailableError
from omendb_common.hlc import stamp_at
from omendb_common.ids import IdColumn, U64Array
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import Applied, Apply, Claim, DataNode, Looked, Lookup, ShardRef, Verdict
from omendb_datanode.replicate.exchange import in_time

_IDS_MAX = 1000
_DICE_BITS = 22


class Release:
    """Ends the claims on points of one shard. ``nodes``: all that hold a replica of it, this one among them."""

    def __init__(
        self, nodes: Sequence[DataNode], shard: ShardRef, clock: Clock, call_timeout_s: float, dice: random.Random
    ) -> None:
        self._nodes = nodes
        self._shard = shard
        self._clock = clock
        self._call_timeout_s = call_timeout_s
        self._dice = dice

    async def run(self, ids: IdColumn) -> None:
        """End the claims on ``ids``, which differ; many at a time, the rest is for the next time.

        Raises:
            OmenDBError: not every replica took part, or somebody claims these points just now.
        """
        ids = ids.slice(0, min(len(ids), _IDS_MAX))
        above = stamp_at(self._clock.wall_ms()) + self._dice.getrandbits(_DICE_BITS)
        claimed = await self._all(ids, above, Claim.CLAIM)
        if any(len(answer.superseded) for answer in claimed):
            raise UnavailableError("the points are being written", field="ids", mend="it is tried again")
        held = [await self._look(node, ids) for node in self._nodes]
        for stamp in sorted({int(stamp) for answer in claimed for stamp in answer.open_stamps}):
            rows = np.unique(np.concatenate([a.open_rows[a.open_stamps == np.uint64(stamp)] for a in claimed]))
            absent = rows[~_present(held, rows, stamp)]
            if len(absent):
                await self._all(ids.take(absent), stamp, Claim.WAIVE)
        await self._all(ids, above, Claim.WAIVE)

    async def _all(self, ids: IdColumn, stamp: int, claim: Claim) -> list[Applied]:
        call = Apply(self._shard, stamp, WriteBatch(Op.DELETE, ids), None, claim=claim)
        answers = [await in_time(node.apply, call, self._soon()) for node in self._nodes]
        for answer in answers:
            if answer.verdict is not Verdict.OK:
                raise answer.error or UnavailableError(f"a replica answered {answer.verdict.name}", field="shard")
        return answers

    async def _look(self, node: DataNode, ids: IdColumn) -> Looked:
        answer = await in_time(node.lookup, Lookup(self._shard, ids, brief=True), self._soon())
        if answer.verdict is not Verdict.OK:
            raise answer.error or UnavailableError(f"a replica answered {answer.verdict.name}", field="shard")
        return answer

    def _soon(self) -> Deadline:
        return Deadline.after(self._clock, self._call_timeout_s)


def _present(
    held: Sequence[Looked], rows: np.ndarray[tuple[int], np.dtype[np.int64]], stamp: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of which of the points some replica has what was written under ``stamp``, also below later updates of fields."""
    out = np.zeros(len(rows), np.bool_)
    for answer in held:
        bases: U64Array = answer.overlays.spread(answer.stamps)[0]
        out |= (answer.stamps[rows] == np.uint64(stamp)) | (bases[rows] == np.uint64(stamp))
    return out


__all__ = ["Release"]

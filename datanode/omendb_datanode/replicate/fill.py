"""A new replica is given everything that the members of its shard hold, from all of them (P14: repair, then stream).

Nothing is taken from one member alone: what only another one holds was acknowledged all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.hlc import stamp_wall_ms
from omendb_common.shard_calls import DataNode, Maintain, ShardRef, Verdict
from omendb_datanode.config import RepairSettings
from omendb_datanode.replicate.exchange import Exchange, ExchangeEndedError, Moved, settled_stamp
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.together import bring_together


@dataclass(frozen=True, slots=True)
class FillProgress:
    """How far it is. ``records_total`` is what the fullest member holds; bytes of what is to come are an estimate."""

    records: int
    records_total: int
    size: int

    @property
    def size_total(self) -> int:
        """Bytes that it will have been, going by those that came."""
        return self.size * max(self.records_total, self.records) // max(self.records, 1)


@dataclass(frozen=True, slots=True)
class Filled:
    """The replica and every source hold the same records up to ``through``, which the replica has noted.

    So many records came, of so many bytes.
    """

    through: int
    records: int
    size: int


async def fill(
    here: DataNode,
    sources: Mapping[str, DataNode],
    shard: ShardRef,
    gc_floor: int,
    clock: Clock,
    pace: Pace,
    settings: RepairSettings,
    *,
    since: int = 0,
    progress: Callable[[FillProgress], None] = lambda _: None,
) -> Filled:
    """Bring the replica ``here`` and all ``sources`` to equality, through a stamp at or above ``since``.

    The replica is hosted here already, in a state in which writes reach it, under ``shard`` and at ``gc_floor``, as
    every source is. Give ``since`` a stamp at or above which every write was sent to it as well: then nothing that was
    acknowledged is missing when this returns. Sources that lack something of each other are given it on the way.
    Cancelled or failed, it may be begun again, and goes on from where it was.

    Raises:
        ExchangeEndedError: a source went away, the map or the floor changed, or the replicas keep differing.
        UnavailableError, DeadlineExceededError: a source brought no answer.
    """
    if not sources:
        raise ExchangeEndedError("there is no replica to take records from", field="sources")
    through = settled_stamp(clock, settings.settle_s)
    while through < since:
        ahead_s = (stamp_wall_ms(since) - stamp_wall_ms(through)) / 1000
        await pace.pause(max(ahead_s, 0.001))
        through = settled_stamp(clock, settings.settle_s)
    told = _Told(progress)
    exchanges = {
        name: Exchange(here, node, shard, gc_floor, clock, pace, settings, moved=told.moved, begun=told.begun)
        for name, node in sources.items()
    }
    done = await bring_together(exchanges, through)
    for error in done.failed.values():
        raise error
    if not done.equal:
        raise ExchangeEndedError(
            f"{done.leaves} leaves still differ", field=f"{shard.collection_uuid}.{shard.shard_id}", mend="try again"
        )
    # An active replica that has noted less than the floor is taken for an old copy (P13).
    noted = await here.maintain(
        Maintain(shard, "note_repaired", through), Deadline.after(clock, settings.call_timeout_s)
    )
    if noted.verdict is not Verdict.OK:
        raise noted.error or ExchangeEndedError(f"the replica answers {noted.verdict.name}", field="shard")
    return Filled(through, told.now.records, told.now.size)


class _Told:
    """Adds up what the exchanges tell of."""

    def __init__(self, progress: Callable[[FillProgress], None]) -> None:
        self._progress = progress
        self.now = FillProgress(0, 0, 0)

    def begun(self, records: int) -> None:
        """A comparison began, and the fuller of the two replicas holds so many."""
        self.now = FillProgress(self.now.records, max(self.now.records_total, records), self.now.size)

    def moved(self, moved: Moved) -> None:
        """A batch was sent."""
        now = self.now
        if moved.pulled:
            self.now = FillProgress(now.records + moved.pulled, now.records_total, now.size + moved.size)
            self._progress(self.now)


__all__ = ["FillProgress", "Filled", "fill"]

"""Writes: stamped, sent to every replica of their shards, and ended in one of three outcomes (P1, P3, P4, P5)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.ids import IdColumn, U64Array
from omendb_common.records import Op, WriteBatch, encode_batch
from omendb_common.shard_calls import RECALL_S, Applied, Apply, ShardRef, State
from omendb_common.topology import CollectionInfo, Shard
from omendb_router.asked import StaleMapError
from omendb_router.fanout import Asking, Fanout, Heard
from omendb_router.maps import Maps
from omendb_router.routing import Share, batch_bytes, shares, take_rows
from omendb_router.stamps import Leases, Stamps
from omendb_router.tally import Ballot, Step, Tally, weakest

_REPAIRS_MAX = 2


class Fate(Enum):
    """How a write can end (P5)."""

    COMMITTED = "a quorum has it"
    NOT_APPLIED = "no replica has it or will have it"
    INDETERMINATE = "some replica may have it, and others may get it from there"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a write ended.

    ``written``: greatest stamp by shard. ``overtaken``: rows of an echo that a newer write beat.
    """

    fate: Fate
    stamp: int = 0
    lsn: int = 0
    durability: str = ""
    existed: int = 0
    overtaken: int = 0
    acked: int = 0
    required: int = 0
    cause: OmenDBError | None = None
    written: dict[int, int] = field(default_factory=dict)

    def error(self, deadline: Deadline) -> OmenDBError:
        """What the client is told of a write that did not commit."""
        cause = self.cause or UnavailableError("the write did not reach its quorum")
        late = isinstance(cause, DeadlineExceededError)
        if self.fate is Fate.INDETERMINATE:
            kind: type[DeadlineExceededError | UnavailableError] = (
                DeadlineExceededError if late or deadline.passed else UnavailableError
            )
            return kind(
                f"{self.acked} of {self.required} acknowledgements: {cause}",
                field="write",
                mend="send it again with the same stamp: it was not undone and may yet appear",
                outcome="unknown",
                acked=self.acked,
                required=self.required,
                stamp=self.stamp or None,
            )
        if not late and not isinstance(cause, UnavailableError):
            return cause
        return (DeadlineExceededError if late else UnavailableError)(
            cause.message,
            field=cause.field,
            bound=cause.bound,
            mend=cause.mend,
            outcome="none",
            acked=self.acked,
            required=self.required,
            stamp=self.stamp or None,
        )


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a batch from those of its parts: whole only if every part is, not applied only if none may be."""
    if len(outcomes) == 1:
        return outcomes[0]
    fates = {o.fate for o in outcomes}
    fate = fates.pop() if len(fates) == 1 else Fate.INDETERMINATE
    failed = next((o for o in outcomes if o.fate is not Fate.COMMITTED), outcomes[0])
    durability = ""
    written: dict[int, int] = {}
    for outcome in outcomes:
        durability = weakest(durability, outcome.durability)
        for shard, stamp in outcome.written.items():
            written[shard] = max(stamp, written.get(shard, 0))
    return Outcome(
        fate,
        max(o.stamp for o in outcomes),
        max(o.lsn for o in outcomes),
        durability,
        sum(o.existed for o in outcomes),
        sum(o.overtaken for o in outcomes),
        failed.acked,
        failed.required,
        failed.cause,
        written,
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """Rows to be written under one stamp. ``hashes``: their places on the ring; None sends all to every shard.

    ``homed``: those are places of the shards in which the points were found, which say nothing under other ranges.
    ``echo``: the stamp is that of an earlier request of the client (P5). ``may_exist``: an earlier attempt of this
    request may have left something somewhere. ``versions``: those that the points must have, where one replica decides
    under this very map. ``sent_s``: when the stamp was sent first, by the monotonic clock; 0: not
    yet.
    """

    info: CollectionInfo
    batch: WriteBatch
    hashes: U64Array | None
    stamp: int
    echo: bool = False
    create_only: bool = False
    may_exist: bool = False
    homed: bool = False
    restamps: int = 0
    refreshes: int = 0
    repairs: int = 0
    sent_s: float = 0.0
    versions: U64Array | None = None

    def narrowed(self, rows: npt.NDArray[np.int64] | None) -> Attempt:
        """Only these rows."""
        if rows is None:
            return self
        hashes = None if self.hashes is None else self.hashes[rows]
        versions = None if self.versions is None else self.versions[rows]
        return replace(self, batch=take_rows(self.batch, rows), hashes=hashes, versions=versions)

    def continued(self) -> Attempt:
        """The same, as a later part of a request whose earlier parts were committed."""
        return replace(self, may_exist=True)


class Supply(Protocol):
    """Brings replicas what they lack, and finds where points are; the reads do it."""

    async def homes(self, info: CollectionInfo, ids: IdColumn, deadline: Deadline) -> U64Array:
        """Places on the ring of the shards that have the points, as :attr:`Attempt.hashes` takes them."""

    async def bring(
        self, info: CollectionInfo, shard: Shard, ids: IdColumn, deadline: Deadline
    ) -> npt.NDArray[np.uint8]:
        """Put the newest records of ``ids`` on every replica that answers; returns their states."""


class Writer:
    """Carries writes out. It never raises for what became of a write: :class:`Outcome` says it."""

    def __init__(
        self, fanout: Fanout, maps: Maps, stamps: Stamps, leases: Leases, supply: Supply, dice: random.Random
    ) -> None:
        self._fanout = fanout
        self._maps = maps
        self._stamps = stamps
        self._leases = leases
        self._supply = supply
        self._dice = dice
        self._settings = fanout.settings

    async def write(self, attempt: Attempt, deadline: Deadline) -> Outcome:
        """Write the attempt's rows, wherever they belong."""
        if attempt.hashes is None:
            parts = [Share(shard, None) for shard in attempt.info.shards]
        else:
            parts = shares(attempt.info.shards, attempt.hashes)
        if len(parts) == 1:
            return await self._to_shard(attempt, parts[0], deadline)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._to_shard(attempt, part, deadline)) for part in parts]
        return joined([task.result() for task in tasks])

    async def _to_shard(self, whole: Attempt, share: Share, deadline: Deadline) -> Outcome:
        attempt = replace(whole.narrowed(share.rows), sent_s=whole.sent_s or self._fanout.clock.mono_s())
        info, shard = attempt.info, share.shard
        ballot = Ballot.of(shard, info.quorums(shard), info.quorums_after(shard))
        tally = Tally(ballot, attempt.batch.rows, attempt.echo, attempt.may_exist or attempt.echo)
        short = self._too_few(attempt, shard, ballot)
        if short is not None:
            return _ended(tally, attempt, shard, short, certain=not tally.may_exist)
        step = await self._send(attempt, shard, tally, deadline)
        if step is Step.DONE:
            return _committed(tally, attempt, shard)
        if step is Step.REFRESH and attempt.versions is not None:
            # Under another map there may be several who decide: that is another way of writing.
            return _ended(tally, attempt, shard, StaleMapError(str(tally.cause())), certain=tally.untouched())
        try:
            following = await self._next_attempt(step, attempt, shard, tally, deadline)
        except OmenDBError as error:
            return _ended(tally, attempt, shard, error, certain=tally.untouched())
        if following is None:
            return _ended(tally, attempt, shard, tally.cause(), certain=tally.untouched())
        if not following.batch.rows:
            return _committed(tally, attempt, shard)
        later = await self.write(following, deadline)
        return _after(_committed(tally, attempt, shard), later, wholly=following.batch.rows == attempt.batch.rows)

    def _too_few(self, attempt: Attempt, shard: Shard, ballot: Ballot) -> OmenDBError | None:
        """Why the write is not even sent, if it cannot reach its quorum (P18)."""
        size = batch_bytes(attempt.batch)
        for _, voters, need in ballot.sides:
            refusals = [self._fanout.refusal(node_id, size) for node_id in sorted(voters)]
            able = sum(refusal is None for refusal in refusals)
            if able >= need:
                continue
            for refusal in refusals:
                if isinstance(refusal, ResourceExhaustedError):
                    return refusal
            return UnavailableError(
                f"{able} of {len(voters)} replicas of shard {shard.shard_id} answer",
                field=attempt.info.name,
                bound=f"at least {need}",
                mend="send it again later, or to another router",
            )
        return None

    async def _send(self, attempt: Attempt, shard: Shard, tally: Tally, deadline: Deadline) -> Step:
        """Send one attempt to every replica; returns when the tally knows what to do."""
        ballot = tally.ballot
        encode = self._fanout.nodes.encoded and len(ballot.targets) > 1
        body = encode_batch(attempt.batch) if encode else None
        ref = ShardRef(attempt.info.schema.uuid, shard.shard_id, shard.epoch, self._stamps.origin)
        call = Apply(ref, attempt.stamp, attempt.batch, body, attempt.create_only, versions=attempt.versions)
        # What is on its way is not called back when enough have answered: the slowest replica wants it too.
        asking: Asking[Applied] = self._fanout.asking("apply", deadline)
        size = batch_bytes(attempt.batch)
        for node_id in ballot.targets:
            asking.start(node_id, lambda _, node: node.apply(call, deadline), size)
        step = Step.WAIT
        while step is Step.WAIT:
            await self._count_reply(asking, tally)
            step = tally.step()
        # Whoever has not answered may have it. A moment more, and one knows what to say if the next attempt fails too.
        moment = Deadline.after(deadline.clock, min(self._settings.hedge_ms / 1e3, deadline.left_s))
        while step in (Step.REFRESH, Step.RESTAMP) and asking.pending and not moment.passed:
            await self._count_reply(asking, tally, moment.left_s)
            step = tally.step()
        return step

    async def _count_reply(self, asking: Asking[Applied], tally: Tally, patience_s: float | None = None) -> None:
        reply = await asking.next(patience_s)
        if isinstance(reply, Heard):
            tally.hear(reply.node_id, reply.answer)
        elif reply is not None:
            tally.lose(reply.node_id, reply.error, sent=reply.sent)

    async def _next_attempt(
        self, step: Step, attempt: Attempt, shard: Shard, tally: Tally, deadline: Deadline
    ) -> Attempt | None:
        """What to send after this attempt; None when that was the last."""
        rows = tally.open_rows()
        again = replace(
            attempt.narrowed(None if len(rows) == tally.rows else rows),
            may_exist=attempt.may_exist or not tally.untouched(),
        )
        settings = self._settings
        self._fanout.counts[step.name.lower()] += 1
        if step is Step.REFRESH and attempt.refreshes < settings.map_refreshes_max:
            if attempt.refreshes:
                await self._pause(attempt.refreshes, deadline)
            again = replace(again, info=await self._maps.newer(attempt.info, deadline), refreshes=attempt.refreshes + 1)
            return await self._homed(again, attempt.info, deadline)
        if step is Step.RESTAMP and attempt.restamps < settings.restamps_max and self._recalled(attempt, tally):
            await self._pause(attempt.restamps, deadline)
            stamp = await self._leases.stamp_above(int(tally.newer[rows].max()), deadline)
            return replace(again, stamp=stamp, restamps=attempt.restamps + 1, sent_s=0.0)
        if step is Step.REPAIR and attempt.repairs < _REPAIRS_MAX:
            states = await self._supply.bring(attempt.info, shard, again.batch.ids, deadline)
            # The points were there when the update began: those that are gone were deleted after it, as it may be told.
            alive = np.flatnonzero(states == State.LIVE)
            return replace(again.narrowed(alive), repairs=attempt.repairs + 1)
        return None

    def _recalled(self, attempt: Attempt, tally: Tally) -> bool:
        """Whether what replicas say of newer versions proves that nobody saw this one before them (P4)."""
        return tally.untouched() or self._fanout.clock.mono_s() - attempt.sent_s < RECALL_S

    async def _homed(self, again: Attempt, before: CollectionInfo, deadline: Deadline) -> Attempt:
        """The attempt with places that hold under its map, where a shard may have been split since they were found."""
        if not again.homed or [s.low for s in again.info.shards] == [s.low for s in before.shards]:
            return again
        if again.batch.op is Op.DELETE:
            return replace(again, hashes=None)  # a tombstone may go to every shard
        return replace(again, hashes=await self._supply.homes(again.info, again.batch.ids, deadline))

    async def _pause(self, before: int, deadline: Deadline) -> None:
        """A moment, longer each time and never the same for two writers in each other's way."""
        mean_s = self._settings.retry_pause_ms / 1e3 * 2**before
        await asyncio.sleep(min(mean_s * 2 * self._dice.random(), deadline.left_s))


def _committed(tally: Tally, attempt: Attempt, shard: Shard) -> Outcome:
    return Outcome(
        Fate.COMMITTED,
        attempt.stamp,
        tally.lsn,
        tally.durability,
        tally.existed,
        tally.overtaken(),
        tally.acked(),
        tally.ballot.required,
        written={shard.shard_id: attempt.stamp},
    )


def _ended(tally: Tally, attempt: Attempt, shard: Shard, cause: OmenDBError, *, certain: bool) -> Outcome:
    """A write that did not commit; ``certain``: no replica has or will have any of it."""
    fate = Fate.NOT_APPLIED if certain else Fate.INDETERMINATE
    return Outcome(
        fate, attempt.stamp, 0, "", 0, 0, tally.acked(), tally.ballot.required, cause, {shard.shard_id: attempt.stamp}
    )


def _after(first: Outcome, later: Outcome, *, wholly: bool) -> Outcome:
    """An attempt and the ones that settled the rows it left open."""
    written = {s: max(first.written.get(s, 0), later.written.get(s, 0)) for s in first.written | later.written}
    fate = later.fate
    if fate is Fate.NOT_APPLIED and not wholly:
        fate = Fate.INDETERMINATE
    return Outcome(
        fate,
        max(first.stamp, later.stamp),
        max(first.lsn, later.lsn),
        weakest(first.durability, later.durability),
        max(first.existed, later.existed),
        first.overtaken + later.overtaken,
        later.acked,
        later.required,
        later.cause,
        written,
    )


__all__ = ["Attempt", "Fate", "Outcome", "Supply", "Writer", "joined"]

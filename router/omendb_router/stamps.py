"""Stamps and automatic ids, within what the origin's lease allows (P1, P22)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.hlc import EPOCH_MS, HybridLogicalClock, stamp_wall_ms
from omendb_common.ids import IdColumn
from omendb_common.metadata import Metadata, OriginLease
from omendb_common.quorum import majority
from omendb_common.shard_calls import MAX_AHEAD_MS
from omendb_router.settings import RouterSettings

_SAMPLE_AGE_S = 30.0
_REFUSE_SHARE = 0.8
_RENEW_SHARE = 0.9
_MS_SHIFT = 22


@dataclass(frozen=True, slots=True)
class _Sample:
    """A node's clock, held against the clock of ours that nobody sets: when it was heard, seconds, and what our wall
    clock must be above that one, milliseconds, to be no more ahead, and no more behind, than is proven."""

    at_s: float
    latest_ms: float
    earliest_ms: float


class ClockCheck:
    """How far this router's clock is off the data nodes', as far as their answers prove it (P22).

    An answer carries the node's clock, which stamps that it has seen push ahead of its wall time by up to
    ``MAX_AHEAD_MS``. So a node's clock *below* ours proves that ours is ahead; one above ours proves that ours is
    behind only beyond that bound. A router that is less behind makes its stamps from the clocks that it observes.

    Answers are held against the monotonic clock: when somebody sets the wall clock, what was heard before that proves
    at once how far off it is now.
    """

    def __init__(self, clock: Clock, offset_ms_max: float) -> None:
        self._clock = clock
        self._bound_ms = offset_ms_max * _REFUSE_SHARE
        self._samples: dict[str, _Sample] = {}

    def note(self, node_id: str, sent_s: float, node_hlc: int) -> None:
        """An answer, just now, to a call that was sent at ``sent_s`` of the monotonic clock."""
        heard_s, node_ms = self._clock.mono_s(), stamp_wall_ms(node_hlc)
        self._samples[node_id] = _Sample(heard_s, node_ms - sent_s * 1e3, node_ms - heard_s * 1e3 - MAX_AHEAD_MS)

    def off_ms(self) -> float:
        """How far off half of the data nodes heard lately prove our clock to be: ahead is positive, 0 is unproven.

        Half is enough: a write whose stamp half of the nodes refuse comes to nothing, but for what the others keep.
        """
        fresh, ours_ms = self._fresh()
        if not fresh:
            return 0.0
        half = (len(fresh) - 1) // 2
        ahead = sorted((ours_ms - s.latest_ms for s in fresh), reverse=True)[half]
        behind = sorted((s.earliest_ms - ours_ms for s in fresh), reverse=True)[half]
        return ahead if ahead > 0 else -max(behind, 0.0)

    def right(self, nodes: int) -> bool:
        """Whether a majority of ``nodes`` data nodes was heard lately whose clocks agree with ours."""
        fresh, ours_ms = self._fresh()
        agree = sum(ours_ms - s.latest_ms <= self._bound_ms and s.earliest_ms <= ours_ms for s in fresh)
        return agree >= majority(nodes)

    def _fresh(self) -> tuple[list[_Sample], float]:
        """What was heard lately, and our wall clock above the one that nobody sets, milliseconds."""
        now_s = self._clock.mono_s()
        fresh = [s for s in self._samples.values() if now_s - s.at_s <= _SAMPLE_AGE_S]
        return fresh, self._clock.wall_ms() - now_s * 1e3

    def check(self) -> None:
        """UnavailableError (outcome none) when the clock is so far off that it must not stamp."""
        off = self.off_ms()
        if off > self._bound_ms or off < 0:
            beyond = f"{off:.0f} ms ahead of" if off > 0 else f"at least {MAX_AHEAD_MS - off:.0f} ms behind"
            raise UnavailableError(
                f"this router's clock is {beyond} half of the data nodes or more",
                field="clock",
                bound=f"at most {self._bound_ms:.0f} ms",
                mend="synchronise the clocks; another router may take the write",
            )


class Stamps:
    """Makes stamps and automatic ids of one leased origin. One event loop owns it."""

    def __init__(self, clock: Clock, settings: RouterSettings) -> None:
        self._clock = clock
        self._hlc = HybridLogicalClock(clock)
        self._lease: OriginLease | None = None
        self._ahead_ms = settings.lease_ahead_ms
        self._next_id = self._ids_stop = 0

    @property
    def origin(self) -> int:
        """The leased origin; 0 before there is a lease."""
        return 0 if self._lease is None else self._lease.origin

    @property
    def now(self) -> int:
        """Where the next stamp would start: at least the wall clock, at least every stamp seen."""
        return max(self._hlc.last, max(self._clock.wall_ms() - EPOCH_MS, 0) << _MS_SHIFT)

    def take(self, lease: OriginLease) -> None:
        """Stamp under this lease from now on; stamps go on growing."""
        if self._lease is None or lease.origin != self._lease.origin:
            last = max(self._hlc.last, lease.stamp_above)
            self._hlc = HybridLogicalClock(self._clock, origin=lease.origin, last=last)
        # A renewal of the same origin only moves the bound: nobody else was given a stamp between the old and the new.
        if self._lease is None or lease.auto_ids != self._lease.auto_ids:
            self._next_id, self._ids_stop = lease.auto_ids
        self._lease = lease

    def left_ms(self) -> float:
        """Milliseconds of stamps that the lease has left; negative when it is used up."""
        return -1.0 if self._lease is None else float((self._lease.stamp_bound - self.now) >> _MS_SHIFT)

    @property
    def wants_renewal(self) -> bool:
        """Whether the lease should be renewed in good time."""
        return self.left_ms() < _RENEW_SHARE * self._ahead_ms

    @property
    def wanted(self) -> int:
        """From where on to ask for stamps: at first from now, so that none is given out twice; then from far ahead."""
        in_force = self._lease is not None and self.now < self._lease.stamp_bound
        return self.now + (int(self._ahead_ms) << _MS_SHIFT) if in_force else self.now

    def begins_later(self, lease: OriginLease) -> bool:
        """Whether a lease is no renewal of the one in hand, and allows no stamps yet."""
        return self._lease is not None and lease.origin != self._lease.origin and lease.stamp_above > self.now

    def observe(self, stamp: int) -> None:
        """Make later stamps greater, unless ``stamp`` is so far ahead that no data node would take one above it."""
        if stamp_wall_ms(stamp) <= self._clock.wall_ms() + MAX_AHEAD_MS:
            self._hlc.observe(stamp)

    def tick(self) -> int | None:
        """A stamp above every one made and observed; None when the lease has none left."""
        if self._lease is None or self.now >= self._lease.stamp_bound:
            return None
        stamp = self._hlc.tick()
        return stamp if stamp <= self._lease.stamp_bound else None

    def draw_ids(self, n: int) -> IdColumn | None:
        """``n`` automatic ids; None when the lease has not so many left."""
        if self._ids_stop - self._next_id < n:
            return None
        first, self._next_id = self._next_id, self._next_id + n
        return IdColumn(np.arange(first, first + n, dtype=np.uint64), None)


class Leases:
    """Keeps the origin's lease: renewed behind the writes, and at once when a write finds it used up."""

    def __init__(
        self,
        metadata: Metadata,
        stamps: Stamps,
        holder: str,
        clock: Clock,
        own: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._metadata = metadata
        self._stamps = stamps
        self._holder = self._first_name = holder
        self._names = 0
        self._clock = clock
        self._own = own
        self._renewing: asyncio.Task[None] | None = None
        self._tried_s = float("-inf")

    async def renew(self, deadline: Deadline) -> None:
        """Lease, or renew, now."""
        lease = await self._metadata.lease_origin(self._holder, self._stamps.wanted, deadline)
        if self._stamps.begins_later(lease):
            # The coordinators do not know the lease in hand: they were restored from a copy. What they took for a new
            # holder begins where the renewal was to end, so it is asked for by another name, from now on.
            self._names += 1
            self._holder = f"{self._first_name}+{self._names}"
            lease = await self._metadata.lease_origin(self._holder, self._stamps.now, deadline)
        self._stamps.take(lease)

    async def stamp(self, deadline: Deadline) -> int:
        """A fresh stamp; UnavailableError (outcome none) when no lease can be had in time."""
        stamp = self._stamps.tick()
        if self._stamps.wants_renewal:
            self._start_renewal()
        if stamp is not None:
            return stamp
        await self._renewed(deadline)
        stamp = self._stamps.tick()
        if stamp is None:
            raise UnavailableError(
                "this router has no stamps left under its lease",
                field="lease",
                mend="send it again, here or to another router",
            )
        return stamp

    async def stamp_above(self, newer: int, deadline: Deadline) -> int:
        """A fresh stamp above ``newer``, which a replica holds (P4)."""
        self._stamps.observe(newer)
        stamp = await self.stamp(deadline)
        if stamp <= newer:
            raise UnavailableError(
                f"a stored stamp is {stamp_wall_ms(newer) - self._clock.wall_ms()} ms ahead of this router's clock",
                field="clock",
                bound=f"at most {MAX_AHEAD_MS} ms",
                mend="synchronise the clocks",
            )
        return stamp

    async def ids(self, n: int, deadline: Deadline) -> IdColumn:
        """Automatic ids."""
        drawn = self._stamps.draw_ids(n)
        if drawn is None:
            await self._renewed(deadline)
            drawn = self._stamps.draw_ids(n)
        if drawn is None:
            raise ResourceExhaustedError(
                f"{n} automatic ids are more than this router has left", field="ids", mend="give ids", retry_after=1.0
            )
        return drawn

    def renew_in_time(self) -> None:
        """Begin to renew the lease if little is left of it."""
        if self._stamps.wants_renewal:
            self._start_renewal()

    async def _renewed(self, deadline: Deadline) -> None:
        self._tried_s = float("-inf")
        self._start_renewal()
        if self._renewing is not None:
            await asyncio.wait([self._renewing], timeout=deadline.left_s)

    def _start_renewal(self) -> None:
        now = self._clock.mono_s()
        if (self._renewing is not None and not self._renewing.done()) or now - self._tried_s < 0.5:
            return
        self._tried_s = now
        self._renewing = asyncio.get_running_loop().create_task(self._renew_quietly())
        self._own(self._renewing)

    async def _renew_quietly(self) -> None:
        try:
            await self.renew(Deadline.after(self._clock, 5.0))
        except OmenDBError:
            # The lease in hand may have stamps left; when it has not, the write that needs one says so.
            return


__all__ = ["ClockCheck", "Leases", "Stamps"]

"""Damage at rest is found before somebody needs what is damaged, and the replica is made anew from its peers.

Every replica's segments are read again now and then, slowly, and at once when a call met damage. A replica that is
damaged, or an old copy, answers nothing; its node says so to the coordinators, who have another one made in its place,
as long as the others hold everything that was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import CorruptionError, DeadlineExceededError, OmenDBError, UnavailableError
from omendb_common.shard_calls import ShardRef
from omendb_common.topology import Shard
from omendb_common.wire.unending import Unending
from omendb_datanode.config import RepairSettings
from omendb_datanode.hosting import OpenShard
from omendb_datanode.node_folder import ReplicaKey
from omendb_datanode.replicate.pace import Pace
from omendb_engine.replica import Replica
from omendb_engine.scrub import Scrub

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_PIECE_S = 600.0
"""Time for one piece: comparisons of replicas go before it."""
_TELL_AGAIN_S = 10.0

Ruined = tuple[ReplicaKey, Shard, OmenDBError]


class Scrubber:
    """Looks for damage in the replicas of one node. Belongs to one event loop.

    Args:
        opened: the open replicas.
        ruined: those that are damaged for good.
        step: has a thread read the next piece; its bytes, None at the end.
        condemn: has a replica answer nothing any more.
        lose: tells the coordinators that the replica of a shard, under the epoch of its map, is damaged.
        pressed: whether the node has more urgent things to do.
    """

    def __init__(
        self,
        clock: Clock,
        settings: RepairSettings,
        *,
        opened: Callable[[], Sequence[OpenShard]],
        ruined: Callable[[], Sequence[Ruined]],
        step: Callable[[Scrub, Deadline], Awaitable[int | None]],
        condemn: Callable[[OpenShard, CorruptionError], Awaitable[None]],
        lose: Callable[[ReplicaKey, Shard], Awaitable[None]],
        pressed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._opened = opened
        self._ruined = ruined
        self._step = step
        self._condemn = condemn
        self._lose = lose
        self._pressed = pressed
        self._pace = self._paced(settings.scrub_bytes_per_s)
        self._due_s: dict[Replica, float] = {}
        self._read_at_s: dict[Replica, float] = {}
        self._suspects: set[Replica] = set()
        self._told_s: dict[ReplicaKey, float] = {}
        self._wake = asyncio.Event()
        self._asked = asyncio.Lock()
        self._work: list[Unending] = []
        self.scrubs = 0
        self.bytes_read = 0
        self.damaged = 0

    def start(self) -> None:
        """Begin; the replicas are open."""
        # Apart: what is damaged must not wait for hours until all that is sound has been read.
        self._work = [Unending(self._run, "damage"), Unending(self._run_turns, "scrub")]

    async def stop(self) -> None:
        """End what is under way."""
        while self._work:
            await self._work.pop().stop()

    def suspect(self, shard: ShardRef) -> None:
        """A call met damage: look at the whole replica now."""
        for opened in self._opened():
            if opened.key.shard == (shard.collection_uuid, shard.shard_id):
                self._suspects.add(opened.hosted.replica)
                self._wake.set()

    async def on_request(self, shard: ShardRef, deadline: Deadline, bytes_per_s: int = 0) -> dict[str, Any]:
        """Read the replica of a shard now, one request after the other so that together they keep to the rate.

        Args:
            bytes_per_s: the rate; 0: that of the settings.

        Returns: ``bytes`` that were read, and what is damaged: ``damage``, with ``path``, ``offset``, ``problem``.

        Raises:
            UnavailableError: the shard has no open replica here.
            DeadlineExceededError: it takes longer.
            OmenDBError, OSError: the disk could not be read.
        """
        try:
            async with asyncio.timeout(deadline.left_s), self._asked:
                pace = self._paced(bytes_per_s) if bytes_per_s else self._pace
                return await self._on_request(shard, deadline, pace)
        except TimeoutError:
            raise DeadlineExceededError(
                "the deadline passed while files were read", field="timeout", mend="allow more time"
            ) from None

    def _paced(self, bytes_per_s: int) -> Pace:
        return Pace(self._clock, self._settings, self._pressed, bytes_per_s=bytes_per_s)

    def oldest_s(self) -> float:
        """How long ago the replica was read whole, or opened, for which that is the longest; 0 where there is none."""
        now_s, known = self._clock.mono_s(), self._read_at_s
        self._read_at_s = {one.hosted.replica: known.get(one.hosted.replica, now_s) for one in self._sound()}
        return now_s - min(self._read_at_s.values(), default=now_s)

    async def _on_request(self, shard: ShardRef, deadline: Deadline, pace: Pace) -> dict[str, Any]:
        for opened in self._opened():
            if opened.key.shard == (shard.collection_uuid, shard.shard_id):
                size, problems = await self._read(opened, pace, deadline)
                damage = [{"path": p.path, "offset": p.offset, "problem": str(p)} for p in problems]
                return {"bytes": size, "damage": damage}
        raise UnavailableError("no replica of the shard is open here", field="shard", mend="look at the newest map")

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self.look()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _run_turns(self) -> None:
        while True:
            await self.turn()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Read the replicas of which a call met damage, and tell of those that are ruined."""
        suspects, self._suspects = self._suspects, set()
        for one in self._sound():
            if one.hosted.replica in suspects:
                await self._try(one, None)
        await self._tell()

    async def turn(self) -> None:
        """Read the replicas whose turn it is, one after the other, at the rate."""
        now_s = self._clock.mono_s()
        opened = self._sound()
        self._due_s = {
            one.hosted.replica: self._due_s.get(one.hosted.replica, now_s + self._settings.scrub_s) for one in opened
        }
        for one in opened:
            if self._due_s[one.hosted.replica] <= self._clock.mono_s():
                self._due_s[one.hosted.replica] = self._clock.mono_s() + self._settings.scrub_s
                await self._try(one, self._pace)

    def _sound(self) -> list[OpenShard]:
        return [one for one in self._opened() if not one.hosted.replica.closed and not one.hosted.replica.failed]

    async def _try(self, opened: OpenShard, pace: Pace | None) -> None:
        try:
            await self._read(opened, pace)
        except (OmenDBError, OSError) as error:  # closed meanwhile, or the disk does not answer: tried again
            _log.warning("reading %s again: %s", opened.key.name, error)

    async def _read(
        self, opened: OpenShard, pace: Pace | None, deadline: Deadline | None = None
    ) -> tuple[int, Sequence[CorruptionError]]:
        """Read a replica, as fast as it goes without a ``pace``; its bytes, and what is damaged, which condemns it."""
        scrub = Scrub(opened.hosted.replica)
        try:
            size = await self._read_pieces(scrub, pace, deadline)
        except BaseException:
            # Whoever asked waits no more, or the disk does not answer: what was found until then must not be forgotten.
            if scrub.found:
                self._suspects.add(opened.hosted.replica)
            raise
        problems = scrub.found
        self.scrubs += 1
        self._read_at_s[opened.hosted.replica] = self._clock.mono_s()
        if problems:
            self.damaged += 1
            for problem in problems[1:]:
                _log.error("replica %s: %s", opened.key.name, problem)
            await self._condemn(opened, problems[0])
            self._wake.set()
        return size, problems

    async def _read_pieces(self, scrub: Scrub, pace: Pace | None, deadline: Deadline | None) -> int:
        total = 0
        while (size := await self._step(scrub, deadline or Deadline.after(self._clock, _PIECE_S))) is not None:
            total += size
            self.bytes_read += size
            # A replica that is damaged serves until all that is to be told of it is known.
            if pace is not None and not scrub.found:
                await pace.spend(size)
        return total

    async def _tell(self) -> None:
        """Tell of ruined replicas, again and again: another map may allow what the present one does not."""
        now_s = self._clock.mono_s()
        ruined = self._ruined()
        self._told_s = {key: self._told_s[key] for key, _, _ in ruined if key in self._told_s}
        for key, shard, _ in ruined:
            if now_s - self._told_s.get(key, now_s - _TELL_AGAIN_S) < _TELL_AGAIN_S:
                continue
            self._told_s[key] = now_s
            try:
                await self._lose(key, shard)
            except OmenDBError as error:
                _log.warning("replica %s is damaged, and not made anew: %s", key.name, error)


__all__ = ["Scrubber"]

"""Damage at rest is found before somebody needs what is damaged, and the replica is made anew from its peers.

Every replica's segments are read again now and then, and at once when a call met damage. A replica that is damaged, or
an old copy, answers nothing; its node says so to the coordinators, who have another one made in its place, as long as
the others hold everything that was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from omendb_common.clock import Clock
from omendb_common.errors import CorruptionError, OmenDBError, UnavailableError
from omendb_common.shard_calls import ShardRef
from omendb_common.topology import Shard
from omendb_common.wire.unending import Unending
from omendb_datanode.config import RepairSettings
from omendb_datanode.hosting import OpenShard
from omendb_datanode.node_folder import ReplicaKey
from omendb_engine.replica import Replica

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_TELL_AGAIN_S = 10.0

Ruined = tuple[ReplicaKey, Shard, OmenDBError]


class Scrubber:
    """Looks for damage in the replicas of one node. Belongs to one event loop.

    Args:
        opened: the open replicas.
        ruined: those that are damaged for good.
        scrub: reads all of a replica; what is damaged.
        condemn: has a replica answer nothing any more.
        lose: tells the coordinators that the replica of a shard, under the epoch of its map, is damaged.
    """

    def __init__(
        self,
        clock: Clock,
        settings: RepairSettings,
        *,
        opened: Callable[[], Sequence[OpenShard]],
        ruined: Callable[[], Sequence[Ruined]],
        scrub: Callable[[Replica], Awaitable[Sequence[CorruptionError]]],
        condemn: Callable[[OpenShard, CorruptionError], Awaitable[None]],
        lose: Callable[[ReplicaKey, Shard], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._opened = opened
        self._ruined = ruined
        self._scrub = scrub
        self._condemn = condemn
        self._lose = lose
        self._due_s: dict[Replica, float] = {}
        self._told_s: dict[ReplicaKey, float] = {}
        self._wake = asyncio.Event()
        self._work: Unending | None = None
        self.scrubs = 0
        self.damaged = 0

    def start(self) -> None:
        """Begin; the replicas are open."""
        self._work = Unending(self._run, "scrub")

    async def stop(self) -> None:
        """End what is under way."""
        if self._work is not None:
            await self._work.stop()
            self._work = None

    def suspect(self, shard: ShardRef) -> None:
        """A call met damage: look at the whole replica now."""
        for opened in self._opened():
            if opened.key.shard == (shard.collection_uuid, shard.shard_id):
                self._due_s[opened.hosted.replica] = 0.0
                self._wake.set()

    async def on_request(self, shard: ShardRef) -> dict[str, Any]:
        """Read the replica of a shard now, and say what is damaged: ``damage``, with ``path``, ``offset``, ``problem``.

        Raises:
            UnavailableError: the shard has no open replica here.
            OmenDBError, OSError: the disk could not be read.
        """
        for opened in self._opened():
            if opened.key.shard == (shard.collection_uuid, shard.shard_id):
                problems = await self._read(opened)
                return {"damage": [{"path": p.path, "offset": p.offset, "problem": str(p)} for p in problems]}
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

    async def look(self) -> None:
        """Read the replicas whose turn it is, one after the other, and tell of those that are ruined."""
        now_s = self._clock.mono_s()
        opened = [one for one in self._opened() if not one.hosted.replica.closed and not one.hosted.replica.failed]
        self._due_s = {
            one.hosted.replica: self._due_s.get(one.hosted.replica, now_s + self._settings.scrub_s) for one in opened
        }
        for one in opened:
            if self._due_s[one.hosted.replica] <= self._clock.mono_s():
                self._due_s[one.hosted.replica] = self._clock.mono_s() + self._settings.scrub_s
                try:
                    await self._read(one)
                except (OmenDBError, OSError) as error:  # closed meanwhile, or the disk does not answer: tried again
                    _log.warning("reading %s again: %s", one.key.name, error)
        await self._tell()

    async def _read(self, opened: OpenShard) -> Sequence[CorruptionError]:
        problems = await self._scrub(opened.hosted.replica)
        self.scrubs += 1
        if problems:
            self.damaged += 1
            for problem in problems[1:]:
                _log.error("replica %s: %s", opened.key.name, problem)
            await self._condemn(opened, problems[0])
            self._wake.set()
        return problems

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

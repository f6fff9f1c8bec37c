"""The replicas that a node holds, brought into line with every newer map: made, opened, fenced, let go.

One task works through the maps; opening and closing happens in threads of its own, so that neither calls nor heartbeats
wait for a recovery. A replica counts the map as soon as it is in force for that replica. No map waits for what an older
one let go: closing a replica may have to wait for a step of its index build, while a new collection is written to.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

from omendb_common.clock import Clock
from omendb_common.config import EngineSettings
from omendb_common.deadline import Deadline
from omendb_common.disk import Disk
from omendb_common.errors import (
    CorruptionError,
    DeadlineExceededError,
    FormatVersionError,
    NotFoundError,
    OmenDBError,
    UnavailableError,
)
from omendb_common.feature_level import CURRENT
from omendb_common.metadata import TopologySource
from omendb_common.shard_calls import ShardRef
from omendb_common.topology import SERVED, CollectionInfo, Shard, Topology
from omendb_datanode.halves import Halves
from omendb_datanode.hosted import Hosted
from omendb_datanode.node_folder import (
    HELD_FORMAT,
    Held,
    ReplicaKey,
    clear_leftovers,
    discard,
    read_held,
    replica_path,
    write_held,
)
from omendb_datanode.successors import Joint, Successors, successors_of
from omendb_engine.ballast import SpaceLevel
from omendb_engine.disk_errors import disk_error
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from omendb_engine.workers import Workers

_log = logging.getLogger(__name__)

RETRY_S = 5.0
_COMPLETE_TRIES = 3
_KEPT = "kept, and not served: the catalog was restored from a copy that does not name it"
_BUFFER_BYTES_MIN = 1 << 20
_WELL = "open", "opening"
_SPACE: dict[SpaceLevel, str] = {
    "full": "the volume is full: only deletes and reads are taken",
    "high": "the volume is nearly full: points are updated and deleted, and no new ones taken",
}

T = TypeVar("T")
_FAULTS = (MemoryError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


async def _nothing_waits(replica: Replica) -> None:
    """Writes end where they are called."""


@dataclass(slots=True)
class _Place:
    """One replica of this node: open, or why it is not; neither while it is opened for the first time.

    With both, it is open under an older map, since the newest could not be put in force for it.
    ``waiting``: it will take the place of a shard that splits, or of two that merge. Nobody is answered by it.
    """

    shard: Shard
    hosted: Hosted | None = None
    error: OmenDBError | None = None
    waiting: bool = False

    @property
    def hopeless(self) -> bool:
        """Whether opening it again would change nothing."""
        return self.hosted is None and isinstance(self.error, (CorruptionError, FormatVersionError))

    @property
    def in_line(self) -> bool:
        """Whether the newest map is in force for it."""
        return self.hosted is not None and self.error is None


class OpenShard(NamedTuple):
    """An open replica, and its shard as the map in force for it has it."""

    key: ReplicaKey
    shard: Shard
    hosted: Hosted

    @property
    def ref(self) -> ShardRef:
        """How this node names the shard to others."""
        return ShardRef(self.key.collection_uuid, self.key.shard_id, self.shard.epoch, 0)


class Hosting:
    """The :class:`~omendb_datanode.hosted.Replicas` of a node that follows the coordinators' map.

    Made and used on one event loop. The folder must be locked by whoever makes this.

    Args:
        source: the map, and how to get a newer one.
        opened: told, on the event loop, of the newest stamp of every replica that was opened.
        drained: waits until the writes that were let into a replica before have ended.
        level: the feature level that the process speaks.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        node_id: str,
        source: TopologySource,
        settings: EngineSettings,
        clock: Clock,
        *,
        opened: Callable[[int], None] = lambda stamp: None,
        drained: Callable[[Replica], Awaitable[None]] = _nothing_waits,
        retry_s: float = RETRY_S,
        level: int = CURRENT,
    ) -> None:
        self.resources = Resources(settings)
        self._disk = disk
        self._folder = folder
        self._node_id = node_id
        self._source = source
        self._settings = settings
        self._clock = clock
        self._opened = opened
        self._drained = drained
        self._retry_s = retry_s
        self._level = level
        self._places: dict[ReplicaKey, _Place] = {}
        self._serving: dict[tuple[str, int], _Place] = {}
        self._held = Held()
        self._held_lock = threading.Lock()
        self._revision = 0
        self._newer = asyncio.Event()
        self._in_force = asyncio.Condition()
        self._making = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._files = ThreadPoolExecutor(2, "omendb-host")
        self._closers = ThreadPoolExecutor(2, "omendb-close")
        # By the replica's name: what closes it, and removes it if it is to go.
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._prepare = ThreadPoolExecutor(2, "omendb-wal") if settings.workers.background_threads else None
        self._workers = Workers(self.replicas, settings)

    # -- life

    async def start(self) -> None:
        """Open what the map says, and go on following it; returns when the first map is in force.

        Raises:
            CorruptionError: the folder does not say what it holds.
        """
        self._held = await self._in_thread(self._begin)
        self._source.on_change(lambda _: self._newer.set())
        self._workers.start()
        await self._follow(self._source.topology)
        self._task = asyncio.create_task(self._keep_following(), name="hosting")

    def _begin(self) -> Held:
        held = read_held(self._disk, self._folder, min(self._level, HELD_FORMAT))
        clear_leftovers(self._disk, self._folder, held)
        return held

    async def stop(self) -> None:
        """Close every replica in good order; calls that are under way should have ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*set(self._endings.values()), return_exceptions=True)
        replicas = self.replicas()
        self._places, self._serving = {}, {}
        await self._in_thread(lambda: self._close_all(replicas))
        self._files.shutdown()
        self._closers.shutdown()
        if self._prepare is not None:
            self._prepare.shutdown()

    def _close_all(self, replicas: Sequence[Replica]) -> None:
        for replica in replicas:
            replica.maintenance.cancel()
        self._workers.stop()
        for replica in replicas:
            _close(replica)

    # -- what the rules ask

    @property
    def revision(self) -> int:
        """The revision of the map in force: every replica it gives to this node was opened, or failed to."""
        return self._revision

    def find(self, shard: ShardRef) -> Hosted | None:
        """The replica, None when the map in force gives this node none; raises what keeps it from being used."""
        place = self._serving.get((shard.collection_uuid, shard.shard_id))
        if place is None:
            return None
        if place.hosted is None and place.error is not None:
            raise place.error
        return place.hosted

    async def refresh(self, revision: int, deadline: Deadline) -> None:
        """Wait until a map of at least ``revision`` is in force; returns at the deadline at the latest."""
        if self._revision >= revision:
            return
        try:
            async with asyncio.timeout(deadline.left_s):
                await self._source.refresh(revision, deadline)
                self._newer.set()
                async with self._in_force:
                    await self._in_force.wait_for(lambda: self._revision >= revision)
        except (TimeoutError, DeadlineExceededError, UnavailableError) as error:
            _log.info("no map of revision %d: %s", revision, error)

    def replicas(self) -> list[Replica]:
        """The open replicas; any thread may ask."""
        return [p.hosted.replica for p in list(self._places.values()) if p.hosted is not None]

    def opened(self) -> list[OpenShard]:
        """The open replicas with the map that each stands in."""
        places = self._places.items()
        return [OpenShard(key, p.shard, p.hosted) for key, p in places if p.hosted is not None and not p.waiting]

    def ruined(self) -> list[tuple[ReplicaKey, Shard, OmenDBError]]:
        """Replicas of this node that are damaged for good, or old copies: only another one in their place helps."""
        places = self._places.items()
        return [
            (key, p.shard, p.error)
            for key, p in places
            if p.hosted is None and isinstance(p.error, CorruptionError) and not p.waiting
        ]

    async def condemn(self, opened: OpenShard, error: CorruptionError) -> None:
        """Have an open replica that was found damaged answer nothing any more."""
        place = self._places.get(opened.key)
        if place is None or place.hosted is not opened.hosted:
            return  # let go, or opened anew
        _log.error("replica %s: %s", opened.key.name, error)
        place.hosted, place.error = None, error
        await self._in_thread(lambda: _close(opened.hosted.replica))

    def check(self) -> None:
        """Raise what ended the following of the map, if anything did: a node without it serves an old one for ever."""
        if self._task is not None and self._task.done():
            self._task.result()

    def failed(self) -> list[str]:
        """Paths of the replicas that a failed write or sync has stopped."""
        return [replica.path for replica in self.replicas() if replica.failed]

    def report(self) -> dict[str, str]:
        """Every replica of this node by name: ``open``, ``failed``, or what keeps it from being used."""
        return {key.name: _state(place) for key, place in sorted(self._places.items())}

    def problems(self) -> list[str]:
        """What an operator should know: a volume that refuses writes, and replicas that do not serve."""
        told = []
        try:
            levels = {replica.space_level for replica in self.replicas()}
        except OSError as error:
            told.append(f"the volume cannot be asked for its space: {error}")
        else:
            told += [what for level, what in _SPACE.items() if level in levels][:1]
        told += [f"replica {name}: {state}" for name, state in self.report().items() if state not in _WELL]
        return told + [f"replica {name}: {_KEPT}" for name in sorted(self._held.kept)]

    # -- following

    async def _keep_following(self) -> None:
        while True:
            again = any(map(_unfinished, self._places.values()))
            pause = self._retry_s if again else None
            try:
                async with asyncio.timeout(pause):
                    await self._newer.wait()
            except TimeoutError:
                pass
            self._newer.clear()
            await self._follow(self._source.topology)

    async def _follow(self, topology: Topology) -> None:
        """Bring the replicas into line with a map."""
        if topology.revision < max(self._revision, self._held.revision):
            # A group of coordinators that forgot something must not make this node delete what they forgot.
            if topology.revision < self._held.revision:
                _log.error("map %d is older than %d, on which was acted", topology.revision, self._held.revision)
            return
        wanted = {
            ReplicaKey(info.schema.uuid, shard.shard_id, place.session): (info, shard, place.state)
            for info in topology.collections.values()
            for shard in info.shards
            for place in shard.replicas
            if place.node_id == self._node_id
        }
        names = {key.name for key in wanted} | {
            heir.name for key, (_, shard, _) in wanted.items() for heir in successors_of(key.collection_uuid, shard)
        }
        if topology.restored > self._held.restored:
            await self._in_thread(partial(self._keep, names, topology))
        served = {key: (info, shard) for key, (info, shard, state) in wanted.items() if state in SERVED}
        heirs = {heir for key, (_, shard) in served.items() for heir in successors_of(key.collection_uuid, shard)}
        await self._end_followers(served)
        kept = served.keys() | heirs
        self._let_go(
            [key for key in self._places if key not in kept],
            names | {heir.name for heir in heirs},
            topology.revision,
        )
        await asyncio.gather(*(self._bring(key, *found, topology.revision) for key, found in served.items()))
        self._revision = topology.revision
        async with self._in_force:
            self._in_force.notify_all()

    async def _bring(self, key: ReplicaKey, info: CollectionInfo, shard: Shard, revision: int) -> None:
        """Open a replica that is not, else put a newer map of its shard in force for it."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._serving[key.shard] = _Place(shard)
        elif place.waiting:
            await self._raise_waiting(key, place, shard)
        if key.name in self._endings:  # let go under an older map, and given back
            await asyncio.wait((self._endings[key.name],))
        try:
            if place.hosted is not None:
                if place.shard != shard or place.error is not None:
                    _check_members(key, place.hosted.replica, info, shard)
                    await self._advance(place, place.hosted, shard)
                    place.error = None
                await self._attach(key, place.hosted, info, shard, revision)
                return
            if place.hopeless:
                place.shard = shard
                return
            hosted = await self._hosted(key, info, shard, revision, aged=True)
            try:
                await self._attach(key, hosted, info, shard, revision, opened=True)
            except BaseException:
                await self._in_thread(lambda: _close(hosted.replica))
                raise
            place.hosted, place.shard, place.error = hosted, shard, None
        except OmenDBError as error:
            _log.error("replica %s: %s", key.name, error)
            place.error = error
        except _FAULTS as error:  # of one replica; the others serve
            _log.error("replica %s", key.name, exc_info=error)
            place.error = UnavailableError(f"the replica cannot be opened: {type(error).__name__}", field=key.name)

    def _check_age(self, key: ReplicaKey, replica: Replica, shard: Shard) -> None:
        """Refuse an old copy: it may hold points of which all others have forgotten the deletion (P13).

        Every active replica notes up to when all were equal before the floor rises to anywhere near.
        """
        state = next(place.state for place in shard.replicas if place.node_id == self._node_id)
        repaired = replica.maintenance.repaired_through
        if state == "joining" or shard.gc_floor <= repaired:
            return
        raise CorruptionError(
            f"an old copy: last equal to the others at {repaired}, and deletions up to {shard.gc_floor} are forgotten",
            path=replica_path(self._folder, key.name),
            mend="have it made anew from the others",
        )

    async def _hosted(
        self, key: ReplicaKey, info: CollectionInfo, shard: Shard, revision: int, *, aged: bool = False
    ) -> Hosted:
        """A replica, opened or made, with its floors; ``aged``: of which it counts how old it is."""
        replica = await self._in_thread(lambda: self._open(key, info, revision))
        try:
            if aged:
                self._check_age(key, replica, shard)
                _check_members(key, replica, info, shard)
            await self._floors(replica, shard)
        except BaseException:
            await self._in_thread(lambda: _close(replica))  # to be opened again, and tried again
            raise
        self._opened(replica.last_stamp)
        return Hosted(*(replica, shard.epoch, replica.maintenance.fence_epoch), partition_key=info.partition_key)

    # -- splits and merges

    async def _attach(
        self,
        key: ReplicaKey,
        hosted: Hosted,
        info: CollectionInfo,
        shard: Shard,
        revision: int,
        *,
        opened: bool = False,
    ) -> None:
        """Have its successors follow a replica whose shard splits or merges, before anything else is written into it.

        A node may have said that they are whole as soon as they were made. So a replica that was ``opened`` just now
        is not served without them; one that serves already has said nothing since it was opened.
        """
        keys = successors_of(key.collection_uuid, shard)
        if not keys or hosted.follower is not None:
            return
        made = any(heir.name in self._held.names for heir in keys)
        try:
            beside = tuple([await self._beside(heir, info, shard, revision) for heir in keys])
        except OmenDBError as error:
            if opened and made:
                # Not that error itself: there may be nothing wrong with the replica, and the split may be given up.
                raise UnavailableError(f"what follows it cannot be opened: {error}", field=key.name) from error
            _log.error("what follows %s: %s", key.name, error)
            return
        hosted.follower = _follower(hosted.replica, beside, info, shard)
        # What was let in before is not followed: it is there when the copying begins.
        await self._drained(hosted.replica)

    async def _beside(self, key: ReplicaKey, info: CollectionInfo, shard: Shard, revision: int) -> Replica:
        """A successor, made or opened: one at a time, since two shards that merge ask for the same."""
        async with self._making:
            return await self._made(key, info, shard, revision)

    async def _made(self, key: ReplicaKey, info: CollectionInfo, shard: Shard, revision: int) -> Replica:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(shard, waiting=True)
        if key.name in self._endings:
            await asyncio.wait((self._endings[key.name],))
        if place.hosted is None:
            try:
                # Whom its fence keeps out is decided when it takes its place.
                begun = replace(shard, fence=0)
                if shard.merge is not None:
                    begun = replace(begun, gc_floor=shard.merge.gc_floor)
                place.hosted, place.error = await self._hosted(key, info, begun, revision), None
            except OmenDBError as error:
                place.error = error
                raise
        return place.hosted.replica

    async def _raise_waiting(self, key: ReplicaKey, place: _Place, shard: Shard) -> None:
        """Let a successor take its place: it has everything, and its fence is on disk before anybody finds it."""
        hosted = place.hosted
        try:
            if hosted is not None:
                await self._floors(hosted.replica, shard)
                hosted.fence, hosted.epoch = hosted.replica.maintenance.fence_epoch, shard.epoch
        except OmenDBError as error:
            _log.error("replica %s: %s", key.name, error)
            place.error = error
            if hosted is not None:
                place.hosted = None
                await self._in_thread(partial(_close, hosted.replica))
        place.shard, place.waiting = shard, False
        self._serving[key.shard] = place

    async def _end_followers(self, served: Mapping[ReplicaKey, tuple[CollectionInfo, Shard]]) -> None:
        """End what follows a replica whose shard splits or merges no more, when the last write has been followed.

        Where others take its place nobody finds the replica from here on: what they have then is everything.
        """
        for key, place in list(self._places.items()):
            hosted = place.hosted
            if hosted is None or not isinstance(hosted.follower, Successors):
                continue
            follower, now = hosted.follower, served.get(key)
            if now is not None and now[1].recut is not None and now[1].recut.session == follower.session:
                continue
            if now is not None:
                hosted.follower = None
                await self._drained(hosted.replica)
                continue
            if self._serving.get(key.shard) is place:
                del self._serving[key.shard]
            await self._drained(hosted.replica)
            keys = successors_of(key.collection_uuid, place.shard)
            if not follower.complete and any(heir in served for heir in keys):
                await self._complete(follower, keys)

    async def _complete(self, follower: Successors, keys: Sequence[ReplicaKey]) -> None:
        """Copy what could not be followed, or what a node that was started anew has not looked at again.

        Successors that cannot be made whole hold less than was acknowledged: their files go and their names stay, so
        that they answer nothing for good, and never "absent" (P16).
        """
        for left in reversed(range(_COMPLETE_TRIES)):
            try:
                await self._in_thread(follower.copy_all)
                return
            except OmenDBError as error:
                _log.error("completing what follows %s: %s", follower.whole.path, error)
                if left:
                    await asyncio.sleep(self._retry_s)
        for key in keys:
            place = self._places.get(key)
            if place is not None and place.hosted is not None:
                replica, place.hosted, place.error = place.hosted.replica, None, _lost(key.name)
                await self._in_thread(partial(self._spoil, replica, key.name))

    def _spoil(self, replica: Replica, name: str) -> None:
        _close(replica)
        discard(self._disk, self._folder, name)

    async def _advance(self, place: _Place, hosted: Hosted, shard: Shard) -> None:
        await self._floors(hosted.replica, shard)
        fence, hosted.fence = hosted.fence, hosted.replica.maintenance.fence_epoch
        if hosted.fence > fence:
            # Who asks under this map must find every write that was let in under one before the fence.
            await self._drained(hosted.replica)
        hosted.epoch = max(hosted.epoch, shard.epoch)
        place.shard = shard

    async def _floors(self, replica: Replica, shard: Shard) -> None:
        """Have the fence and the floor on stable storage, before anything is answered under this map.

        A router that still counts other replicas must not have its write counted here (P15).
        """
        known = replica.maintenance
        if shard.fence > known.fence_epoch or shard.gc_floor > known.gc_floor:
            await self._in_thread(
                lambda: replica.raise_floors(
                    fence_epoch=max(shard.fence, known.fence_epoch), gc_floor=max(shard.gc_floor, known.gc_floor)
                )
            )

    def _open(self, key: ReplicaKey, info: CollectionInfo, revision: int) -> Replica:
        path = replica_path(self._folder, key.name)
        if key.name not in self._held.names:
            if key.session < info.restored:
                # It was there when the copy of the catalog was taken: an empty one would answer "absent" (P16).
                raise _let_go_since(path)
            discard(self._disk, self._folder, key.name)
            Replica.create(self._disk, path, info.schema, self._clock)
            self._hold(lambda held: held.acted(revision, add={key.name}))
        elif not self._disk.exists(path):
            raise _lost(path)
        try:
            return Replica.open(
                self._disk,
                path,
                key.collection_uuid,
                self.resources,
                self._settings_among(len(self._places)),
                self._clock,
                prepare=self._prepare,
                wake=self._workers.wake,
                keep_tombstones=True,
            )
        except NotFoundError:
            raise _lost(path) from None

    def _settings_among(self, replicas: int) -> EngineSettings:
        """The engine's settings for one of so many: growing buffers are reserved whole, and must all find room."""
        buffer = self._settings.buffer
        share = self._settings.memory.memory_limit_bytes // (4 * max(replicas, 1))
        size = max(_BUFFER_BYTES_MIN, min(buffer.buffer_bytes_max, share))
        return replace(self._settings, buffer=replace(buffer, buffer_bytes_max=size))

    def _let_go(self, keys: Sequence[ReplicaKey], wanted: Set[str], revision: int) -> None:
        """Begin to close replicas, which no call finds any more, and to remove what is held and not wanted."""
        for key in keys:
            self._serving.pop(key.shard, None)
        closing = {key.name: self._places.pop(key).hosted for key in keys}
        unwanted = self._held.names - wanted - self._endings.keys() - self._held.kept
        names = closing.keys() | unwanted
        if not names:
            return
        hosted = {name: place.replica for name, place in closing.items() if place is not None}
        task = asyncio.create_task(self._end(hosted, unwanted, revision), name="let go")
        self._endings.update(dict.fromkeys(names, task))
        task.add_done_callback(lambda _: self._ended(names, again=bool(names - unwanted)))

    def _ended(self, names: Set[str], *, again: bool) -> None:
        for name in names:
            del self._endings[name]
        if again:  # of what was to be kept, a newer map may have said that it is to go
            self._newer.set()

    async def _end(self, replicas: Mapping[str, Replica], unwanted: Set[str], revision: int) -> None:
        """Close replicas, and remove the unwanted."""
        loop = asyncio.get_running_loop()

        def close(name: str, replica: Replica) -> None:
            _close(replica)
            _log.info("replica %s is closed", name)

        await asyncio.gather(*(loop.run_in_executor(self._closers, close, *item) for item in replicas.items()))
        if unwanted:
            try:
                await loop.run_in_executor(self._closers, self._remove, unwanted, revision)
            except (OmenDBError, OSError) as error:
                _log.error("removing replicas: %s", error)

    def _remove(self, names: Set[str], revision: int) -> None:
        self._hold(lambda held: held.acted(revision, remove=names))
        for name in names:
            discard(self._disk, self._folder, name)

    def _keep(self, wanted: Set[str], topology: Topology) -> None:
        """Note what a restored catalog does not name: made or moved here after its copy was taken, and not dropped."""
        self._hold(
            lambda held: replace(held.acted(topology.revision), restored=topology.restored, kept=held.names - wanted)
        )
        for name in sorted(self._held.kept):
            _log.error("replica %s: %s", name, _KEPT)

    def _hold(self, change: Callable[[Held], Held]) -> None:
        """Change what the folder holds: on disk, then here."""
        with self._held_lock:
            held = change(self._held)
            write_held(self._disk, self._folder, held)
            self._held = held

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._files, work)
        except OSError as error:
            raise disk_error(error, "opening or closing a replica") from error


def _unfinished(place: _Place) -> bool:
    """Whether trying again may change something."""
    if place.waiting or place.hosted is None:
        return not place.waiting and not place.hopeless
    return not place.in_line or (place.shard.recut is not None and place.hosted.follower is None)


def _follower(whole: Replica, beside: tuple[Replica, ...], info: CollectionInfo, shard: Shard) -> Successors | None:
    if shard.split is not None:
        return Halves(whole, beside, shard.split.session, shard.split.at, info.partition_key)
    return None if shard.merge is None else Joint(whole, beside, shard.merge.session)


def _close(replica: Replica) -> None:
    try:
        replica.close()
    except (OmenDBError, OSError) as error:  # what was acknowledged is in its log; the others are closed all the same
        _log.error("closing %s: %s", replica.path, error)


def _check_members(key: ReplicaKey, replica: Replica, info: CollectionInfo, shard: Shard) -> None:
    """Refuse a shard whose members changed after the copy from which the catalog was restored was taken.

    What was acknowledged since lies on the members from then, and those of the copy might answer without it.
    """
    known = replica.maintenance.fence_epoch
    if shard.copied_fence < known < info.restored:
        raise UnavailableError(
            f"members of the shard changed at {known}, after the copy of the catalog was taken",
            field=key.name,
            bound=f"at most {shard.copied_fence}",
            mend="restore a newer copy, or `omendb cluster accept-restored` if there is none",
        )


def _let_go_since(path: str) -> CorruptionError:
    return CorruptionError(
        "this folder has let it go after the copy of the catalog was taken",
        path=path,
        mend="restore a newer copy of the catalog, or drop what was dropped",
    )


def _lost(path: str) -> CorruptionError:
    return CorruptionError("the files of the replica are gone", path=path, mend="start the node on a new folder")


def _state(place: _Place) -> str:
    if place.hosted is None:
        return "opening" if place.error is None else str(place.error)
    if place.hosted.replica.failed:
        return "failed"
    return "open" if place.error is None else f"serves under an older map: {place.error}"


__all__ = ["RETRY_S", "Hosting", "OpenShard"]

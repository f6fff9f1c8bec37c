"""The router: what its faces call, carried out over the data nodes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy.typing as npt
import pyarrow as pa

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError
from omendb_common.explanation import Explanation
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.metadata import Metadata, NewCollection
from omendb_common.quorum import Quorums
from omendb_common.topology import CollectionInfo, Member, Topology
from omendb_common.wire.unending import Unending
from omendb_router.admission import Admission
from omendb_router.asked import Asked, Level, StaleMapError, one, reading, settling
from omendb_router.care import Care
from omendb_router.claiming import Claiming
from omendb_router.clock_look import ClockLook
from omendb_router.conditions import Conditions
from omendb_router.explaining import explain
from omendb_router.face_calls import Found, Hits, PointPage, Question, Seen, Written
from omendb_router.fanout import Fanout, together
from omendb_router.lookups import Lookups, Wanted
from omendb_router.maps import Maps
from omendb_router.mutations import Mutations, Supplies
from omendb_router.nodes import NodePool
from omendb_router.reads import get
from omendb_router.routing import shards_left
from omendb_router.scrolls import Scrolls
from omendb_router.searches import Searches
from omendb_router.selections import Selections
from omendb_router.sessions import decode_token
from omendb_router.settings import RouterSettings
from omendb_router.stamps import ClockCheck, Leases, Stamps
from omendb_router.writes import Writer

T = TypeVar("T")
_SWEEP_S = 1.0
SEARCH_WAYS = "once", "settled", "not_covered"
_COUNTED = (
    *("hedges", "failovers", "restamp", "refresh", "repair", "unknown", "refused", "read_repairs"),
    *(f"searches_{way}" for way in SEARCH_WAYS),
)
_LOOK_S = 0.1
"""Who does not want to wait for the indexes still wants an answer."""


class Router:
    """Carries out what the faces ask (:class:`omendb_router.face_calls.RouterCalls`). One event loop owns it.

    Arrays and columns that are handed in belong to the router from then on: the slowest replica may read them after
    the answer went out.
    """

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        clock: Clock,
        settings: RouterSettings | None = None,
        *,
        holder: str,
        seed: int | None = None,
    ) -> None:
        """``holder`` names this start of this process: no other start may use it; ``seed`` fixes the dice of pauses."""
        self.settings = settings or RouterSettings()
        self._metadata = metadata
        self._nodes = nodes
        self._clock = clock
        dice = random.Random(seed)
        self._stamps = Stamps(clock, self.settings)
        self._offset = ClockCheck(clock, self.settings.clock_offset_ms_max)
        self._fanout = Fanout(nodes, clock, self.settings, dice, self._observe)
        self._clock_look = ClockLook(self._fanout, clock, self._offset)
        self._maps = Maps(metadata, clock, self._fanout.own)
        self._leases = Leases(metadata, self._stamps, holder, clock, self._fanout.own)
        self._admission = Admission(self.settings)
        claiming = Claiming(self._fanout, self._stamps, self._leases)
        self._lookups = Lookups(self._fanout, claiming.finish)
        conditions = Conditions(self._fanout, claiming, self._lookups, self._maps, self._stamps, self._leases, dice)
        self._selections = Selections(self._fanout, self._lookups)
        self._searches = Searches(self._fanout, self._lookups)
        self._scrolls = Scrolls(self._fanout, self._lookups)
        self._care = Care(self._fanout, self._stamps)
        writer = Writer(
            self._fanout, self._maps, self._stamps, self._leases, Supplies(self._lookups, self._stamps), dice
        )
        self._mutations = Mutations(
            *(writer, conditions, self._leases, self._stamps, self._lookups, self._selections, self._care),
            self.settings,
        )
        self._sweeper: Unending | None = None

    # -- life

    async def start(self, deadline: Deadline) -> None:
        """Lease an origin and follow the topology; after an UnavailableError it may be called again."""
        await self._leases.renew(deadline)
        self._leases.renew_in_time()
        self._metadata.on_change(self._follow)
        self._follow(self._metadata.topology)
        self._sweeper = Unending(self._sweep, "leases and connections")

    async def stop(self, deadline: Deadline) -> None:
        """End the work that was begun, at the latest at the deadline, and close the connections."""
        if self._sweeper is not None:
            await self._sweeper.stop()
        await self._fanout.close(deadline)
        await self._nodes.close()

    def _follow(self, topology: Topology) -> None:
        self._nodes.follow(topology)
        self._fanout.follow(topology)

    def _observe(self, node_id: str, sent_s: float, hlc: int) -> None:
        self._stamps.observe(hlc)
        self._offset.note(node_id, sent_s, hlc)

    async def _sweep(self) -> None:
        """Renew the lease in good time, and close the connections to nodes that moved or left."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._leases.renew_in_time()
            await self._nodes.sweep()

    def figures(self) -> dict[str, float]:
        """Numbers about this router now, and how often since its start: for metrics."""
        nodes = self._data_nodes()
        counts = self._fanout.counts
        return {
            "requests_working": self._admission.working,
            "requests_waiting": self._admission.waiting,
            "nodes_left_alone": sum(self._fanout.refusal(n.node_id) is not None for n in nodes),
            "clock_off_ms": self._offset.off_ms(),
            "lease_left_s": self._stamps.left_ms() / 1e3,
            **{f"{name}_total": counts[name] for name in _COUNTED},
        }

    def searches_by_way(self) -> dict[str, int]:
        """Searches of a shard at a quorum: ``once``, ``settled`` of these, and ``not_covered`` (P23)."""
        return {way: self._fanout.counts[f"searches_{way}"] for way in SEARCH_WAYS}

    # -- collections

    @property
    def topology(self) -> Topology:
        """The newest topology seen."""
        return self._maps.topology

    async def find(self, name: str, deadline: Deadline) -> CollectionInfo:
        """The collection of that name or alias, asking for news when it is not known; NotFoundError."""
        return await self._maps.find(name, deadline)

    async def create_collection(self, new: NewCollection, deadline: Deadline) -> CollectionInfo:
        """Make a collection; AlreadyExistsError when the name is taken."""
        return await self._metadata.create_collection(new, deadline)

    async def drop_collection(self, name: str, deadline: Deadline) -> None:
        """Delete a collection; NotFoundError when there is none."""
        await self._metadata.drop_collection(name, deadline)

    async def rename_collection(self, old: str, new: str, deadline: Deadline) -> CollectionInfo:
        """Give a collection another name."""
        await self._metadata.rename_collection(old, new, deadline)
        return await self._maps.find(new, deadline)

    async def alter_collection(
        self,
        name: str,
        replication: int | None,
        write_quorum: int | None,
        read_quorum: int | None,
        deadline: Deadline,
    ) -> CollectionInfo:
        """Ask for another replication and other quorums; None leaves one as it is. Shards get there serving."""
        return await self._metadata.alter_collection(
            name, deadline, replication=replication, write_quorum=write_quorum, read_quorum=read_quorum
        )

    async def cluster_status(self, deadline: Deadline) -> dict[str, Any]:
        """Members, collections and shards, for people."""
        return await self._metadata.status(deadline)

    # -- writes

    async def upsert(
        self,
        collection: str,
        ids: IdColumn | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        n: int,
        *,
        create_only: bool = False,
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Store points; ``ids`` None numbers them; of one id's rows the last wins."""
        size = sum(v.nbytes for v in vectors.values()) + (0 if payload is None else int(payload.nbytes))

        async def work(info: CollectionInfo) -> Written:
            return await self._mutations.upsert(
                *(info, ids, vectors, payload, n),
                create_only=create_only,
                retry_stamp=retry_stamp,
                versions=versions,
                deadline=deadline,
            )

        return await self._write(collection, size, work, deadline)

    async def update(
        self,
        collection: str,
        ids: IdColumn,
        vectors: Mapping[str, npt.NDArray[Any]] | None,
        payload: pa.RecordBatch | None,
        *,
        unset: Sequence[str] = (),
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Change parts of points; NotFoundError when one does not exist, and nothing was changed."""
        size = sum(v.nbytes for v in (vectors or {}).values()) + (0 if payload is None else int(payload.nbytes))

        async def work(info: CollectionInfo) -> Written:
            return await self._mutations.update(
                *(info, ids, vectors or {}, payload, tuple(unset)),
                retry_stamp=retry_stamp,
                versions=versions,
                deadline=deadline,
            )

        return await self._write(collection, size, work, deadline)

    async def delete(
        self,
        collection: str,
        ids: IdColumn,
        *,
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Delete points; ids that do not exist are no error. ``count``: as the replica that knew of most had it."""

        async def work(info: CollectionInfo) -> Written:
            return await self._mutations.delete(
                info, ids, retry_stamp=retry_stamp, versions=versions, deadline=deadline
            )

        return await self._write(collection, 0, work, deadline)

    async def delete_where(
        self, collection: str, condition: Filter, *, retry_stamp: int | None = None, deadline: Deadline
    ) -> Written:
        """Delete the points that match now; one that is rewritten meanwhile may go or stay."""

        async def work(info: CollectionInfo) -> Written:
            return await self._mutations.delete_where(info, condition, retry_stamp=retry_stamp, deadline=deadline)

        return await self._write(collection, 0, work, deadline)

    async def _write(
        self, collection: str, size_bytes: int, work: Callable[[CollectionInfo], Awaitable[Written]], deadline: Deadline
    ) -> Written:
        """Let a write in, and carry it out whatever becomes of the caller (P20)."""
        info = await self._maps.find(collection, deadline)
        await self._check_clock(deadline)
        place = await self._admission.enter(info.name, deadline, size_bytes)

        async def whole() -> Written:
            with place:
                return await self._with_map(collection, work, deadline)

        return await self._fanout.shielded(whole())

    async def _check_clock(self, deadline: Deadline) -> None:
        """Refuse to write by a clock that is wrong; when it is not proven right, ask the data nodes for theirs."""
        if not (deadline.passed or self._offset.right(self._clock_look.nodes(self.topology))):
            await self._clock_look.again(self.topology, self._stamps.origin, deadline)
            self._offset.check()

    def _data_nodes(self) -> list[Member]:
        return [m for m in self.topology.members.values() if m.role == "datanode" and m.state != "left"]

    # -- reads

    async def search(self, collection: str, question: Question, *, seen: Seen, deadline: Deadline) -> Hits:
        """Search; by default at the collection's read quorum, with a session token at one that meets what it names."""
        started_s = self._clock.mono_s()

        async def work(info: CollectionInfo) -> Hits:
            # A session promises less than the read quorum, and where its client wrote nothing one replica is enough.
            otherwise = one if seen.consistency == "session" else reading
            asked = self._asked(info, question.condition, seen, otherwise=otherwise)
            found = await self._searches.search(asked, question, deadline)
            return Hits(
                found.distances,
                found.counts,
                found.ids,
                found.payload,
                found.vectors,
                found.work,
                (self._clock.mono_s() - started_s) * 1e3,
                seen.session,
                not all(a.covers for a in asked),
            )

        return await self._read(collection, work, deadline)

    async def explain(self, collection: str, question: Question, *, measure: bool, deadline: Deadline) -> Explanation:
        """How one replica of each shard makes a search; let in, limited and routed as the search is."""

        async def work(info: CollectionInfo) -> Explanation:
            asked = self._asked(info, question.condition, Seen(), otherwise=one)
            return await explain(self._fanout, asked, question, deadline, measure=measure)

        return await self._read(collection, work, deadline)

    async def get(
        self, collection: str, ids: IdColumn, *, payload: bool, vectors: bool, seen: Seen, deadline: Deadline
    ) -> Found:
        """Read points by id; by default as many replicas of each shard as the collection's read quorum."""

        async def work(info: CollectionInfo) -> Found:
            asked = self._asked(info, None, seen, otherwise=reading)
            return await get(self._lookups, asked, ids, _wanted(info, payload, vectors), deadline)

        return await self._read(collection, work, deadline)

    async def scroll(
        self,
        collection: str,
        cursor: str | None,
        limit: int,
        condition: Filter | None = None,
        *,
        payload: bool,
        vectors: bool,
        seen: Seen,
        deadline: Deadline,
    ) -> PointPage:
        """A page of points in a fixed order; by default from the collection's read quorum."""

        async def work(info: CollectionInfo) -> PointPage:
            asked = self._asked(info, condition, seen, otherwise=reading)
            wanted = _wanted(info, payload, vectors)
            page, following = await self._scrolls.page(asked, cursor, limit, condition, wanted, deadline)
            return PointPage(page.ids, following, page.payload, page.vectors, page.stamps)

        return await self._read(collection, work, deadline)

    async def count(self, collection: str, condition: Filter | None, *, seen: Seen, deadline: Deadline) -> int:
        """How many points there are, or match: by default as one replica of each shard has it."""

        async def work(info: CollectionInfo) -> int:
            asked = self._asked(info, condition, seen, otherwise=one)
            return sum(await together([self._selections.count(a, condition, deadline) for a in asked]))

        return await self._read(collection, work, deadline)

    def _asked(self, info: CollectionInfo, condition: Filter | None, seen: Seen, *, otherwise: Level) -> list[Asked]:
        """The shards that a read goes to, and how many replicas of each it takes."""
        named: Mapping[int, int] = {}
        if seen.session:
            uuid, written = decode_token(seen.session)
            named = written if uuid == info.schema.uuid else {}
        # Of a shard that split or merged since, the token does not say who has its points now.
        numbers = {shard.shard_id for shard in info.shards}
        everywhere = any(number not in numbers for number in named)
        out = []
        for shard in shards_left(info, condition):
            level = otherwise
            if seen.consistency == "one":
                level = one
            elif seen.consistency in ("verified", "quorum", "majority"):
                level = settling
            elif (seen.consistency == "session" or named) and (everywhere or shard.shard_id in named):
                level = _above(otherwise)
            verified = seen.consistency == "verified"
            out.append(Asked.at(level, info, shard, self._stamps.origin, verified=verified))
        return out

    async def _read(self, collection: str, work: Callable[[CollectionInfo], Awaitable[T]], deadline: Deadline) -> T:
        """Let a read in; it ends with its caller."""
        info = await self._maps.find(collection, deadline)
        with await self._admission.enter(info.name, deadline):
            return await self._with_map(collection, work, deadline)

    async def _with_map(self, collection: str, work: Callable[[CollectionInfo], Awaitable[T]], deadline: Deadline) -> T:
        """Do the work, again under a newer map when replicas refuse this one."""
        info = await self._maps.find(collection, deadline)
        for attempt in range(self.settings.map_refreshes_max):
            try:
                return await work(info)
            except StaleMapError:
                deadline.check("waiting for a newer shard map")
                if attempt:
                    await asyncio.sleep(min(self.settings.retry_pause_ms / 1e3 * 2**attempt, deadline.left_s))
                info = await self._maps.newer(info, deadline)
        return await work(info)

    # -- care

    async def stats(self, collection: str, deadline: Deadline) -> dict[str, Any]:
        """Numbers about the collection: sums over its shards, one replica each, and each shard's own."""

        async def work(info: CollectionInfo) -> dict[str, Any]:
            return await self._care.stats(info, deadline)

        return await self._with_map(collection, work, deadline)

    async def wait_until_indexed(self, collection: str, timeout_s: float, deadline: Deadline) -> bool:
        """Wait until every segment of every replica that answers has its index; whether it came to that."""
        wait = Deadline.after(self._clock, min(max(timeout_s, _LOOK_S), deadline.left_s))

        async def work(info: CollectionInfo) -> bool:
            return await self._care.wait_until_indexed(info, wait)

        try:
            return await self._with_map(collection, work, deadline)
        except DeadlineExceededError:
            if deadline.passed:
                raise
            return False

    async def flush(self, collection: str, deadline: Deadline) -> None:
        """Turn the growing buffers of all replicas into segments now."""

        async def work(info: CollectionInfo) -> None:
            await self._care.everywhere(info, "flush", deadline)

        await self._with_map(collection, work, deadline)

    async def verify(self, collection: str, deadline: Deadline) -> dict[str, Any]:
        """Compare the replicas of every shard by their hash trees, one of each with all others; writes nothing."""

        async def work(info: CollectionInfo) -> dict[str, Any]:
            return await self._care.verify(info, deadline)

        return await self._with_map(collection, work, deadline)

    async def compact(self, collection: str, deadline: Deadline) -> None:
        """Merge and clean the segments of all replicas now."""

        async def work(info: CollectionInfo) -> None:
            await self._care.everywhere(info, "compact", deadline)

        await self._with_map(collection, work, deadline)


def _above(level: Level) -> Level:
    """At least so many, and so many that the read meets every committed write."""

    def higher(quorums: Quorums) -> int:
        return max(level(quorums), quorums.covering)

    return higher


def _wanted(info: CollectionInfo, payload: bool, vectors: bool) -> Wanted:
    return Wanted(payload, tuple(f.name for f in info.schema.vectors) if vectors else ())


__all__ = ["Router"]

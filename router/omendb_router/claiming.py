"""Claims on points: asked of every replica of a shard, read behind, settled by, and given up (P19).

A claim under a stamp that a quorum grants divides all writes to a point: what was older is there to be read at that
quorum, or will never be on one. Whoever holds it may write under its stamp what it decided on; nobody else does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.ids import IdColumn
from omendb_common.quorum import Quorums
from omendb_common.records import Op, WriteBatch, encode_batch
from omendb_common.shard_calls import Applied, Apply, Claim, Looked, Lookup, ShardRef, State, Verdict
from omendb_common.topology import CollectionInfo, Shard
from omendb_router.asked import Asked, check_enough
from omendb_router.fanout import Asking, Fanout, Heard, Unheard
from omendb_router.lookups import Wanted
from omendb_router.points import merged, take_payload
from omendb_router.routing import batch_bytes
from omendb_router.stamps import Leases, Stamps
from omendb_router.tally import Ballot, Step, Tally
from omendb_router.versions import Versions, newest

Rows = npt.NDArray[np.int64]


def _claimed(quorums: Quorums) -> int:
    """So many replicas grant a claim that they share one with every vote, write and read."""
    return max(quorums.majority, quorums.read, quorums.covering)


class BeatenError(UnavailableError):
    """Others claim the points too, or wrote them meanwhile, under ``newer``: it may be tried above that."""

    def __init__(self, newer: int) -> None:
        super().__init__("others write the same points", field="ids", mend="send it again")
        self.newer = newer


@dataclass(frozen=True, slots=True)
class Place:
    """Some points of one shard under one map."""

    info: CollectionInfo
    shard: Shard
    ids: IdColumn
    origin: int

    @property
    def ref(self) -> ShardRef:
        """How calls name the shard."""
        return ShardRef(self.info.schema.uuid, self.shard.shard_id, self.shard.epoch, self.origin)

    @property
    def ballot(self) -> Ballot:
        """Who votes. Any two votes share a replica, and each shares one with every write and every read of a quorum."""
        quorums = self.info.quorums(self.shard)
        after = self.info.quorums_after(self.shard) or quorums
        return replace(Ballot.of(self.shard, quorums, after), need=_claimed(quorums), need_new=_claimed(after))

    @property
    def asked(self) -> Asked:
        """The shard as a read asks it that meets every vote."""
        ballot = self.ballot
        return Asked(self.info, self.shard, ballot.need, self.origin, later=ballot.need_new)

    def take(self, rows: Rows) -> Place:
        """Some of the points."""
        return replace(self, ids=self.ids.take(rows))


@dataclass(slots=True)
class Held:
    """A claim that was granted, and what the replicas that granted it know."""

    place: Place
    stamp: int
    nodes: list[str]
    answers: list[Looked]
    versions: Versions = field(init=False)

    def __post_init__(self) -> None:
        self.versions = newest(self.answers)


class Claiming:
    """Makes claims, and writes under them."""

    def __init__(self, fanout: Fanout, stamps: Stamps, leases: Leases) -> None:
        self._fanout = fanout
        self._stamps = stamps
        self._leases = leases

    async def claim(self, place: Place, stamp: int, deadline: Deadline) -> Held:
        """Claim the points under ``stamp``, which is fresh, and read them behind it.

        Raises:
            BeatenError: there is something newer.
            StaleMapError: the map is old.
            UnavailableError, DeadlineExceededError: too few replicas answered. The claim is waived in each case.
        """
        try:
            granted = await self._grants(place, stamp, deadline)
            return await self._read_behind(place, stamp, granted, deadline)
        except BaseException:
            self.waive(place, stamp)
            raise

    def waive(self, place: Place, stamp: int) -> None:
        """Let go of a claim under whose stamp nothing was sent and nothing will be; nobody waits for it."""
        self._fanout.own(asyncio.get_running_loop().create_task(self._tell_waived(place, stamp)))

    async def put(self, place: Place, batch: WriteBatch, stamp: int, deadline: Deadline) -> Tally:
        """Write under a claim. The tally's ``settled`` says of which rows a quorum has it."""
        ballot = place.ballot
        tally = Tally(ballot, batch.rows)
        body = encode_batch(batch) if self._fanout.nodes.encoded and len(ballot.targets) > 1 else None
        call = Apply(place.ref, stamp, batch, body)
        asking: Asking[Applied] = self._fanout.asking("apply", deadline)
        for node_id in ballot.targets:
            asking.start(node_id, lambda _, node: node.apply(call, deadline), batch_bytes(batch))
        while tally.step() is not Step.DONE and asking.pending:
            reply = await asking.next()
            if isinstance(reply, Heard):
                tally.hear(reply.node_id, reply.answer)
            elif reply is not None:
                tally.lose(reply.node_id, reply.error, sent=reply.sent)
        return tally

    async def completed(self, held: Held, batch: WriteBatch, deadline: Deadline) -> WriteBatch:
        """An update of claimed points, all of them there, as a batch that stores them whole.

        A field over a version that a replica lacks would have to be put together with it, and what lies below a claim
        goes nowhere: so what is written under one is whole.

        Raises:
            BeatenError: replicas differ on points that were updated in parts: they must be put together first.
        """
        overlaid = np.zeros(batch.rows, np.bool_)
        for answer in held.answers:
            overlaid[answer.overlays.rows] = True
        if bool((overlaid & ~held.versions.agreed).any()):
            raise BeatenError(held.stamp)
        step = Wanted(True, tuple(f.name for f in held.place.info.schema.vectors)).rows_max(
            held.place.info.schema, self._fanout.settings
        )
        order: list[Rows] = []
        pieces: list[WriteBatch] = []
        for number, node_id in enumerate(held.nodes):
            rows = np.flatnonzero(held.versions.holder == number)
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                pieces += await self._stored(held.place.take(some), node_id, held.versions.stamps[some], deadline)
                order.append(some)
        return merged(batch, pieces, np.argsort(np.concatenate(order)))

    async def finish(self, asked: Asked, ids: IdColumn, deadline: Deadline) -> None:
        """Bring points to rest that a claim keeps from being read: whoever made it may be gone."""
        self._fanout.counts["claims_finished"] += 1
        place = Place(asked.info, asked.shard, ids, asked.origin)
        try:
            held = await self.claim(place, await self._leases.stamp(deadline), deadline)
        except BeatenError as beaten:
            self._stamps.observe(beaten.newer)
            return  # who made that one may be at work: the points are read again first
        torn = np.flatnonzero((held.versions.stamps > 0) & ~held.versions.agreed)
        others = np.setdiff1d(np.arange(len(ids)), torn)
        if len(others):
            self.waive(place.take(others), held.stamp)
        await self.settle(held, torn, deadline)

    async def settle(self, held: Held, rows: Rows, deadline: Deadline) -> None:
        """Write the newest version of some points again, under the claim: then a quorum has it, whoever wrote it.

        Raises:
            BeatenError: a newer one was written meanwhile.
            UnavailableError: it did not come to a quorum, or is a field update beside which there may be others.
        """
        for number, node_id in enumerate(held.nodes):
            mine = rows[held.versions.holder[rows] == number]
            if not len(mine):
                continue
            beside = np.isin(mine, held.answers[number].overlays.rows)
            if beside.any():
                raise UnavailableError(
                    f"{int(beside.sum())} points are being updated in parts", field="ids", mend="send it again"
                )
            place = held.place.take(mine)
            for batch in await self._stored(place, node_id, held.versions.stamps[mine], deadline):
                tally = await self.put(place, batch, held.stamp, deadline)
                if not tally.settled().all():
                    raise BeatenError(int(tally.newer.max(initial=0))) if tally.newer.any() else tally.cause()

    async def _tell_waived(self, place: Place, stamp: int) -> None:
        """Tell every replica until it has heard: a claim that stays keeps out what repair would bring."""
        call = Apply(place.ref, stamp, WriteBatch(Op.DELETE, place.ids), None, claim=Claim.WAIVE)
        deadline = Deadline.after(self._fanout.clock, self._fanout.settings.waive_timeout_s)
        pause_s = self._fanout.settings.hedge_ms / 1e3
        deaf = set(place.ballot.targets)
        while deaf and not (deadline.passed or self._fanout.closing):
            asking: Asking[Applied] = self._fanout.asking("claim", deadline)
            for node_id in sorted(deaf):
                asking.start(node_id, lambda _, node: node.apply(call, deadline))
            while asking.pending:
                reply = await asking.next()
                # Who refuses has another map: what it took under this one went to where the shard is now.
                if isinstance(reply, Heard) and reply.answer.verdict is not Verdict.REFUSED:
                    deaf.discard(reply.node_id)
            if deaf:
                await asyncio.sleep(min(pause_s, max(deadline.left_s, 0.0)))
                pause_s *= 2

    async def _grants(self, place: Place, stamp: int, deadline: Deadline) -> list[str]:
        ballot = place.ballot
        sides = [(side, need) for _, side, need in ballot.sides]
        call = Apply(place.ref, stamp, WriteBatch(Op.DELETE, place.ids), None, claim=Claim.CLAIM)
        asking: Asking[Applied] = self._fanout.asking("claim", deadline)
        for node_id in ballot.targets:
            asking.start(node_id, lambda _, node: node.apply(call, deadline))
        granted: list[str] = []
        refused: list[Heard[Applied] | Unheard] = []
        newer = 0
        while any(len(side.intersection(granted)) < need for side, need in sides):
            hopeful = {*granted, *asking.pending}
            if any(len(side & hopeful) < need for side, need in sides):
                raise BeatenError(newer) if newer else self._too_few(place, refused, deadline)
            reply = await asking.next()
            if isinstance(reply, Heard) and reply.answer.verdict is Verdict.OK:
                if not len(reply.answer.superseded):
                    granted.append(reply.node_id)
                newer = max(newer, int(reply.answer.newer.max(initial=0)))
            elif reply is not None:
                refused.append(reply)
        return granted

    async def _read_behind(self, place: Place, stamp: int, granted: Sequence[str], deadline: Deadline) -> Held:
        call = Lookup(place.ref, place.ids)
        shard = place.shard
        readers = shard.old | (shard.new if shard.switching and shard.new is not None else frozenset())
        asked = [node_id for node_id in granted if node_id in readers]
        good, bad = await self._fanout.ask(
            asked, len(asked), "lookup", lambda _, node: node.lookup(call, deadline), deadline
        )
        if len(good) < len(asked):
            raise self._too_few(place, bad, deadline)
        return Held(place, stamp, [h.node_id for h in good], [h.answer for h in good])

    async def _stored(
        self, place: Place, node_id: str, stamps: npt.NDArray[np.uint64], deadline: Deadline
    ) -> list[WriteBatch]:
        """Points as a replica has them, as batches that store them again."""
        names = tuple(f.name for f in place.info.schema.vectors)
        call = Lookup(place.ref, place.ids, False, True, names, True)
        good, bad = await self._fanout.ask(
            [node_id], 1, "lookup", lambda _, node: node.lookup(call, deadline), deadline
        )
        if not good:
            raise self._too_few(place, bad, deadline)
        answer = good[0].answer
        if bool((answer.stamps != stamps).any()):
            raise BeatenError(int(answer.stamps.max()))
        live, dead = (np.flatnonzero(answer.states == state) for state in (State.LIVE, State.DELETED))
        batches = []
        if len(live):
            every = np.arange(len(live))
            vectors = {name: answer.vectors[name] for name in names}
            payload = take_payload(answer.payload, every) if answer.payload is not None else None
            batches.append(WriteBatch(Op.UPSERT, place.ids.take(live), vectors, payload))
        if len(dead):
            batches.append(WriteBatch(Op.DELETE, place.ids.take(dead)))
        return batches

    def _too_few(
        self, place: Place, refused: Sequence[Heard[Applied] | Heard[Looked] | Unheard], deadline: Deadline
    ) -> OmenDBError:
        try:
            check_enough(place.asked, [], list(refused), deadline)
        except OmenDBError as error:
            return error
        raise AssertionError("unreachable")


__all__ = ["BeatenError", "Claiming", "Held", "Place", "Rows"]

"""Bugs of replication, each of which a simulated cluster must show: what ``docs/replication.md`` rules out."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

import omendb_coordinator.member_changes
import omendb_coordinator.move_changes
import omendb_router.lookups
from omendb_chaos.cluster.converging import GRACE_S
from omendb_chaos.cluster.moving import CALM, CASES
from omendb_chaos.cluster.nemesis import Mix
from omendb_chaos.cluster.network import Link
from omendb_chaos.cluster.processes import current_process
from omendb_chaos.cluster.runs import run_one
from omendb_chaos.cluster.swarm import swarm
from omendb_chaos.cluster.world import Size
from omendb_chaos.rows.planting import Mutant, Probe, replaced
from omendb_common import ring
from omendb_common.hlc import stamp_step
from omendb_common.shard_calls import Looked, Repair, State
from omendb_common.topology import Move, Shard
from omendb_datanode.hosting import Hosting
from omendb_datanode.replicate.arrivals import Arrivals
from omendb_datanode.shard_rules import ShardRules
from omendb_engine import maintenance
from omendb_engine.claimed import Claims
from omendb_engine.hash_tree import _SegmentSums
from omendb_engine.seal import build_from_buffer, build_from_segments
from omendb_engine.wal.writer import WalWriter
from omendb_router.asked import Asked
from omendb_router.contest import Contest
from omendb_router.fanout import Fanout
from omendb_router.lookups import Lookups
from omendb_router.router import Router
from omendb_router.searches import Searches
from omendb_router.tally import Ballot, Tally
from omendb_router.versions import Versions, newest

Planted = Callable[[], AbstractContextManager[None]]
_ROUGH = Link(loss=0.08, twice=0.1, delay_s=(0.0002, 0.02), late=0.05, late_s=1.0)

# -- planting


def _ack_before_quorum() -> AbstractContextManager[None]:
    original = Ballot.of
    return replaced(Ballot, "of", staticmethod(lambda *given: replace(original(*given), need=1, need_new=1)))


def _superseded_counts() -> AbstractContextManager[None]:
    """A row that lost to a newer stamp counts as written, so it is never stamped above it."""
    original = Tally.hear
    none: dict[str, Any] = {"superseded": np.empty(0, np.int64), "newer": np.empty(0, np.uint64)}
    return replaced(Tally, "hear", lambda self, node_id, answer: original(self, node_id, replace(answer, **none)))


def _stamped_by_arrival() -> AbstractContextManager[None]:
    """Replicas order writes as they come in."""
    original = ShardRules._write

    async def write(self: ShardRules, hosted: Any, writes: Any, deadline: Any) -> Any:
        stamped = [replace(w, stamp=self._hlc.tick()) if w.stamp else w for w in writes]
        return await original(self, hosted, stamped, deadline)

    return replaced(ShardRules, "_write", write)


def _no_verify_round() -> AbstractContextManager[None]:
    async def verify(*given: object) -> bool:
        return True

    return replaced(Searches, "_verify", verify)


def _intersect_merge() -> AbstractContextManager[None]:
    """A hit counts only if every replica that was asked has it."""
    original = Contest.heard

    def heard(self: Contest, replica: int, uids: Any, answer: Looked) -> None:
        absent = answer.states == State.ABSENT
        states = np.where(absent, np.uint8(State.DELETED), answer.states)
        stamps = np.where(absent, np.uint64((1 << 64) - 1), answer.stamps)
        original(self, replica, uids, replace(answer, states=states, stamps=stamps))

    return replaced(Contest, "heard", heard)


def _absent_is_deleted() -> AbstractContextManager[None]:
    """A replica that has nothing of a point hides it."""

    def hidden(answers: Sequence[Looked]) -> Versions:
        found = newest(answers)
        absent = np.any([a.states == State.ABSENT for a in answers], axis=0)
        states = np.where(absent, np.uint8(State.ABSENT), found.states)
        return Versions(states, found.stamps, found.holder, found.holds | absent, found.torn & ~absent)

    return replaced(omendb_router.lookups, "newest", hidden)


def _first_answer_wins() -> AbstractContextManager[None]:
    return replaced(omendb_router.lookups, "newest", lambda answers: newest([answers[0]] * len(answers)))


def _no_read_repair() -> AbstractContextManager[None]:
    async def push(self: Lookups, asked: Asked, ids: Any, *rest: object) -> Any:
        return np.zeros(len(ids), np.bool_)

    return replaced(Lookups, "_push", push)


def _projection_repair() -> AbstractContextManager[None]:
    """Repairs bring what a reader asked for, not the whole record."""

    def repair(shard: Any, records: Any) -> Repair:
        return Repair(shard, tuple(replace(batch, payload=None) for batch in records))

    return replaced(omendb_router.lookups, "Repair", repair)


def _no_fence() -> AbstractContextManager[None]:
    """The fence is written, and not looked at."""
    original = Hosting._advance

    async def advance(self: Hosting, place: Any, hosted: Any, shard: Any) -> None:
        await original(self, place, hosted, shard)
        hosted.fence = 0

    return replaced(Hosting, "_advance", advance)


def _moves_without_fences() -> AbstractContextManager[None]:
    """Other members count, and calls under the map before are taken all the same."""
    original = Shard.changed

    def changed(self: Shard, *given: Any) -> Shard:
        return replace(original(self, *given), fence=self.fence)

    return replaced(Shard, "changed", changed)


def _moves_in_one_stage() -> AbstractContextManager[None]:
    """What has been filled counts at once, and what came in between is nobody's."""
    original = omendb_coordinator.move_changes._under_way

    def under_way(shard: Shard) -> Move:
        return replace(original(shard), stage="switching")

    return replaced(omendb_coordinator.move_changes, "_under_way", under_way)


def _reused_origin() -> AbstractContextManager[None]:
    return replaced(omendb_coordinator.member_changes, "_free_origin", lambda state, stamp: 1)


def _lost_is_active() -> AbstractContextManager[None]:
    """A node that comes with an empty folder goes on counting for what it held."""
    return replaced(omendb_coordinator.member_changes, "lose_replicas", lambda state, index, node_id: state)


def _unknown_told_as_none() -> AbstractContextManager[None]:
    return replaced(Tally, "untouched", lambda self: True)


def _no_clock_check() -> AbstractContextManager[None]:
    return replaced(ShardRules, "_check_clock", lambda self, stamp: None)


def _majority_is_one() -> AbstractContextManager[None]:
    original = Router._asked

    def asked(self: Router, *given: Any, **more: Any) -> list[Asked]:
        return [a._replace(need=1) for a in original(self, *given, **more)]

    return replaced(Router, "_asked", asked)


def _single_survivor() -> AbstractContextManager[None]:
    """A replica is made anew from one of those that stay, whichever answers first."""
    original = Arrivals._from

    async def take(self: Arrivals, arrival: Any, member: Any) -> None:
        source = arrival.opened.shard.move.source
        if member.node_id != source and not arrival.told - {source}:
            await original(self, arrival, member)

    return replaced(Arrivals, "_from", take)


def _stale_tree() -> AbstractContextManager[None]:
    """The hash tree of a segment counts its rows as they were when it was first asked for."""
    return replaced(_SegmentSums, "_advance", lambda self, part: None)


def _no_session() -> AbstractContextManager[None]:
    """The token of a client's own writes is not looked at."""
    original = Router._asked

    def asked(self: Router, info: Any, condition: Any, seen: Any, **more: Any) -> list[Asked]:
        return original(self, info, condition, seen._replace(session=b""), **more)

    return replaced(Router, "_asked", asked)


def _routed_by_hash() -> AbstractContextManager[None]:
    """Points are placed by ``hash()``, which every process seeds anew."""
    original = ring.key_hashes

    def key_hashes(keys: Any) -> Any:
        process = current_process()
        salt = 0 if process is None else zlib.crc32(f"{process.name} {process.life}".encode())
        return original(keys) * np.uint64(2 * salt + 1)

    return replaced(ring, "key_hashes", key_hashes)


def _unsynced_log() -> AbstractContextManager[None]:
    return replaced(WalWriter, "_datasync", lambda self, file: None)


def _claims_without_effect() -> AbstractContextManager[None]:
    """A claim is granted and noted, and keeps no older write out."""
    return replaced(Claims, "barring", lambda self, ids, stamps: np.zeros(len(ids), np.uint64))


@contextmanager
def _collected_by_age() -> Iterator[None]:
    """Seals and merges forget deletions for their age, whether or not every replica has heard of them."""
    age = stamp_step(GRACE_S)

    def sealed(buffer: Any, *, tombstones_above: int | None) -> Any:
        newest = int(buffer.stamps[: buffer.n].max(initial=0))
        above = None if tombstones_above is None else max(tombstones_above, newest - age)
        return build_from_buffer(buffer, tombstones_above=above)

    def merged(schema: Any, inputs: Any, *, tombstones_above: int, digests: bool) -> Any:
        newest = max(int(part.segment.ref.max_stamp) for part, _ in inputs)
        above = max(tombstones_above, newest - age)
        return build_from_segments(schema, inputs, tombstones_above=above, digests=digests)

    with (
        replaced(maintenance, "build_from_buffer", sealed),
        replaced(maintenance, "build_from_segments", merged),
    ):
        yield


def _leaked_place() -> AbstractContextManager[None]:
    """A call that is cancelled goes on counting as under way."""
    original = Fanout.call

    async def call(self: Fanout, node_id: str, *given: Any, **more: Any) -> Any:
        try:
            return await original(self, node_id, *given, **more)
        except asyncio.CancelledError:
            self.health(node_id).in_flight += 1
            raise

    return replaced(Fanout, "call", call)


# -- catching


def _runs(row: str, count: int = 30) -> Probe:
    def probe(seed: int) -> bool:
        return any(run_one(f"{row}/{seed}/{number}").violations for number in range(count))

    return probe


# Runs in which a deletion comes to be forgotten while one is away that has not heard of it; few runs come to that.
_AGED = "R18/1/1", "R18/2/1"


def _forgotten(seed: int) -> bool:
    known = any(run_one(run).violations for run in _AGED)
    return known or _runs("R18", 20)(seed)


def _rough_moves(*signs: str, count: int = 20) -> Probe:
    """Runs of R19 in rough weather until one shows something of this kind."""

    def probe(seed: int) -> bool:
        first = len(CASES) + CALM
        runs = (run_one(f"R19/{seed}/{number}") for number in range(first, first + count))
        return any(what.startswith(signs) for run in runs for what in run.violations)

    return probe


def _numbered(row: str, number: int) -> Probe:
    return lambda seed: bool(run_one(f"{row}/{seed}/{number}").violations)


def _struck(
    *faults: str,
    count: int = 30,
    gap_s: float = 1.5,
    skew_ms: float = 0.0,
    shards: int = 1,
    calls: int = 120,
    link: Link = _ROUGH,
) -> Probe:
    """Runs of R10 under these faults only: what a full swarm finds too, and later."""
    mix = Mix(dict.fromkeys(faults, 1.0), gap_s, link, {"r1": skew_ms})
    size = Size(shards=shards)

    def probe(seed: int) -> bool:
        return any(swarm(f"R10/{seed}/{number}", calls, mix=mix, size=size).violations for number in range(count))

    return probe


# Runs in which it shows as clients call now: one in thirty does, and a search for it takes a minute.
_CONTENDED = {0: (49,), 1: (13,)}


def _contended(count: int = 60) -> Probe:
    """Runs of R13 in which many clients want one point at once, and some messages take long: no other faults."""
    link = Link(delay_s=(0.0002, 0.03), late=0.15, late_s=0.15)
    size = Size(shards=1, clients=6, routers=3)

    def probe(seed: int) -> bool:
        runs = (
            swarm(
                f"R13/{seed}/{number}",
                100,
                size=size,
                think_s=0.005,
                mix=Mix({}, 1.5, link, {"r1": 0.0}),
                conditions=True,
                ids=(1,),
            )
            for number in (*_CONTENDED.get(seed, ()), *range(count))
        )
        return any(run.violations for run in runs)

    return probe


REPLICATION_MUTANTS: Collection[Mutant] = (
    Mutant("acknowledged before a quorum has it", "R10", _ack_before_quorum, _struck("isolation", "deafness")),
    Mutant("superseded counts as written", "R13", _superseded_counts, _struck("isolation", skew_ms=-1500.0)),
    Mutant("replicas order writes by their arrival", "R10", _stamped_by_arrival, _struck("isolation")),
    Mutant("no verify round", "R16", _no_verify_round, _runs("R16", 3)),
    Mutant("searches intersect what replicas have", "R16", _intersect_merge, _runs("R16", 3)),
    Mutant("absent counts as deleted", "R13", _absent_is_deleted, _struck("isolation")),
    Mutant("the first answer wins", "R13", _first_answer_wins, _struck("isolation")),
    Mutant("no read repair", "R13", _no_read_repair, _struck("isolation", "deafness")),
    Mutant("repairs push a projection", "R10", _projection_repair, _struck("isolation")),
    Mutant("the fence is not looked at", "R10", _no_fence, _struck("lost disk", "one-way cut", gap_s=1.0)),
    Mutant("moves raise no fences", "R19", _moves_without_fences, _rough_moves("P14")),
    Mutant("moves have one stage", "R19", _moves_in_one_stage, _rough_moves("no order")),
    Mutant("an origin is leased twice", "R10", _reused_origin, _runs("R10", 5)),
    Mutant(
        "a lost replica goes on counting",
        "R10",
        _lost_is_active,
        _struck("lost disk", gap_s=5.0),
    ),
    Mutant("an unknown outcome is told as none", "R10", _unknown_told_as_none, _struck("isolation", "deafness")),
    Mutant("a cancelled call keeps its place", "R27", _leaked_place, _numbered("R27", 12)),
    Mutant("stamps of the future are taken", "R12", _no_clock_check, _struck("clock set")),
    Mutant("the majority is one", "R13", _majority_is_one, _struck("isolation")),
    Mutant("a claim keeps no older write out", "R13", _claims_without_effect, _contended()),
    Mutant("a replica is made anew from one survivor", "R19", _single_survivor, _rough_moves("no order")),
    Mutant("a stale hash tree is trusted", "R17", _stale_tree, _runs("R17", 12)),
    Mutant("deletions are forgotten for their age", "R18", _collected_by_age, _forgotten),
    Mutant("session tokens are not looked at", "R13", _no_session, _struck(calls=300, link=Link(loss=0.2))),
    Mutant("points are routed by hash()", "R10", _routed_by_hash, _struck(shards=2)),
    Mutant("the log is not synced, in a cluster", "R10", _unsynced_log, _struck("power cut")),
)

__all__ = ["REPLICATION_MUTANTS"]

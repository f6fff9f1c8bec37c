"""R20: a router or a data node that stood still (SIGSTOP) while the world went on must not undo what was done since.

While it stands, every shard gets or loses a joining replica, which raises its fence, or the collection is dropped and
made anew, and others write. Then it goes on. Calls under the old map are offered to every data node that has heard of
the new one: none may be applied. And one order of all calls per id must explain what every client saw, before,
meanwhile and after.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass

from omendb.client import Client
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.checkers.linearizability import Register, check
from omendb_chaos.fleet.possible import DIMENSION, vector_of
from omendb_chaos.fleet.replicas import soon, topology_of, with_coordinators
from omendb_chaos.fleet.running import START_S, running_fleet
from omendb_chaos.rows.calling import Calling
from omendb_chaos.rows.convergence import environment
from omendb_chaos.rows.histories import IDS, History
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_common.clock import SystemClock
from omendb_common.errors import OmenDBError
from omendb_common.hlc import HybridLogicalClock
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import Apply, Looked, Lookup, ShardRef, State, Verdict
from omendb_common.topology import CollectionInfo, ReplicaPlace, Topology
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.frame_connection import FrameIdentity

SHARDS = 2
_RUNS = {"small": 3, "full": 20}
_STANDS_S = {"small": 3.0, "full": 30.0}
# A fourth data node, to join and to be sent away again.
_SIZE = FleetSize(1, 2, 4)
_TIMEOUT_S = 1.5
_AGAIN_S = 0.1
# The harness's own, which no router is leased.
_ORIGIN = 4000
_PROBE_ID = 10_000_000
_NAME = "registers"
_KINDS = ("router", "datanode", "router, collection made anew")


@dataclass
class Probes:
    """Calls under an old map: how many were offered, and how many of each verdict came back."""

    verdicts: Counter[str]
    applied: int = 0


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R20", seed, budget)
    probes = Probes(Counter())
    kinds: Counter[str] = Counter()
    with (
        environment({"OMENDB_COORDINATOR_MOVES_MAX": "0"}),  # the row moves them itself
        running_fleet(outcome, _SIZE) as fleet,
        fleet.client(timeout=START_S) as admin,
    ):
        _make(admin)
        for number in range(_RUNS[budget]):
            rng = dice("R20", seed, number)
            kind = _KINDS[number % len(_KINDS)]
            kinds[kind] += 1
            _one(outcome, fleet, admin, kind, 1 + number * IDS, rng, _STANDS_S[budget], probes)
    outcome.notes.append(f"stopped: {', '.join(f'{what} ({n})' for what, n in sorted(kinds.items()))}")
    outcome.notes.append(
        f"calls under an old map: {', '.join(f'{v} ({n})' for v, n in sorted(probes.verdicts.items()))}"
    )
    outcome.figure = (
        f"{kinds.total()} processes stopped for {_STANDS_S[budget]:.0f} s across a new map, {probes.verdicts.total()} "
        f"calls under an old one, {probes.applied} applied: {len(outcome.violations)} violations"
    )
    return outcome


def _make(admin: Client) -> None:
    admin.create_collection(_NAME, DIMENSION, replication=3, write_quorum=2, read_quorum=2, shards=SHARDS)
    admin.count(collection=_NAME, consistency="majority")


def _one(
    outcome: Outcome,
    fleet: Fleet,
    admin: Client,
    kind: str,
    first_id: int,
    rng: random.Random,
    stands_s: float,
    probes: Probes,
) -> None:
    """One stop: what is in flight before it, what happens meanwhile, and what is there afterwards."""
    before = topology_of(fleet)
    holder = before.collection(_NAME).shards[0].nodes("active")[0]
    victim = fleet.plan.of("router")[0].name if kind.startswith("router") else holder
    other = fleet.urls()[-1]
    history = History(first_id, rng)
    writing = _calling(history, fleet.urls()[0], rng, 4)
    time.sleep(rng.uniform(0.2, 0.6))
    fleet.pause(victim)
    stopped = time.monotonic()
    try:
        writing.end()
        anew = kind.endswith("anew")
        with Client(other, timeout=START_S) as client:
            if anew:
                client.drop_collection(_NAME)
                _make(client)
            else:
                _raise_fences(fleet, before.collection(_NAME))
        if not anew:
            _calling(history, other, rng, 2).end(after_s=0.5)
        time.sleep(max(0.0, stands_s - (time.monotonic() - stopped)))
    finally:
        fleet.resume(victim)
    fleet.wait_member(victim, START_S)
    asyncio.run(_offer(outcome, before, topology_of(fleet), kind, probes))
    if anew:
        return
    # Twice, through both routers: what was shown once must not change by itself.
    for url in fleet.urls():
        _calling(history, url, rng, 1, reads_only=True).end(after_s=0.2)
    verdict = check(history.operations(), Register())
    if not verdict.ok:
        outcome.violated(f"after {victim} ({kind}) stood {stands_s:.0f} s: no order of the calls: {verdict.why}")


def _calling(history: History, url: str, rng: random.Random, clients: int, *, reads_only: bool = False) -> Calling:
    return Calling(history, url, rng, clients, name=_NAME, timeout_s=_TIMEOUT_S, reads_only=reads_only)


def _raise_fences(fleet: Fleet, info: CollectionInfo) -> None:
    """Let a node join every shard, or send away the one that did: a router must count the new members' votes."""
    names = [node.name for node in fleet.plan.of("datanode")]

    async def place(client: CoordinatorClient) -> None:
        for shard in info.shards:
            stays = tuple(replica for replica in shard.replicas if replica.state == "active")
            joins = ReplicaPlace(next(n for n in names if n not in shard.nodes("active")), "joining")
            members = stays if shard.nodes("joining") else (*stays, joins)
            await client.place_shard(info.schema.uuid, shard.shard_id, shard.epoch, members, soon())

    with_coordinators(fleet, place)


async def _offer(outcome: Outcome, before: Topology, now: Topology, kind: str, probes: Probes) -> None:
    """Offer a write under the old map to every data node that it names, after the node has heard of the new one."""
    old, new = before.collection(_NAME), now.collection(_NAME)
    stamps = HybridLogicalClock(SystemClock(), origin=_ORIGIN)
    identity = FrameIdentity(now.cluster_id, "router", "chaos")
    for was, shard in zip(old.shards, new.shards, strict=True):
        stale = ShardRef(old.schema.uuid, was.shard_id, was.epoch, _ORIGIN)
        known = ShardRef(new.schema.uuid, shard.shard_id, shard.epoch, _ORIGIN)
        for node_id in was.nodes("active"):
            node = RemoteDataNode(now.members[node_id].address, identity=identity, node_id=node_id)
            try:
                heard = known if node_id in shard.nodes("active") else None
                verdict = await _offer_one(node, stale, heard, stamps.tick())
            finally:
                await node.close()
            probes.verdicts[verdict] += 1
            if verdict not in (Verdict.STALE_EPOCH.name, Verdict.NOT_HERE.name):
                probes.applied += 1
                outcome.violated(
                    f"{node_id}: {verdict} to a write of epoch {was.epoch}, it knows {shard.epoch} ({kind})"
                )


async def _offer_one(node: RemoteDataNode, stale: ShardRef, known: ShardRef | None, stamp: int) -> str:
    """The verdict on a write under an old map; "shown" when it was refused and is there all the same."""
    ids = IdColumn.of([_PROBE_ID])
    batch = WriteBatch(Op.UPSERT, ids, {"": vector_of(_PROBE_ID, 0)[None, :]}, columns_from_rows([{"value": 0}]))
    if known is not None:
        await _looked_up(node, Lookup(known, ids))
    answer = await node.apply(Apply(stale, stamp, batch), soon())
    if known is not None and State((await _looked_up(node, Lookup(known, ids))).states[0]) is State.LIVE:
        return "shown"
    return answer.verdict.name


async def _looked_up(node: RemoteDataNode, call: Lookup) -> Looked:
    """A look-up's answer; a node that says that it is busy, as one that stood still does, is asked again."""
    deadline = soon()
    while True:
        answer = await node.lookup(call, deadline)
        if answer.verdict is Verdict.OK:
            return answer
        assert isinstance(answer.error, OmenDBError) and answer.error.retryable, f"{answer.verdict}: {answer.error}"
        deadline.check("asking a busy node again")
        await asyncio.sleep(_AGAIN_S)


__all__ = ["SHARDS", "Probes", "run"]

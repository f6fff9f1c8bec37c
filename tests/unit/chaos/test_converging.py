"""R17 and R18 can fail: the same runs without anybody who brings replicas together, or with a bug planted."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from omendb_chaos.cluster.clients import Load
from omendb_chaos.cluster.converging import converging
from omendb_chaos.cluster.datanodes import AGREE, REPAIR
from omendb_chaos.cluster.runs import run_one
from omendb_chaos.cluster.swarm import IDS, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_chaos.rows.replication_mutants import REPLICATION_MUTANTS


def test_replicas_are_equal_with_a_repairer_and_not_without() -> None:
    assert not converging("R17/0/2").violations
    assert "replicas are equal, with nobody reading" in converging("R17/0/2", Options()).violations[0]


def test_a_call_that_nobody_ends_does_not_hold_a_round_up() -> None:
    """Exchanges relied on the transport to keep their deadlines: here it does not, and a lost call was for ever."""
    assert not converging("R17/0/3").violations


@pytest.mark.parametrize("node", ["d1", "d2", "d3"])
def test_a_replica_that_missed_a_message_while_it_was_up_has_it_soon_after_it_has_settled(node: str) -> None:
    """It waited for the round every ten minutes, or for a reader."""
    repair = replace(REPAIR, interval_s=600.0)
    waited: list[float] = []

    async def story(world: World) -> None:
        await world.begin()
        client = world.client(1, Load(IDS, 0, 1.0, (5.0, 5.0)))
        for point_id in IDS:
            await client.process.spawn(client.change("write", point_id))
        await world.until(lambda: not world.differences(list(IDS)), "all have everything")
        # So long that the shard is at rest, and its roots are asked for seldom.
        await asyncio.sleep(60.0)
        world.network.drops = lambda kind, target: kind == "apply" and target == node
        await client.process.spawn(client.change("write", IDS[0]))
        world.network.drops = lambda kind, target: False
        missed_s = world.loop.time()
        assert world.differences(list(IDS)), "nothing was lost"
        await world.until(lambda: not world.differences(list(IDS)), "replicas are equal, with nobody reading")
        waited.append(world.loop.time() - missed_s)
        world.check(list(IDS))

    run = told(f"missed/{node}", story, Size(routers=1, clients=1), Options(repair=repair))
    assert not run.violations
    assert AGREE.settle_s - 1.0 < waited[0] < AGREE.settle_s + 3.0


@pytest.mark.parametrize("run", ["R18/1/12", "R18/601/218"])  # by all, and by two while the third still has it
def test_a_deletion_of_unknown_outcome_that_was_forgotten_is_no_loss(run: str) -> None:
    assert run_one(run).violations == []


def test_deletions_that_are_forgotten_for_their_age_come_back() -> None:
    (mutant,) = [m for m in REPLICATION_MUTANTS if m.name == "deletions are forgotten for their age"]
    with mutant.planted():
        assert any(what.startswith("no order") for what in run_one("R18/1/1").violations)

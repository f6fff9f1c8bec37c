"""A busy shard of a simulated cluster splits, stays split under the same load, and is whole again when it is idle."""

from __future__ import annotations

from dataclasses import replace

import pytest

import omendb_coordinator.control
from omendb_chaos.cluster.clients import Load
from omendb_chaos.cluster.datanodes import REPAIR
from omendb_chaos.cluster.swarm import told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_common.feature_level import CURRENT
from omendb_coordinator.load_splits import LoadLimits
from omendb_datanode import load

IDS = list(range(1, 41))
SETTINGS = {"split_load": 0.02, "split_load_after_s": 6.0, "merge_after_s": 6.0, "moves_max": 0}


def test_a_busy_shard_splits_once_and_merges_when_nobody_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WINDOW_S", 6.0)
    monkeypatch.setattr(
        omendb_coordinator.control, "LoadLimits", lambda *given: replace(LoadLimits(*given), rows_least=1)
    )
    seen: list[int] = []

    def shards(world: World) -> int:
        (info,) = world.topology.collections.values()
        return len(info.shards)

    async def story(world: World) -> None:
        # About 13 writes and reads by id a second, each a millisecond of a replica: above the bound, twice below it.
        await world.begin(Load(IDS, 1 << 20, 0.2, (2.0, 2.0)))
        for client in world.clients:
            client.process.spawn(client.run())
        await world.until(lambda: shards(world) == 2, "a busy shard has split", 60.0)
        changed = world.topology.revision
        end = world.loop.time() + 15.0
        await world.until(lambda: world.loop.time() > end, "time passes", 60.0)
        seen.append(sum(1 for info in world.topology.collections.values() for s in info.shards if s.epoch > changed))
        seen.append(shards(world))
        for client in world.clients:
            client.load.left = 0
        await world.until(lambda: shards(world) == 1, "nobody calls any more, and it is whole again", 120.0)
        await world.quiet(IDS)
        world.check(IDS)

    options = Options(repair=REPAIR, level=CURRENT, coordinators=SETTINGS)
    run = told("splitting by load", story, Size(datanodes=4, clients=5), options)
    assert run.violations == []
    assert seen == [0, 2], "under the same load it stays as it split"

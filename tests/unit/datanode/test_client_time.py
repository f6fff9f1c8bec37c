"""What counts as time in which clients' calls were at work."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from omendb_common.ids import IdColumn
from omendb_common.shard_calls import Lookup
from omendb_datanode.client_time import ClientTime
from tests.unit.datanode.datanode_cases import TurnedClock, node_in, upsert


class Stepped(TurnedClock):
    """A clock of which monotonic time stands still until told."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 5.0

    def mono_s(self) -> float:
        """Seconds."""
        return self.now_s


def test_calls_at_one_time_count_once_and_those_under_way_until_now() -> None:
    clock = Stepped()
    clients = ClientTime(clock)
    with clients:
        clock.now_s += 1.0
        with clients:
            clock.now_s += 1.0
        assert clients.total_s() == pytest.approx(2.0)
        clock.now_s += 1.0
    clock.now_s += 100.0
    assert clients.total_s() == pytest.approx(3.0)
    with pytest.raises(OSError), clients:
        clock.now_s += 0.5
        raise OSError
    assert clients.total_s() == pytest.approx(3.5)


def test_a_write_counts_and_what_data_nodes_ask_each_other_does_not(tmp_path: Path) -> None:
    with node_in(tmp_path) as node:
        entered = 0

        class Counted(ClientTime):
            def __enter__(self) -> None:
                nonlocal entered
                entered += 1
                super().__enter__()

        node.rules.clients = Counted(node.clock)

        async def scene() -> Any:
            await node.apply(upsert([1, 2]), node.clock.stamp())
            call = Lookup(node.shard, IdColumn.of([1, 2]), records=True)
            return await node.rules.lookup(call, node.deadline())

        assert len(asyncio.run(scene()).records) == 1
        assert entered == 1 and node.rules.clients.total_s() > 0.0

"""Reads by heartbeat rounds: only who leads now may answer."""

from __future__ import annotations

import pytest

from omendb_coordinator.consensus.messages import Append, Heartbeat, HeartbeatReply
from omendb_coordinator.consensus.seam import NotLeaderError
from tests.unit.coordinator.consensus.core_cases import Table


def read(table: Table, leader: str, token: int) -> None:
    table.take(leader, table.cores[leader].read([token], table.now))


def test_a_read_is_answered_after_a_round_that_began_later() -> None:
    table = Table()
    table.elect("a")
    table.settle(0.3)
    table.tick("a", 0.1)
    before = [item for item in table.flying if isinstance(item.message, Heartbeat)]
    read(table, "a", 7)
    after = [item for item in table.flying if isinstance(item.message, Heartbeat) and item not in before]
    for item in before:
        table.give(item.to, item.sender, item.message)
    table.flying = [item for item in table.flying if isinstance(item.message, HeartbeatReply)]
    table.deliver()
    assert table.reads["a"] == []  # those rounds began before the read
    table.flying += after
    table.deliver()
    assert table.reads["a"] == [(7, 1)]


def test_a_new_leader_reads_only_once_it_knows_what_is_committed() -> None:
    table = Table()
    table.tick("a", 2.5)
    table.deliver(lambda item: not isinstance(item.message, Append))
    assert table.role("a") == "leader"
    read(table, "a", 1)
    table.deliver(lambda item: not isinstance(item.message, Append))
    assert table.reads["a"] == []
    table.deliver()
    assert table.reads["a"] == [(1, 1)]


def test_a_leader_that_was_replaced_answers_nothing() -> None:
    table = Table()
    table.elect("a")
    table.settle(0.3)
    read(table, "a", 1)
    table.flying.clear()
    table.settle(3.0, "b", "c")
    assert {table.role("b"), table.role("c")} == {"leader", "follower"}
    table.settle(1.0)
    assert table.reads["a"] == []


def test_followers_do_not_read() -> None:
    table = Table()
    table.elect("a")
    with pytest.raises(NotLeaderError) as error:
        read(table, "b", 1)
    assert error.value.leader == "a"


def test_one_alone_reads_at_once() -> None:
    table = Table(members=("a",))
    table.tick("a", 0.1)
    read(table, "a", 3)
    assert table.reads["a"] == [(3, 1)]

"""A member that lost its disk: it must catch up before it votes or counts."""

from __future__ import annotations

from omendb_coordinator.consensus.core import Recovered
from omendb_coordinator.consensus.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    Stand,
    Vote,
    VoteReply,
)
from tests.unit.coordinator.consensus.core_cases import Table


def lose_disk(table: Table, name: str) -> None:
    table.flying.clear()
    table.start(name, Recovered(rejoining=True))


def test_a_member_without_its_disk_neither_votes_nor_stands() -> None:
    table = Table()
    lose_disk(table, "b")
    table.give("b", "a", PreVote(5, 9, 4))
    table.give("b", "a", Vote(5, 9, 4, False))
    table.give("b", "a", Vote(5, 9, 4, True))
    table.tick("b", 100.0)
    table.give("b", "a", Stand(0))
    assert table.flying == []
    assert table.role("b") == "rejoining"


def test_it_catches_up_and_then_votes_again() -> None:
    table = Table()
    table.elect("a")
    table.propose("a", b"x")
    table.settle(0.3)
    lose_disk(table, "c")
    table.settle(10.0)
    assert table.applied["c"] == [b"x"]
    assert table.role("c") == "rejoining"  # not long enough ago
    table.settle(11.0)
    assert table.role("c") == "follower"
    assert any(save.end_rejoin for save in table.saved["c"])
    table.flying.clear()
    table.settle(4.0, "b", "c")
    assert "leader" in {table.role("b"), table.role("c")}


def test_what_it_has_does_not_count_while_it_rejoins() -> None:
    table = Table()
    table.elect("a")
    table.settle(0.3)
    lose_disk(table, "b")
    table.settle(0.5)
    before = table.cores["a"].commit_index
    table.propose("a", b"x")
    table.among("a", "b")
    assert table.cores["b"].log.last_index == table.cores["a"].log.last_index
    assert table.cores["a"].commit_index == before


def test_it_is_no_part_of_a_majority_that_a_leader_hears() -> None:
    table = Table()
    table.elect("a")
    table.settle(0.3)
    lose_disk(table, "b")
    table.settle(4.0, "a", "b")
    assert table.role("a") != "leader"


def test_two_lost_disks_of_three_leave_the_group_unavailable() -> None:
    table = Table()
    table.elect("a")
    table.propose("a", b"x")
    table.settle(0.3)
    lose_disk(table, "b")
    lose_disk(table, "c")
    table.settle(60.0)
    assert {core.role for core in table.cores.values()} & {"leader"} == set()
    assert table.role("b") == table.role("c") == "rejoining"


def test_answers_from_before_the_loss_do_not_count_after_it() -> None:
    table = Table()
    table.elect("a")
    table.settle(0.3)
    table.propose("a", b"x")
    table.deliver(lambda item: item.to == "b" and isinstance(item.message, Append))
    late = [item for item in table.flying if item.sender == "b" and isinstance(item.message, AppendReply)]
    assert late
    before = table.cores["a"].commit_index
    lose_disk(table, "b")
    table.tick("a", 0.1)
    # c hears nothing; b answers, and says that it rejoins.
    table.deliver(lambda item: {item.sender, item.to} == {"a", "b"})
    for item in late:
        table.give("a", item.sender, item.message)
    assert table.cores["a"].commit_index == before


def test_a_promise_to_an_earlier_life_is_none() -> None:
    """A heartbeat that names the target of another incarnation must not end the rejoining."""
    table = Table()
    lose_disk(table, "b")
    table.give("b", "a", Append(3, 1, 0, 0, 0, ()))
    table.now += 1000
    table.give("b", "a", Heartbeat(3, 1, 12345, 1))
    assert table.role("b") == "rejoining"
    replies = [item.message for item in table.flying if isinstance(item.message, HeartbeatReply)]
    table.give("b", "a", Heartbeat(3, 2, replies[-1].incarnation, 1))
    assert table.role("b") == "rejoining"  # entry 1 is not committed here


def test_votes_given_again_are_only_given_after_the_marker_is_gone() -> None:
    table = Table(instant=False)
    table.start("b", Recovered(rejoining=True))
    core = table.cores["b"]
    incarnation = core._state.incarnation
    table.give("b", "a", Append(1, 1, 0, 0, 0, ()))
    core._state.commit_index = 1
    table.now += 1000
    table.give("b", "a", Heartbeat(1, 2, incarnation, 1))
    assert table.role("b") == "follower"
    table.now += 5
    table.give("b", "c", PreVote(2, 0, 0))
    table.give("b", "c", Vote(2, 0, 0, False))
    assert not [item for item in table.flying if isinstance(item.message, PreVoteReply | VoteReply)]
    table.save("b")
    assert [item for item in table.flying if isinstance(item.message, VoteReply)]

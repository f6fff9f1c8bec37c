"""Elections: who may lead, and who may not."""

from __future__ import annotations

import pytest

from omendb_coordinator.consensus.core import Recovered
from omendb_coordinator.consensus.messages import (
    Append,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    Stand,
    Vote,
    VoteReply,
)
from omendb_coordinator.consensus.seam import NotLeaderError
from omendb_coordinator.consensus.state import RaftFatalError
from tests.unit.coordinator.consensus.core_cases import Table, log_of


def test_a_group_elects_one_leader_that_commits_a_noop() -> None:
    table = Table()
    table.elect("a")
    assert [core.leader for core in table.cores.values()] == ["a"] * 3
    table.settle(0.3)
    assert [core.commit_index for core in table.cores.values()] == [1, 1, 1]
    assert {core.term for core in table.cores.values()} == {1}


def test_a_group_of_one_leads_as_soon_as_its_vote_is_saved() -> None:
    table = Table(members=("a",), instant=False)
    table.tick("a")
    assert table.role("a") == "candidate"
    table.save("a")
    assert table.role("a") == "leader"
    table.propose("a", b"x")
    table.save("a")
    assert table.applied["a"] == [b"x"]


def test_no_vote_leaves_before_it_is_saved() -> None:
    table = Table(instant=False)
    table.tick("a", 2.5)
    table.save("a")
    table.deliver(lambda item: isinstance(item.message, PreVote))
    for name in ("b", "c"):
        table.save(name)
    table.deliver(lambda item: isinstance(item.message, PreVoteReply))
    assert not any(isinstance(item.message, Vote) for item in table.flying)
    table.save("a")
    assert any(isinstance(item.message, Vote) for item in table.flying)
    table.deliver(lambda item: isinstance(item.message, Vote))
    assert not any(isinstance(item.message, VoteReply) for item in table.flying)
    table.save("b")
    assert [item.sender for item in table.flying if isinstance(item.message, VoteReply)] == ["b"]


def test_a_candidate_counts_its_own_vote_only_once_it_is_saved() -> None:
    table = Table(instant=False)
    table.tick("a", 2.5)
    table.save("a")
    table.give("a", "b", PreVoteReply(1, True))
    table.give("a", "b", VoteReply(1, True))
    assert table.role("a") == "candidate"
    table.save("a")
    assert table.role("a") == "leader"


def test_one_vote_per_term_even_after_a_restart() -> None:
    table = Table()
    table.give("c", "a", Vote(5, 0, 0, False))
    table.restart("c")
    table.now += 10
    table.give("c", "b", Vote(5, 0, 0, False))
    table.give("c", "a", Vote(5, 0, 0, False))
    replies = [(item.to, item.message) for item in table.flying if isinstance(item.message, VoteReply)]
    assert replies == [("a", VoteReply(5, True)), ("b", VoteReply(5, False)), ("a", VoteReply(5, True))]


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"), [(3, 2, True), (2, 2, False), (9, 1, False), (1, 3, True)]
)
def test_votes_go_to_logs_that_are_up_to_date(last_index: int, last_term: int, granted: bool) -> None:
    table = Table()
    table.start("b", Recovered(term=2, log=log_of(1, 1, 2)))
    table.give("b", "a", PreVote(4, last_index, last_term))
    table.give("b", "a", Vote(4, last_index, last_term, False))
    assert [item.message.granted for item in table.flying if isinstance(item.message, PreVoteReply)] == [granted]
    assert [item.message.granted for item in table.flying if isinstance(item.message, VoteReply)] == [granted]


def test_a_member_that_comes_back_does_not_disturb_a_leader() -> None:
    """D-P2: without a pre-vote the cut member's terms would run away and depose the leader."""
    table = Table()
    table.elect("a")
    for _ in range(50):
        table.tick("c")  # cut off: it asks, nobody hears
        table.flying.clear()
        table.settle(0.1, "a", "b")
    assert table.role("c") == "candidate"
    assert table.cores["c"].term == 1
    table.settle(1.0)
    assert table.role("a") == "leader"
    assert table.cores["a"].term == 1


def test_a_follower_that_hears_the_leader_protects_it_from_votes_of_later_terms() -> None:
    table = Table()
    table.elect("a")
    table.settle(0.2)
    table.give("b", "c", Vote(9, 99, 9, False))
    assert table.cores["b"].term == 1
    table.give("b", "c", Vote(9, 99, 9, True))
    assert table.cores["b"].term == 9


def test_a_leader_without_a_majority_steps_down() -> None:
    table = Table()
    table.elect("a")
    for _ in range(25):
        table.tick("a", 0.1)
        table.flying.clear()
    assert table.role("a") != "leader"
    with pytest.raises(NotLeaderError):
        table.propose("a", b"x")


def test_answers_of_later_terms_depose() -> None:
    table = Table()
    table.elect("a")
    table.give("a", "b", HeartbeatReply(7, 0, 0, 0))
    assert table.role("a") == "follower"
    assert table.cores["a"].term == 7


def test_a_leader_of_the_past_is_told() -> None:
    table = Table()
    table.elect("a")
    table.start("b", Recovered(term=6))
    table.give("b", "a", Heartbeat(1, 5, 0, 0))
    table.among("a", "b")
    assert table.cores["a"].term == 6


def test_two_leaders_of_one_term_end_the_process() -> None:
    table = Table()
    table.elect("a")
    with pytest.raises(RaftFatalError):
        table.give("a", "b", Append(1, 1, 0, 0, 0, ()))
    with pytest.raises(RaftFatalError):
        table.give("c", "b", Heartbeat(1, 1, 0, 0))


def test_strangers_are_ignored() -> None:
    """D9, S12: there is no message that adds a member, and no member that was not there from the start."""
    table = Table()
    table.elect("a")
    table.give("a", "mallory", HeartbeatReply(99, 0, 0, 0))
    table.give("a", "mallory", Append(99, 1, 0, 0, 0, ()))
    assert table.role("a") == "leader"
    assert table.cores["a"].members == ("a", "b", "c")


def test_a_leader_hands_over_to_a_member_that_has_everything() -> None:
    table = Table()
    table.elect("a")
    table.propose("a", b"x")
    table.settle(0.3)
    table.take("a", table.cores["a"].hand_over(table.now))
    table.among("a", "b", "c")
    roles = {name: core.role for name, core in table.cores.items()}
    assert roles["a"] == "follower"
    assert sorted(roles.values()) == ["follower", "follower", "leader"]
    assert table.cores["a"].term == 2


def test_an_order_to_stand_from_anybody_but_the_leader_is_ignored() -> None:
    table = Table()
    table.elect("a")
    table.give("c", "b", Stand(1))
    table.give("c", "a", Stand(0))
    assert table.role("c") == "follower"

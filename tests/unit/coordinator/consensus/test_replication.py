"""Replication: what is kept, what is cut, what is committed and when."""

from __future__ import annotations

import pytest

from omendb_common.errors import ResourceExhaustedError
from omendb_coordinator.consensus.core import Recovered
from omendb_coordinator.consensus.messages import COMMAND, Append, AppendReply, Entry, Heartbeat
from omendb_coordinator.consensus.seam import COMMAND_BYTES_MAX
from omendb_coordinator.consensus.state import RaftFatalError
from tests.unit.coordinator.consensus.core_cases import Table, log_of, with_settings


def entry(index: int, term: int) -> Entry:
    return Entry(index, term, COMMAND, b"%d.%d" % (index, term))


def replies(table: Table, sender: str) -> list[AppendReply]:
    return [item.message for item in table.flying if item.sender == sender and isinstance(item.message, AppendReply)]


def test_a_command_is_applied_everywhere_once() -> None:
    table = Table()
    table.elect("a")
    table.propose("a", b"x", b"y")
    table.settle(0.5)
    assert table.applied == {"a": [b"x", b"y"], "b": [b"x", b"y"], "c": [b"x", b"y"]}


def test_a_majority_of_saved_logs_commits_and_no_less() -> None:
    table = Table(instant=False)
    table.tick("a", 2.5)
    for _ in range(10):
        table.deliver()
        for name in table.members:
            table.save(name)
    assert table.cores["a"].commit_index == 1
    (index,) = table.propose("a", b"x")
    table.deliver()
    assert table.cores["a"].commit_index == 1  # nobody has saved it
    table.save("b")
    table.deliver()
    assert table.cores["a"].commit_index == 1  # one of three has
    table.save("a")
    assert table.cores["a"].commit_index == index  # two have


def test_two_followers_commit_what_the_leader_could_not_save_yet() -> None:
    table = Table(instant=False)
    table.tick("a", 2.5)
    for _ in range(10):
        table.deliver()
        for name in table.members:
            table.save(name)
    (index,) = table.propose("a", b"x")
    table.deliver()
    table.save("b")
    table.save("c")
    table.deliver()
    assert table.cores["a"].commit_index == index
    assert table.applied["a"] == []  # applying takes its turn after the save
    table.save("a")
    assert table.applied["a"] == [b"x"]


def test_a_batch_that_comes_again_takes_nothing_back() -> None:
    """Rule 1 (S1): a stale, shorter append must not cut off what was acknowledged."""
    table = Table()
    table.start("b", Recovered(term=1, log=log_of(1, 1, 1)))
    table.give("b", "a", Append(1, 1, 0, 0, 0, (entry(1, 1),)))
    assert table.cores["b"].log.last_index == 3
    assert replies(table, "b") == [AppendReply(1, 1, 0, True, 0, 1)]


def test_the_first_conflict_is_where_the_log_is_cut() -> None:
    table = Table()
    table.start("b", Recovered(term=3, log=log_of(1, 1, 2, 2)))
    table.give("b", "a", Append(3, 1, 1, 1, 0, (entry(2, 1), entry(3, 3))))
    log = table.cores["b"].log
    assert [log.term_at(index) for index in range(1, 5)] == [1, 1, 3, None]
    assert table.saved["b"][-1].truncate_from == 3
    assert table.saved["b"][-1].entries == [entry(3, 3)]


def test_a_conflict_with_what_is_committed_ends_the_process() -> None:
    table = Table()
    table.start("b", Recovered(term=2, log=log_of(1, 1)))
    table.give("b", "a", Append(2, 1, 2, 1, 2, ()))
    assert table.cores["b"].commit_index == 2
    with pytest.raises(RaftFatalError):
        table.give("b", "a", Append(2, 1, 1, 1, 2, (entry(2, 2),)))
    with pytest.raises(RaftFatalError):
        table.give("b", "a", Append(2, 1, 2, 2, 2, ()))


def test_a_follower_commits_what_was_compared_and_no_more() -> None:
    """Rule 2 (S3, D7): its own tail may be another than the leader's."""
    table = Table()
    table.start("b", Recovered(term=2, log=log_of(1, 1, 1)))
    table.give("b", "a", Append(2, 1, 1, 1, 3, (entry(2, 1),)))
    assert table.cores["b"].commit_index == 2
    table.give("b", "a", Heartbeat(2, 9, 0, 0))
    assert table.cores["b"].commit_index == 2


def test_refusals_say_where_to_try_next() -> None:
    table = Table()
    table.start("b", Recovered(term=2, log=log_of(1, 1, 1)))
    table.give("b", "a", Append(2, 1, 7, 2, 0, ()))
    table.give("b", "a", Append(2, 1, 2, 2, 0, ()))
    assert [(reply.accepted, reply.prev_index, reply.index) for reply in replies(table, "b")] == [
        (False, 7, 4),
        (False, 2, 1),
    ]


def test_an_append_from_before_the_log_is_answered_with_what_is_committed() -> None:
    table = Table()
    table.start("b", Recovered(term=2, log=log_of(2, 2, base=(10, 2))))
    table.give("b", "a", Append(2, 1, 12, 2, 12, ()))
    table.give("b", "a", Append(2, 1, 3, 1, 12, (entry(4, 1),)))
    assert [reply.index for reply in replies(table, "b")] == [12, 12]


def test_only_entries_of_the_own_term_are_counted() -> None:
    """Figure 8 of the Raft paper: an old entry on a majority may still be replaced."""
    table = Table(members=("a", "b", "c", "d", "e"))
    for name in table.members:
        table.start(name, Recovered(term=3, log=log_of(1, 2) if name in "ab" else log_of(1)))
    leader = table.elect("a", "b", "c", "d")
    assert leader.commit_index == 3  # its own no-op, and everything before with it
    assert leader.log.term_at(3) == leader.term

    table = Table(members=("a", "b", "c", "d", "e"))
    for name in table.members:
        table.start(name, Recovered(term=3, log=log_of(1, 2) if name in "ab" else log_of(1)))
    table.tick("a", 2.5)
    table.deliver(lambda item: not isinstance(item.message, Append | Heartbeat))
    assert table.role("a") == "leader"
    term = table.cores["a"].term
    # Two members say that they have entry 2 of term 2, but not the no-op: nothing is committed.
    table.give("a", "b", AppendReply(term, 1, 0, True, 0, 2))
    table.give("a", "c", AppendReply(term, 1, 0, True, 0, 2))
    assert table.cores["a"].commit_index == 0


def test_answers_of_other_terms_do_not_count() -> None:
    """Rule 3 (S5)."""
    table = Table()
    table.elect("a")
    (index,) = table.propose("a", b"x")
    table.flying.clear()
    table.give("a", "b", AppendReply(0, 99, 0, True, 0, index))
    assert table.cores["a"].commit_index < index
    table.give("a", "b", AppendReply(1, 99, 0, True, 0, index))
    assert table.cores["a"].commit_index == index


def test_an_answer_for_more_than_the_leader_has_is_nonsense() -> None:
    table = Table()
    table.elect("a")
    table.give("a", "b", AppendReply(1, 99, 0, True, 0, 1000))
    assert table.cores["a"].commit_index == 1


def test_lost_appends_are_sent_again() -> None:
    table = Table()
    table.elect("a")
    table.propose("a", b"x", b"y")
    table.flying.clear()
    table.settle(1.5)
    assert table.applied["c"] == [b"x", b"y"]


def test_messages_and_windows_are_bounded() -> None:
    table = Table(settings=with_settings(message_bytes=1000, window=3))
    table.elect("a")
    table.settle(0.5)
    table.propose("a", *[b"x" * 400] * 100)
    appends = [item.message for item in table.flying if item.to == "b" and isinstance(item.message, Append)]
    assert len(appends) == 3
    assert all(len(append.entries) == 2 for append in appends)
    table.settle(0.5)
    assert len(table.applied["b"]) == 100


def test_one_big_command_travels_alone() -> None:
    table = Table(settings=with_settings(message_bytes=1000))
    table.elect("a")
    table.propose("a", b"s", b"b" * COMMAND_BYTES_MAX, b"t")
    table.settle(0.5)
    assert [len(command) for command in table.applied["c"]] == [1, COMMAND_BYTES_MAX, 1]


def test_a_leader_takes_no_more_than_it_can_hold() -> None:
    table = Table(settings=with_settings(pending_bytes_max=COMMAND_BYTES_MAX))
    table.elect("a")
    table.propose("a", b"x" * COMMAND_BYTES_MAX)
    with pytest.raises(ResourceExhaustedError):
        table.propose("a", b"y")
    table.settle(0.5)
    table.propose("a", b"y")
    table.settle(0.5)
    assert table.applied["b"][1:] == [b"y"]


def test_a_long_conflicting_tail_is_replaced_without_running_in_circles() -> None:
    """D8: the old leader's tail conflicts and there are many batches to send."""
    table = Table(settings=with_settings(message_bytes=2000, window=4))
    table.elect("a")
    table.settle(0.3)
    table.propose("a", *[b"lost"] * 30)
    table.flying.clear()
    table.settle(3.0, "b", "c")
    (new,) = [name for name in ("b", "c") if table.role(name) == "leader"]
    for number in range(40):
        table.propose(new, b"%04d" % number * 50)
        table.settle(0.1, "b", "c")
    sent = 0
    for _ in range(30):
        table.now += 0.1
        for name in table.members:
            table.tick(name)
        sent += sum(len(i.message.entries) for i in table.flying if i.to == "a" and isinstance(i.message, Append))
        table.among("a", "b", "c")
    assert table.applied["a"] == table.applied[new]
    assert b"lost" not in table.applied["a"]
    assert sent < 120  # 41 entries, not megabytes


def test_a_tail_that_was_never_committed_is_never_reported_as_done() -> None:
    """D7: the old leader is told nothing but that its commands did not happen."""
    table = Table()
    table.elect("a")
    lost = table.propose("a", b"lost1", b"lost2")
    table.flying.clear()
    table.settle(3.0, "b", "c")
    table.settle(3.0)
    assert all(b"lost" not in command for commands in table.applied.values() for command in commands)
    assert table.cores["a"].log.term_at(lost[0]) != 1

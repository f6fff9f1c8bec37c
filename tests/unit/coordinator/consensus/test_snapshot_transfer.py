"""Snapshots between members: chunks that are lost, come twice, are damaged or of another leader."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omendb_coordinator.consensus.core import Recovered
from omendb_coordinator.consensus.messages import COMMAND, Append, AppendReply, Chunk, ChunkReply, Entry, Snapshot
from tests.unit.coordinator.consensus.core_cases import Table, log_of, snapshot_of, with_settings

SNAPSHOT = snapshot_of(20, 2, size=100)


def chunk(offset: int, size: int = 40, *, of: Snapshot = SNAPSHOT, term: int = 3) -> Chunk:
    return Chunk(term, 1, of.index, of.term, len(of.data), of.checksum, offset, of.data[offset : offset + size])


def follower(recovered: Recovered | None = None) -> Table:
    table = Table()
    table.start("b", recovered or Recovered(term=3))
    return table


def installed(table: Table) -> list[Snapshot]:
    return [save.snapshot for save in table.saved["b"] if save.snapshot is not None]


def offsets(table: Table) -> list[int]:
    return [item.message.offset for item in table.flying if isinstance(item.message, ChunkReply)]


def test_chunks_in_order_make_the_snapshot() -> None:
    table = follower()
    for offset in (0, 40, 80):
        table.give("b", "a", chunk(offset))
    assert installed(table) == [SNAPSHOT]
    assert offsets(table) == [40, 80]
    assert table.cores["b"].commit_index == 20
    assert isinstance(table.flying[-1].message, AppendReply)
    assert table.flying[-1].message.index == 20


def test_lost_and_repeated_chunks_are_asked_for_or_ignored() -> None:
    table = follower()
    for offset in (0, 0, 80, 40, 0, 80):
        table.give("b", "a", chunk(offset))
    assert offsets(table) == [40, 40, 40, 80, 80]
    assert installed(table) == [SNAPSHOT]


@pytest.mark.parametrize("change", ["leader", "term", "snapshot"])
def test_chunks_of_two_transfers_are_never_mixed(change: str) -> None:
    """Rule 5: the audit's simulator found states made of two snapshots."""
    table = follower()
    table.give("b", "a", chunk(0))
    other = Snapshot.of(20, 2, bytes(100))
    if change == "leader":
        table.give("b", "c", chunk(40, term=4))
    elif change == "term":
        table.give("b", "a", chunk(40, term=4))
    else:
        table.give("b", "a", chunk(40, of=other))
    assert offsets(table)[-1] == 0
    assert installed(table) == []


def test_a_damaged_snapshot_is_sent_again_and_never_installed() -> None:
    table = follower()
    table.give("b", "a", chunk(0))
    table.give("b", "a", chunk(40))
    table.give("b", "a", replace(chunk(80), data=bytes(20)))
    assert installed(table) == []
    assert offsets(table)[-1] == 0
    for offset in (0, 40, 80):
        table.give("b", "a", chunk(offset))
    assert installed(table) == [SNAPSHOT]


def test_an_old_snapshot_changes_nothing() -> None:
    table = follower(Recovered(term=3, log=log_of(3, 3, base=(30, 3)), snapshot=snapshot_of(30, 3)))
    for offset in (0, 40, 80):
        table.give("b", "a", chunk(offset))
    assert installed(table) == []
    assert table.cores["b"].log.last_index == 32
    answers = [item.message for item in table.flying if isinstance(item.message, AppendReply)]
    assert [(answer.accepted, answer.index) for answer in answers] == [(True, 30)] * 3


def test_a_snapshot_within_the_log_keeps_what_follows() -> None:
    table = follower(Recovered(term=3, log=log_of(*[2] * 25)))
    for offset in (0, 40, 80):
        table.give("b", "a", chunk(offset))
    assert table.cores["b"].log.base_index == 20
    assert table.cores["b"].log.last_index == 25
    assert table.saved["b"][-1].keep_suffix


def test_a_snapshot_replaces_a_log_of_another_term() -> None:
    table = follower(Recovered(term=3, log=log_of(*[1] * 25)))
    for offset in (0, 40, 80):
        table.give("b", "a", chunk(offset))
    assert (table.cores["b"].log.base_index, table.cores["b"].log.last_index) == (20, 20)
    assert not table.saved["b"][-1].keep_suffix


def test_nothing_is_committed_while_a_snapshot_arrives() -> None:
    """S3, D7."""
    table = follower(Recovered(term=3, log=log_of(*[1] * 25)))
    table.give("b", "a", chunk(0))
    table.give("b", "a", chunk(40))
    assert table.cores["b"].commit_index == 0
    assert table.applied["b"] == []


def test_a_snapshot_of_an_absurd_size_is_ignored() -> None:
    table = follower()
    table.give("b", "a", replace(chunk(0), size=1 << 62))
    assert table.flying == []


def test_a_member_that_lags_gets_the_snapshot_and_then_the_log() -> None:
    table = Table(settings=with_settings(chunk_bytes=7))
    table.elect("a")
    table.settle(0.3)
    table.propose("a", *[b"%d" % number for number in range(10)])
    table.settle(0.5, "a", "b")
    state = Snapshot.of(11, 1, b"the state after eleven entries")
    table.cores["a"].on_compacted(state, 9)
    table.propose("a", b"after")
    lost = iter([True, False, False] * 100)
    for _ in range(60):
        table.now += 0.3
        for name in table.members:
            table.tick(name)
        # Every third chunk or answer is lost.
        table.flying = [
            item for item in table.flying if not (isinstance(item.message, Chunk | ChunkReply) and next(lost))
        ]
        table.among("a", "b", "c")
    assert table.cores["c"].snapshot == state
    assert table.cores["c"].log.last_index == 12
    assert table.applied["c"] == [b"after"]


def test_a_leader_goes_on_with_the_log_after_a_snapshot() -> None:
    table = Table()
    table.start("a", Recovered(term=2, log=log_of(2, 2, base=(20, 2)), snapshot=SNAPSHOT))
    table.elect("a", "b", "c")
    table.settle(3.0)
    assert [core.log.last_index for core in table.cores.values()] == [23, 23, 23]
    table.give("b", "a", Append(table.cores["a"].term, 1, 0, 0, 0, (Entry(1, 1, COMMAND, b"old"),)))
    assert table.cores["b"].log.base_index == 20

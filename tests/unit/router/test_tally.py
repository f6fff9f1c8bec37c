"""The count of a write's replies, row by row, against the rules spelled out one row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError, ReplicaFailedError, ResourceExhaustedError, UnavailableError
from omendb_common.quorum import Quorums
from omendb_common.ring import RING
from omendb_common.shard_calls import Applied, Verdict
from omendb_common.topology import ReplicaPlace, ReplicaState, Shard
from omendb_router.tally import Ballot, Step, Tally, weakest

ACTIVE: list[ReplicaState] = ["active"] * 5


def shard(*states: ReplicaState) -> Shard:
    return Shard(0, 0, RING, 1, tuple(ReplicaPlace(f"d{n}", state) for n, state in enumerate(states, 1)))


def three(rows: int = 1, **options: Any) -> Tally:
    return Tally(Ballot.of(shard("active", "active", "active"), Quorums(3, 2, 2)), rows, **options)


def ok(superseded: dict[int, int] | None = None, missing: tuple[int, ...] = (), **more: Any) -> Applied:
    lost = superseded or {}
    return Applied(
        Verdict.OK,
        superseded=np.array(list(lost), np.int64),
        newer=np.array(list(lost.values()), np.uint64),
        missing=np.array(missing, np.int64),
        **more,
    )


NOT_SENT = (UnavailableError("refused"), False)
LOST = (UnavailableError("lost", outcome="unknown"), True)

Reply = Applied | tuple[UnavailableError, bool]


def count(tally: Tally, *replies: Reply) -> Step:
    for number, reply in enumerate(replies, 1):
        if isinstance(reply, Applied):
            tally.hear(f"d{number}", reply)
        else:
            tally.lose(f"d{number}", reply[0], sent=reply[1])
    return tally.step()


STALE = Applied(Verdict.STALE_EPOCH)
AHEAD = Applied(Verdict.CLOCK_AHEAD)
BAD = Applied(Verdict.REFUSED, error=InvalidArgumentError("bad"))
FULL = Applied(Verdict.REFUSED, error=ResourceExhaustedError("full"))
FAILED = Applied(Verdict.REFUSED, error=ReplicaFailedError("fsync", outcome="unknown"))


@pytest.mark.parametrize(
    "replies, expected",
    [
        ((ok(),), Step.WAIT),
        ((ok(), ok()), Step.DONE),
        ((ok(), LOST, ok()), Step.DONE),
        ((NOT_SENT, NOT_SENT, NOT_SENT), Step.REFUSED),
        ((NOT_SENT, NOT_SENT), Step.WAIT),
        ((BAD, BAD), Step.WAIT),
        ((BAD, BAD, BAD), Step.REFUSED),
        ((FULL, AHEAD, NOT_SENT), Step.REFUSED),
        ((BAD, BAD, ok()), Step.UNKNOWN),
        ((FAILED, FULL, FULL), Step.UNKNOWN),
        ((LOST, NOT_SENT, NOT_SENT), Step.UNKNOWN),
        ((LOST, ok(), NOT_SENT), Step.UNKNOWN),
        ((STALE, ok()), Step.WAIT),
        ((STALE, STALE), Step.REFRESH),
        ((STALE, ok(), NOT_SENT), Step.REFRESH),
        ((STALE, ok(), ok()), Step.DONE),
        ((ok({0: 9}), ok({0: 9})), Step.RESTAMP),
        ((ok({0: 9}), ok()), Step.WAIT),
        ((ok({0: 9}), ok(), ok({0: 9})), Step.RESTAMP),
        ((ok(missing=(0,)), ok()), Step.WAIT),
        ((ok(missing=(0,)), ok(), LOST), Step.REPAIR),
        ((ok(missing=(0,)), ok(missing=(0,)), LOST), Step.REPAIR),
    ],
)
def test_what_replies_amount_to(replies: tuple[Reply, ...], expected: Step) -> None:
    assert count(three(), *replies) is expected


def test_a_version_that_one_replica_hides_is_not_written_twice() -> None:
    """d3 has the old version and d2 may get it: a quorum of the two would read it, and then what d1 has, and then it
    again under a new stamp. So its fate is left unknown, as it is."""
    assert count(three(), ok({0: 9}), LOST, ok()) is Step.UNKNOWN


def test_the_echo_of_a_stamp_is_settled_by_newer_versions_and_says_so() -> None:
    tally = three(2, echo=True)
    assert count(tally, ok({0: 9}), ok({0: 9}, missing=())) is Step.DONE
    assert tally.overtaken() == 1
    tally = three(1, echo=True)
    assert count(tally, ok({0: 9}), LOST, ok()) is Step.DONE
    assert tally.overtaken() == 1
    assert count(three(1, echo=True, may_exist=True), BAD, BAD, BAD) is Step.UNKNOWN


def test_a_row_in_part_applied_is_not_called_untouched() -> None:
    tally = three(1)
    count(tally, ok({0: 9}, partial=True), ok({0: 9}), NOT_SENT)
    assert not tally.untouched()


def test_a_joining_replica_counts_in_the_new_set_only() -> None:
    ballot = Ballot.of(shard("active", "active", "leaving", "joining", "behind", "lost"), Quorums(3, 2, 2))
    assert ballot.targets == ("d1", "d2", "d3", "d4", "d5")
    tally = Tally(ballot, 1)
    assert count(tally, ok()) is Step.WAIT
    tally.hear("d3", ok())
    assert tally.step() is Step.WAIT
    assert tally.acked() == 1
    tally.hear("d5", ok())
    assert tally.step() is Step.WAIT
    tally.hear("d4", ok())
    assert tally.step() is Step.DONE


def test_the_weakest_durability_is_what_is_promised() -> None:
    tally = three()
    count(tally, ok(durability="fsync"), ok(durability="interval"))
    assert tally.durability == "interval"
    assert [weakest("", "fsync"), weakest("os", "fsync"), weakest("", "")] == ["fsync", "os", ""]


@st.composite
def votes(draw: st.DrawFn) -> tuple[int, int, int, list[Any]]:
    n = draw(st.integers(1, 5))
    need = draw(st.integers(1, n))
    rows = draw(st.integers(1, 4))
    row = st.sampled_from(["ok", "newer", "missing"])
    reply = st.one_of(st.lists(row, min_size=rows, max_size=rows), st.sampled_from(["lost", "stale", "bad", "nothing"]))
    return n, need, rows, draw(st.lists(reply, min_size=n, max_size=n))


@settings(deadline=None)
@given(votes(), st.booleans())
def test_rows_are_settled_by_their_own_votes(drawn: tuple[int, int, int, list[Any]], echo: bool) -> None:
    n, need, rows, replies = drawn
    tally = Tally(Ballot.of(shard(*ACTIVE[:n]), Quorums(n, need, need)), rows, echo, echo)
    yes = [0] * rows
    for number, reply in enumerate(replies, 1):
        if isinstance(reply, list):
            newer = {row: 7 for row, vote in enumerate(reply) if vote == "newer"}
            tally.hear(f"d{number}", ok(newer, tuple(r for r, vote in enumerate(reply) if vote == "missing")))
            yes = [y + (vote == "ok" or (echo and vote == "newer")) for y, vote in zip(yes, reply, strict=True)]
        elif reply == "lost":
            tally.lose(f"d{number}", LOST[0], sent=True)
        elif reply in ("stale", "bad"):
            tally.hear(f"d{number}", STALE if reply == "stale" else BAD)
    assert tally.settled().tolist() == [y >= need for y in yes]
    step = tally.step()
    waiting = replies.count("nothing")
    assert (step is Step.DONE) == all(y >= need for y in yes)
    if step is Step.REFUSED:
        assert not echo
        assert "lost" not in replies
        assert not any(isinstance(reply, list) and "ok" in reply for reply in replies)
    if any(need - waiting <= y < need for y in yes):
        assert step is Step.WAIT
    if step is Step.RESTAMP:
        held = [sum(isinstance(r, list) and r[row] == "newer" for r in replies) for row in range(rows)]
        assert all(h >= n - need + 1 for h, y in zip(held, yes, strict=True) if y < need)

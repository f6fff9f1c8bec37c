"""Liveness: silence becomes suspicion and then absence; a new leader, or one that stood still, blames nobody."""

from __future__ import annotations

from dataclasses import replace

from omendb_common.topology import PROBLEM_CHARS_MAX, PROBLEMS_MAX, Member, MemberState
from omendb_coordinator.liveness import Liveness, Transition
from tests.unit.coordinator.catalog_cases import node


def _liveness(now_s: float = 100.0) -> Liveness:
    liveness = Liveness(suspect_s=3.0, down_s=10.0, grace_s=10.0, stall_s=2.0, forget_s=60.0)
    liveness.elected(now_s)
    return liveness


def _run(liveness: Liveness, member: Member, start_s: float, stop_s: float, beats_until_s: float) -> list[str]:
    """States in order of their times, one decision per second."""
    seen = []
    for now_s in range(int(start_s), int(stop_s) + 1):
        if now_s <= beats_until_s:
            liveness.heard(member.node_id, member.incarnation, now_s)
        for due in liveness.decide([member], now_s):
            member = replace(member, state=due.to)
            seen.append(f"{due.was} -> {due.to} at {now_s}")
    return seen


def test_silence_makes_suspect_and_then_down() -> None:
    assert _run(_liveness(), node("d1"), 100, 150, beats_until_s=120) == [
        "up -> suspect at 123",
        "suspect -> down at 130",
    ]


def test_a_heartbeat_brings_it_back_at_once() -> None:
    states: tuple[MemberState, ...] = ("suspect", "down")
    for state in states:
        member = replace(node("d1"), state=state)
        assert _run(_liveness(), member, 101, 105, beats_until_s=105) == [f"{state} -> up at 101"]


def test_a_new_leader_gives_everybody_time_to_find_it() -> None:
    assert _run(_liveness(), node("d1"), 100, 150, beats_until_s=0) == ["up -> down at 110"]
    assert _run(_liveness(), node("d1"), 109, 150, beats_until_s=109) == [
        "up -> suspect at 112",
        "suspect -> down at 119",
    ]


def test_a_new_leader_keeps_what_is_down_down_until_it_is_heard() -> None:
    assert _run(_liveness(), replace(node("d1"), state="down"), 100, 150, beats_until_s=0) == []


def test_a_leader_that_stood_still_does_not_take_its_own_silence_for_theirs() -> None:
    liveness = _liveness()
    member = node("d1")
    assert _run(liveness, member, 100, 130, beats_until_s=130) == []
    # Nothing was heard or decided from 130 to 160.
    assert liveness.decide([member], 160.0) == []
    assert _run(liveness, member, 161, 200, beats_until_s=161) == [
        "up -> suspect at 164",
        "suspect -> down at 171",
    ]


def test_a_draining_node_is_watched_and_left_alone_while_it_lives() -> None:
    member = replace(node("d1"), state="draining")
    assert _run(_liveness(), member, 100, 123, beats_until_s=120) == ["draining -> suspect at 123"]


def test_heartbeats_of_another_incarnation_do_not_count() -> None:
    liveness = _liveness()
    liveness.decide([node("d1")], 119.0)
    liveness.heard("d1", "another folder", 120.0)
    assert liveness.decide([node("d1")], 120.0) == [Transition("d1", "folder of d1", "up", "down")]


def test_a_router_that_is_down_for_long_is_gone_and_nobody_else() -> None:
    liveness = _liveness()
    router = replace(node("r1"), role="router", state="down")
    down = [router, replace(node("d1"), state="down")]
    assert liveness.gone(down, 159.0) == []
    assert [m.node_id for m in liveness.gone(down, 160.0)] == ["r1"]
    assert liveness.gone([replace(router, state="up")], 160.0) == []


def test_who_is_no_member_is_forgotten() -> None:
    liveness = _liveness()
    liveness.heard("d1", "folder of d1", 119.0)
    liveness.decide([], 119.0)
    assert liveness.silent_s(node("d1"), 120.0) == 20.0


def test_what_a_member_tells_of_itself_holds_until_its_next_heartbeat() -> None:
    liveness, member = _liveness(), node("d1")
    assert liveness.problems(member) == ()
    liveness.heard("d1", member.incarnation, 101, ["the disk is full"])
    liveness.decide([member], 102)
    assert liveness.problems(member) == ("the disk is full",)
    assert liveness.problems(replace(member, incarnation="another folder")) == ()
    liveness.heard("d1", member.incarnation, 103)
    assert liveness.problems(member) == ()


def test_of_problems_no_more_is_kept_than_a_good_member_sends() -> None:
    liveness, member = _liveness(), node("d1")
    liveness.heard("d1", member.incarnation, 101, ["x" * PROBLEM_CHARS_MAX] * PROBLEMS_MAX)
    assert liveness.problems(member) == ("x" * PROBLEM_CHARS_MAX,) * PROBLEMS_MAX
    liveness.heard("d1", member.incarnation, 101, ["x" * (PROBLEM_CHARS_MAX + 1)] * (PROBLEMS_MAX + 1))
    assert liveness.problems(member) == ("x" * PROBLEM_CHARS_MAX,) * PROBLEMS_MAX


def test_problems_go_with_the_member_and_with_the_leader() -> None:
    member = node("d1")
    elected, left, forgotten = _liveness(), _liveness(), _liveness()
    for liveness in (elected, left, forgotten):
        liveness.heard("d1", member.incarnation, 101, ["tired"])
    elected.elected(102)
    left.left("d1", member.incarnation)
    forgotten.decide([], 102)
    assert [liveness.problems(member) for liveness in (elected, left, forgotten)] == [(), (), ()]

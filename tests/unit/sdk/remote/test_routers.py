"""What is sent again, to whom, under which stamp, and what the caller is told in the end."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import pytest

from omendb.remote.channels import CallFailed, RouterChannel
from omendb.remote.retries import ATTEMPTS_MAX, Kind, RetryBudget
from omendb.remote.routers import COOL_DOWN_S, FIRST_SHARE, Routers
from omendb_common.deadline import Deadline
from omendb_common.errors import (
    AlreadyExistsError,
    DatabaseClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_proto.v1 import router_pb2 as pb
from tests.unit.sdk.remote.scripted import HandClock, ScriptedChannel


def unreachable() -> CallFailed:
    return CallFailed(UnavailableError("cannot be reached", outcome="none"), answered=False)


def broken() -> CallFailed:
    return CallFailed(UnavailableError("the connection broke", outcome="unknown"), answered=False)


def too_few(stamp: int | None = 77, outcome: Any = "unknown") -> UnavailableError:
    return UnavailableError("1 of 2", outcome=outcome, acked=1, required=2, stamp=stamp)


class Scene:
    """Some scripted routers behind one :class:`Routers`."""

    def __init__(self, *scripts: list[Any], timeout_s: float = 10.0) -> None:
        self.clock = HandClock()
        self.channels = [ScriptedChannel(self.clock, list(steps)) for steps in scripts]
        self.routers = Routers(
            cast(list[RouterChannel], self.channels), timeout_s, self.clock, dice=Random(0), sleep=self.clock.sleep
        )

    def read(self, **arguments: Any) -> Any:
        return self.routers.call("Search", pb.SearchRequest(), Kind.READ, **arguments)

    def write(self, **arguments: Any) -> Any:
        return self.routers.call("Upsert", pb.UpsertRequest(), Kind.WRITE, **arguments)

    def change(self) -> Any:
        return self.routers.call("CreateCollection", pb.CreateCollectionRequest(), Kind.CHANGE)

    def counts(self) -> list[int]:
        return [len(channel.asked) for channel in self.channels]


def test_a_read_goes_to_the_next_router_at_once_and_stays_there() -> None:
    scene = Scene([broken(), broken()], [])
    assert scene.read() == scene.read() == "ok"
    assert scene.counts() == [1, 2] and scene.clock.slept == []


def test_a_router_that_came_back_is_asked_again_when_the_kept_one_fails() -> None:
    scene = Scene([unreachable()], ["ok", unreachable()])
    scene.read()
    scene.clock.sleep(COOL_DOWN_S + 1)
    assert scene.read() == "ok" and scene.counts() == [2, 2]


def test_one_router_is_tried_again_after_growing_waits() -> None:
    scene = Scene([broken(), broken(), broken()])
    assert scene.read() == "ok"
    first, second, third = scene.clock.slept
    assert 0 < first < second < third <= 1.0


def test_a_read_gives_up_after_its_tries() -> None:
    scene = Scene([broken() for _ in range(50)])
    with pytest.raises(UnavailableError, match="the connection broke"):
        scene.read()
    assert scene.counts() == [ATTEMPTS_MAX]


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    scene = Scene([ResourceExhaustedError("full", retry_after=30.0)])
    with pytest.raises(ResourceExhaustedError):
        scene.read()
    assert scene.clock.slept == [] and scene.counts() == [1]


def test_a_router_that_is_full_is_given_the_time_it_asks_for() -> None:
    scene = Scene([ResourceExhaustedError("full", retry_after=0.7)], [])
    assert scene.write() == "ok"
    assert scene.clock.slept == [0.7] and scene.counts() == [2, 0]


def test_a_reads_first_router_may_not_use_up_the_time_of_the_second() -> None:
    def hang(timeout_s: float) -> CallFailed:
        scene.clock.now_s += timeout_s
        return CallFailed(DeadlineExceededError("no answer in time"), answered=False)

    scene = Scene([hang], [])
    assert scene.read() == "ok"
    assert scene.channels[0].asked[0].timeout_s == pytest.approx(10 * FIRST_SHARE)
    assert scene.channels[1].asked[0].timeout_s == pytest.approx(10 * (1 - FIRST_SHARE))


def test_what_a_router_says_at_the_last_moment_is_told_and_not_lost_by_another_try() -> None:
    def late(timeout_s: float) -> UnavailableError:
        scene.clock.now_s += timeout_s - 0.25
        return too_few()

    scene = Scene([late], [])
    with pytest.raises(UnavailableError) as caught:
        scene.write()
    assert (caught.value.acked, caught.value.required, caught.value.stamp) == (1, 2, 77)
    assert scene.counts() == [1, 0]


def test_a_write_that_was_not_sent_is_sent_anew() -> None:
    scene = Scene([unreachable()], [])
    assert scene.write() == "ok"
    assert [asked.stamp for asked in scene.channels[1].asked] == [0]


def test_a_write_of_unknown_outcome_is_sent_again_under_its_stamp() -> None:
    scene = Scene([too_few(77)], [too_few(78)])
    assert scene.write() == "ok"
    stamps = [asked.stamp for channel in scene.channels for asked in channel.asked]
    assert stamps[0] == 0 and set(stamps[1:]) == {77}, "a second stamp could overwrite what somebody wrote meanwhile"


def test_a_write_of_unknown_outcome_without_a_stamp_is_told() -> None:
    scene = Scene([broken()], [])
    with pytest.raises(UnavailableError) as caught:
        scene.write()
    assert caught.value.outcome == "unknown" and scene.counts() == [1, 0]


def test_a_write_whose_ids_the_server_draws_is_not_said_twice() -> None:
    scene = Scene([too_few(77)], [])
    with pytest.raises(UnavailableError) as caught:
        scene.write(restampable=False)
    assert caught.value.outcome == "unknown" and scene.counts() == [1, 0]


def test_what_was_unknown_once_stays_unknown() -> None:
    scene = Scene([too_few(77), *(unreachable() for _ in range(9))], [unreachable() for _ in range(9)])
    with pytest.raises(UnavailableError) as caught:
        scene.write()
    assert caught.value.outcome == "unknown" and caught.value.stamp == 77
    scene = Scene([too_few(77), AlreadyExistsError("there")])
    with pytest.raises(UnavailableError) as caught:
        scene.write()
    assert caught.value.outcome == "unknown"


def test_a_change_of_the_catalog_is_sent_again_only_when_it_certainly_did_not_happen() -> None:
    scene = Scene([unreachable(), too_few(None, "none")], [unreachable()])
    assert scene.change() == "ok"
    scene = Scene([broken()], [])
    with pytest.raises(UnavailableError):
        scene.change()
    assert scene.counts() == [1, 0]


def test_a_refusal_is_final() -> None:
    scene = Scene([InvalidArgumentError("no")], [])
    with pytest.raises(InvalidArgumentError):
        scene.read()
    assert scene.counts() == [1, 0]


def test_a_deadline_that_passed_sends_nothing() -> None:
    scene = Scene([])
    with pytest.raises(DeadlineExceededError) as caught:
        scene.write(deadline=Deadline(scene.clock, scene.clock.now_s))
    assert caught.value.outcome == "none" and scene.counts() == [0]


def test_retries_are_a_share_of_the_calls() -> None:
    budget = RetryBudget(per_call=0.1, burst=3)
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    for _ in range(9):
        budget.earned()
    assert not budget.spend()
    budget.earned()
    budget.earned()
    assert budget.spend() and not budget.spend()


def test_a_cluster_in_trouble_gets_no_storm_of_retries() -> None:
    scene = Scene([broken() for _ in range(1000)], timeout_s=1e6)
    for _ in range(100):
        with pytest.raises(UnavailableError):
            scene.read()
    assert scene.counts()[0] <= 100 + 20


def test_after_close_nothing_is_called() -> None:
    scene = Scene([])
    scene.routers.close()
    with pytest.raises(DatabaseClosedError):
        scene.read()
    assert scene.channels[0].closed and scene.counts() == [0]

"""Stamps and automatic ids: never twice, never beyond the lease, never by a clock that is off."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.deadline import Deadline
from omendb_common.errors import UnavailableError
from omendb_common.hlc import EPOCH_MS, ORIGIN_MAX, stamp_wall_ms
from omendb_common.metadata import OriginLease
from omendb_common.shard_calls import MAX_AHEAD_MS
from omendb_router.settings import RouterSettings
from omendb_router.stamps import ClockCheck, Leases, Stamps

START_MS = EPOCH_MS + 1_000_000


@dataclass
class Clock:
    ms: int = START_MS

    def wall_ms(self) -> int:
        return self.ms

    def mono_s(self) -> float:
        return self.ms / 1e3


def stamp_of(wall_ms: int) -> int:
    return (wall_ms - EPOCH_MS) << 22


def lease(origin: int, above_ms: int, for_ms: int, ids: tuple[int, int] = (0, 0)) -> OriginLease:
    return OriginLease(origin, stamp_of(above_ms), stamp_of(above_ms + for_ms), ids)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.just("tick"), st.integers(-3000, 3000), st.tuples(st.just("see"), st.integers(-5000, 5000))),
        max_size=80,
    )
)
def test_stamps_grow_whatever_the_clock_does_and_stay_within_the_lease(steps: list[object]) -> None:
    clock = Clock()
    stamps = Stamps(clock, RouterSettings())
    assert stamps.tick() is None
    given_lease = lease(7, START_MS, 4000)
    stamps.take(given_lease)
    last = given_lease.stamp_above
    for step in steps:
        if isinstance(step, int):
            clock.ms += step
        elif isinstance(step, tuple):
            seen = stamp_of(clock.ms + step[1])
            before = stamps.now
            stamps.observe(seen)
            # What is too far ahead for any data node is not believed.
            assert stamps.now >= seen or step[1] > MAX_AHEAD_MS
            assert step[1] <= MAX_AHEAD_MS or stamps.now == before
        else:
            stamp = stamps.tick()
            if stamp is None:
                assert stamps.left_ms() <= 0
                continue
            assert last < stamp <= given_lease.stamp_bound
            assert stamp & ORIGIN_MAX == 7
            last = stamp


def test_a_new_origin_starts_above_what_its_lease_says_and_an_old_one_goes_on() -> None:
    clock = Clock()
    stamps = Stamps(clock, RouterSettings())
    stamps.take(lease(1, START_MS, 10_000))
    first = stamps.tick()
    assert first is not None
    # A renewal names a moment far ahead; the stamps do not jump there.
    stamps.take(lease(1, START_MS + 3_600_000, 10_000))
    second = stamps.tick()
    assert second is not None
    assert first < second < stamp_of(START_MS + 100)
    assert not stamps.wants_renewal
    assert stamp_wall_ms(stamps.wanted) == pytest.approx(START_MS + 3_600_000, abs=2)
    # Another origin: above its own floor, and above everything stamped before.
    stamps.take(lease(2, START_MS + 5000, 10_000))
    third = stamps.tick()
    assert third is not None
    assert third > stamp_of(START_MS + 5000) | 1
    assert third & ORIGIN_MAX == 2


def test_automatic_ids_are_given_out_once() -> None:
    stamps = Stamps(Clock(), RouterSettings())
    stamps.take(lease(1, START_MS, 1000, (100, 110)))
    drawn = stamps.draw_ids(4)
    stamps.take(lease(1, START_MS, 2000, (100, 110)))
    again = stamps.draw_ids(6)
    assert drawn is not None and again is not None
    assert [*drawn.to_list(), *again.to_list()] == list(range(100, 110))
    assert stamps.draw_ids(1) is None
    stamps.take(lease(2, START_MS, 2000, (200, 210)))
    fresh = stamps.draw_ids(1)
    assert fresh is not None and fresh.to_list() == [200]


@pytest.mark.parametrize(
    "offsets_ms, refused",
    [
        ((0, 0, 0), False),
        ((399, 399, 399), False),
        ((401, 401, 0), True),
        ((401, 0, 0), False),
        ((9000, 401, -9000), True),
        # Data nodes may be pushed ahead by stamps they have seen: only beyond that bound are we surely behind.
        ((-2000, -2000, -2000), False),
        ((-2010, -2010, 0), True),
        ((-9000, 0, 0), False),
        # One of two is half of those that were heard.
        ((3_600_000, 0), True),
        ((3_600_000,), True),
        ((), False),
    ],
)
def test_a_clock_is_off_when_most_nodes_prove_it(offsets_ms: tuple[int, ...], refused: bool) -> None:
    clock = Clock()
    check = ClockCheck(clock, 500.0)
    for number, offset in enumerate(offsets_ms):
        check.note(f"d{number}", clock.mono_s(), stamp_of(START_MS - offset))
    clock.ms += 1000
    if refused:
        with pytest.raises(UnavailableError, match="clock") as error:
            check.check()
        assert error.value.outcome == "none"
    else:
        check.check()
    clock.ms += 100_000
    check.check()  # what was heard so long ago proves nothing


@dataclass
class SetClock(Clock):
    """One that somebody sets: its wall time is ``off_ms`` from the other one."""

    off_ms: int = 0

    def wall_ms(self) -> int:
        return self.ms + self.off_ms


@pytest.mark.parametrize(
    "set_ms, refused", [(3_600_000, True), (401, True), (399, False), (-2000, False), (-2001, True)]
)
def test_a_clock_that_is_set_is_off_at_once_and_put_right_is_right_at_once(set_ms: int, refused: bool) -> None:
    clock = SetClock()
    check = ClockCheck(clock, 500.0)
    for number in range(3):
        check.note(f"d{number}", clock.mono_s(), stamp_of(START_MS))
    clock.ms += 5000
    clock.off_ms = set_ms
    assert check.right(3) is not refused
    if refused:
        with pytest.raises(UnavailableError, match="clock"):
            check.check()
    else:
        check.check()
    clock.off_ms = 0
    check.check()
    assert check.off_ms() == 0
    assert check.right(3) and not check.right(9), "of nine, three are no majority"
    clock.ms += 30_001
    assert not check.right(3), "what was heard so long ago proves nothing"


class ForgetfulCoordinators:
    """Leases as coordinators give them that were restored from a copy: they know no holder, and other origins."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.asked: list[tuple[str, int]] = []
        self.lose = 0

    async def lease_origin(self, holder: str, stamp: int, deadline: Deadline) -> OriginLease:
        self.asked.append((holder, stamp))
        origin = self.held.setdefault(holder, ORIGIN_MAX - len(self.held))
        if self.lose:
            self.lose -= 1
            raise UnavailableError("the answer was lost", field="coordinators")
        return OriginLease(origin, stamp, stamp + (10_000 << 22), (origin << 26, (origin + 1) << 26))


@pytest.mark.parametrize("lose", [0, 1, 2, 3])
def test_a_lease_that_the_coordinators_forgot_is_asked_for_anew_from_now_on(lose: int) -> None:
    clock = Clock()
    stamps = Stamps(clock, RouterSettings())
    coordinators = ForgetfulCoordinators()
    leases = Leases(coordinators, stamps, "r1/1", clock, lambda task: None)  # type: ignore[arg-type]
    stamps.take(lease(1, START_MS, 3_600_000))
    before = stamps.tick()
    assert before is not None
    clock.ms += 1000
    coordinators.lose = lose

    async def renewed() -> None:
        for _ in range(lose + 1):
            with contextlib.suppress(UnavailableError):
                await leases.renew(Deadline.after(clock, 10))

    asyncio.run(renewed())
    after = stamps.tick()
    assert after is not None and before < after
    assert after & ORIGIN_MAX == stamps.origin > 1
    # Not an hour ahead, where the renewal was to end: no data node would take that.
    assert stamp_wall_ms(after) <= clock.ms + 1
    # From then on it is renewed as ever.
    asyncio.run(leases.renew(Deadline.after(clock, 10)))
    assert stamps.origin == after & ORIGIN_MAX and stamps.left_ms() > 3_000_000
    assert len({holder for holder, _ in coordinators.asked}) <= lose + 2


def test_a_lease_that_is_used_up_is_asked_for_from_now_on() -> None:
    clock = Clock()
    stamps = Stamps(clock, RouterSettings())
    stamps.take(lease(1, START_MS, 1000))
    assert stamp_wall_ms(stamps.wanted) > clock.ms + 1_000_000
    clock.ms += 2000
    assert stamp_wall_ms(stamps.wanted) == clock.ms

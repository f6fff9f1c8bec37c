"""Exchanges keep to a rate, all of a node together, and give way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from omendb_datanode.config import RepairSettings
from omendb_datanode.replicate import pace as module
from omendb_datanode.replicate.pace import Pace


@dataclass
class Hand:
    """A clock that moves when somebody sleeps."""

    now_s: float = 1000.0

    def wall_ms(self) -> int:
        """As the monotonic one."""
        return int(self.now_s * 1000)

    def mono_s(self) -> float:
        """Seconds."""
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(asyncio, "sleep", hand.sleep)
    return hand


def test_so_many_bytes_a_second_in_large_pieces_and_small(hand: Hand) -> None:
    pace = Pace(hand, RepairSettings(bytes_per_s=10_000))

    async def scene() -> None:
        for size in [50_000, *[100] * 500, 1]:
            await pace.spend(size)

    asyncio.run(scene())
    # All but the last piece is waited for, and what was not spent in the second before is free.
    assert hand.now_s == pytest.approx(1000.0 + 10.0 - module.BURST_S)


def test_nothing_is_saved_up_while_nothing_moves(hand: Hand) -> None:
    pace = Pace(hand, RepairSettings(bytes_per_s=10_000))

    async def scene() -> None:
        hand.now_s += 3600.0
        for _ in range(11):
            await pace.spend(10_000)

    asyncio.run(scene())
    assert hand.now_s == pytest.approx(1000.0 + 3600.0 + 9.0)


def test_a_busy_node_goes_first(hand: Hand) -> None:
    busy = iter([True, True, True, False])
    pace = Pace(hand, RepairSettings(bytes_per_s=1 << 40), lambda: next(busy))
    asyncio.run(pace.spend(1))
    assert hand.now_s == pytest.approx(1000.0 + 3 * module.PRESSED_S)


class Callers:
    """Clients whose calls are at work all the time, from a moment on."""

    def __init__(self, hand: Hand, from_s: float) -> None:
        self._hand = hand
        self._from_s = from_s

    def total_s(self) -> float:
        """For how long they have been."""
        return max(0.0, self._hand.now_s - self._from_s)


async def work(pace: Pace, hand: Hand, pieces: int, took_s: float) -> None:
    """Do so many pieces, each of which takes so long."""
    for _ in range(pieces):
        await pace.spend(1)
        with pace.beside_clients():
            hand.now_s += took_s


def test_beside_clients_only_a_share_of_the_time_is_spent(hand: Hand) -> None:
    callers = Callers(hand, from_s=0.0)
    pace = Pace(hand, RepairSettings(clients_share=0.25), clients_s=callers.total_s)
    asyncio.run(work(pace, hand, pieces=100, took_s=0.1))
    # Ten seconds of work; the last piece is not waited for, nor what was free before.
    assert hand.now_s == pytest.approx(1000.0 + 40.0, abs=module.BURST_S + 0.4)


def test_where_nobody_calls_nothing_is_waited_for(hand: Hand) -> None:
    pace = Pace(hand, RepairSettings(clients_share=0.01), clients_s=Callers(hand, from_s=2000.0).total_s)
    asyncio.run(work(pace, hand, pieces=100, took_s=0.1))
    assert hand.now_s == pytest.approx(1000.0 + 10.0)


def test_a_call_that_took_long_beside_clients_does_not_hold_up_the_next_for_long(hand: Hand) -> None:
    pace = Pace(hand, RepairSettings(clients_share=0.01), clients_s=Callers(hand, from_s=0.0).total_s)
    asyncio.run(work(pace, hand, pieces=11, took_s=60.0))
    # Its own minute has paid for all of it: upkeep starves by no load.
    assert hand.now_s == pytest.approx(1000.0 + 11 * 60.0)
    asyncio.run(work(pace, hand, pieces=10, took_s=0.5))
    assert hand.now_s <= 1000.0 + 11 * 60.0 + 10 * (module.REST_MAX_S + 0.5)


def test_a_call_that_fails_beside_clients_is_paid_for_too(hand: Hand) -> None:
    pace = Pace(hand, RepairSettings(clients_share=0.5), clients_s=Callers(hand, from_s=0.0).total_s)

    async def scene() -> None:
        await pace.spend(1)
        with pytest.raises(OSError), pace.beside_clients():
            hand.now_s += 2.0
            raise OSError
        await pace.spend(1)

    asyncio.run(scene())
    assert hand.now_s == pytest.approx(1000.0 + 4.0 - module.BURST_S)

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

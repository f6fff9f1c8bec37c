"""Followers of the catalog: the difference to the newest, or the whole when the ring does not reach back."""

from __future__ import annotations

import asyncio

import pytest

from omendb_common.errors import FormatVersionError, InvalidArgumentError
from omendb_common.topology import Topology
from omendb_common.topology_delta import apply_delta, delta_of
from omendb_coordinator.watch import Watch
from tests.unit.coordinator.catalog_cases import node
from tests.unit.coordinator.loopback import in_a_loop


def _topology(revision: int) -> Topology:
    return Topology("c", revision, members={n.node_id: n for n in (node(f"d{i}") for i in range(revision))})


@in_a_loop
async def test_a_follower_within_the_ring_is_sent_the_difference() -> None:
    watch = Watch(ring_topologies_max=3)
    for revision in (1, 2, 5, 6, 9):
        watch.publish(_topology(revision))
    assert watch.step(9) is None
    assert watch.step(12) is None
    for revision, base in ((6, 6), (5, 5), (2, None), (0, None), (7, None)):
        step = watch.step(revision)
        assert step is not None
        assert step.topology.revision == 9
        assert (step.base.revision if step.base else None) == base


@in_a_loop
async def test_after_a_snapshot_everybody_is_sent_the_whole() -> None:
    watch = Watch()
    watch.publish(_topology(1))
    watch.publish(_topology(7), resync=True)
    step = watch.step(1)
    assert step is not None
    assert step.base is None


@in_a_loop
async def test_waiting_ends_with_a_change_with_time_and_with_the_watch() -> None:
    watch = Watch()
    waiting = asyncio.create_task(watch.wait(0, 60.0))
    await asyncio.sleep(0)
    watch.publish(_topology(1))
    step = await waiting
    assert step is not None
    assert step.topology.revision == 1
    assert await watch.wait(1, 0.001) is None
    waiting = asyncio.create_task(watch.wait(1, 60.0))
    await asyncio.sleep(0)
    watch.close()
    assert await waiting is None
    assert await watch.wait(1, 60.0) is None


def test_a_delta_fits_only_what_it_was_made_from() -> None:
    old, new = _topology(2), _topology(4)
    delta = delta_of(old, new)
    assert apply_delta(old, delta) == new
    assert apply_delta(new, delta_of(new, old)) == old
    with pytest.raises(InvalidArgumentError):
        apply_delta(new, delta)
    with pytest.raises(FormatVersionError):
        apply_delta(old, {**delta, "format": 2})

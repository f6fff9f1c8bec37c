"""What befalls the disks of real data nodes, as stories: AssertionError says which promise was not kept (P16).

Each is told of a fleet of three data nodes that was just started, in an environment of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from omendb.client import Client
from omendb.fleet.fleet import Fleet
from omendb.fleet.process import wait_until
from omendb_chaos.fleet.replicas import held, topology_of
from omendb_chaos.fleet.traffic import (
    BATCH,
    DIMENSION,
    NAME,
    PATIENCE_S,
    check_kept,
    places,
    traffic_on,
    vectors,
    wait_rest,
)
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.shard_calls import State

_NODES = {"d1", "d2", "d3"}
_START_S = 30.0


class Story(NamedTuple):
    """``environment``: what the fleet's processes are started with; ``tell``: what happens, and what must hold."""

    environment: Mapping[str, str]
    tell: Callable[[Fleet, Client], None]


def lost_disk(fleet: Fleet, client: Client) -> None:
    """A node loses its disk: its replicas are made anew from the others while clients write and search."""
    client.create_collection(NAME, DIMENSION, replication=3, shards=2)
    with traffic_on(fleet, client) as traffic:
        fleet.kill("d1")
        shutil.rmtree(fleet.folder / "d1")
        fleet.start("d1")
        wait_rest(fleet, _NODES, lambda status: status["revision"] > 0)
    report = traffic.stop()
    shards = topology_of(fleet).collection(NAME).shards
    assert all(r.session for s in shards for r in s.replicas if r.node_id == "d1"), "both were made anew"
    assert places(topology_of(fleet)) == {"d1": 2, "d2": 2, "d3": 2}
    check_kept(fleet, report)
    # What was written before the disk was lost is on the new one.
    early = [batch * BATCH for batch in report.acknowledged[:5]]
    assert all(v[0].state is State.LIVE for v in held(fleet, NAME, early, only="d1").values())


def swapped_disks(fleet: Fleet, client: Client) -> None:
    """Two nodes come back with each other's disk: neither serves, and put right again nothing is missing."""
    client.create_collection(NAME, DIMENSION, replication=3, shards=1).upsert(list(range(50)), vectors(0, 50))
    for name in ("d1", "d2"):
        fleet.process(name).stop(10)
    _swap(fleet.folder)
    for name, other in (("d1", "d2"), ("d2", "d1")):
        process = fleet.process(name)
        process.start()
        told = _refusal(lambda process=process: process.wait_ready(_START_S))  # type: ignore[misc]
        assert f"folder is that of '{other}'" in told, told
    # One of three is left: it answers who asks one, and nobody is told that a point is absent by an empty disk.
    assert client.collection(NAME).search(vectors(7, 1)[0], k=1, consistency="one")[0].id == 7
    assert _refusal(lambda: client.collection(NAME).upsert([99], vectors(99, 1))), "two of three are away"
    _swap(fleet.folder)
    for name in ("d1", "d2"):
        fleet.start(name)
    wait_rest(fleet, _NODES)
    fleet.wait_serving(_START_S)
    client.collection(NAME).upsert([50], vectors(50, 1))
    for point_id, versions in held(fleet, NAME, list(range(51))).items():
        assert sum(v.state is State.LIVE for v in versions) >= 2, (point_id, versions)


def old_disk_image(fleet: Fleet, client: Client) -> None:
    """A node is put back on an old image of its disk: what it forgot comes from the others, nothing comes back."""
    points = client.create_collection(NAME, DIMENSION, replication=3, shards=1)
    points.upsert(list(range(60)), vectors(0, 60))
    image = fleet.folder.parent / f"{fleet.folder.name}-image"
    fleet.process("d1").stop(10)
    shutil.copytree(fleet.folder / "d1", image)
    fleet.start("d1")
    fleet.wait_serving(_START_S)
    points.upsert(list(range(60, 100)), vectors(60, 40))
    points.upsert([5], vectors(1000, 1))
    points.delete(ids=list(range(10, 20)))
    fleet.process("d1").stop(10)
    shutil.rmtree(fleet.folder / "d1")
    shutil.move(image, fleet.folder / "d1")
    fleet.start("d1")
    there = set(range(100)) - set(range(10, 20))
    # Whoever asks a majority is never shown the past, however soon.
    assert {p.id for p in points.get(list(range(100))) if p is not None} == there

    def equal() -> bool:
        versions = held(fleet, NAME, list(range(100)))
        return all(len(v) == 3 and len({(o.state, o.stamp, o.digest) for o in v}) == 1 for v in versions.values())

    wait_until(equal, PATIENCE_S, "every replica to have the same")
    alone = held(fleet, NAME, list(range(100)), only="d1")
    assert {i for i, (v,) in alone.items() if v.state is State.LIVE} == there


def _refusal(call: Callable[[], object]) -> str:
    """What a call is told that must not be carried out."""
    try:
        call()
    except UnavailableError as refused:
        return str(refused)
    except OmenDBError as other:
        raise AssertionError(f"refused as {type(other).__name__}: {other}") from other
    return ""


def _swap(folder: Path) -> None:
    """Exchange the disks of the first two data nodes."""
    (folder / "d1").rename(folder / "aside")
    (folder / "d2").rename(folder / "d1")
    (folder / "aside").rename(folder / "d2")


STORIES: Mapping[str, Story] = {
    "lost": Story(
        {
            "OMENDB_COORDINATOR_SUSPECT_S": "1",
            "OMENDB_COORDINATOR_DOWN_S": "2",
            "OMENDB_COORDINATOR_GRACE_S": "2",
        },
        lost_disk,
    ),
    "swapped": Story({}, swapped_disks),
    # Records settle at once, and replicas are compared every second instead of every ten minutes.
    "old": Story(
        {"OMENDB_REPAIR_SETTLE_S": "0", "OMENDB_REPAIR_INTERVAL_S": "1", "OMENDB_REPAIR_RETRY_S": "0.5"},
        old_disk_image,
    ),
}

__all__ = ["STORIES", "Story", "lost_disk", "old_disk_image", "swapped_disks"]

"""All coordinators are gone while clients write and read: back from their own folders, and from a copy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from omendb.cli.main import app
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb.fleet.process import wait_until
from omendb.fleet.traffic import Traffic
from omendb_chaos.fleet.replicas import topology_of
from omendb_chaos.fleet.traffic import (
    DIMENSION,
    NAME,
    PATIENCE_S,
    check_available,
    check_kept,
    traffic_on,
    vectors,
    wait_rest,
)
from omendb_common.errors import NotFoundError, OmenDBError

COORDINATORS = ("c1", "c2", "c3")
NODES = {"d1", "d2", "d3"}


def goes_on(traffic: Traffic, batches: int = 20) -> None:
    """Wait until so many more batches were acknowledged."""
    before = len(traffic.report.acknowledged)
    wait_until(
        lambda: len(traffic.report.acknowledged) >= before + batches,
        PATIENCE_S,
        "writes to go on",
        lambda: str(traffic.report.errors),
    )


def cluster(fleet: Fleet, *arguments: object, refused: bool = False) -> str:
    told = CliRunner().invoke(app, ["cluster", *map(str, arguments), "--dir", str(fleet.folder)])
    assert (told.exit_code != 0) == refused, told.output
    return " ".join(told.output.split())


def restore(fleet: Fleet, name: str, copy: Path, group: str = "") -> dict[str, Any]:
    """The folder of a coordinator, made anew from a copy, as an operator does it."""
    usual = fleet.plan.arguments(fleet.plan.node(name), fleet.folder)
    peers = usual[usual.index("--peers") + 1]
    flags = ["--dir", str(fleet.folder / name), "--node-id", name, "--peers", peers]
    flags += ["--group", group] if group else []
    done = subprocess.run(
        [sys.executable, "-m", "omendb_coordinator", "restore", str(copy), *flags],
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[0].removeprefix("restored "))
    return told


def folders_of(fleet: Fleet, collection_uuid: str) -> list[Path]:
    """The replicas of a collection on all disks."""
    return [p for node in sorted(NODES) for p in (fleet.folder / node / "replicas").glob(f"{collection_uuid}.*")]


def test_every_coordinator_killed_and_back(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(3, 1, 3), tls=False, usual_ports=False)
    try:
        fleet.up()
        with fleet.client(timeout=10) as client:
            client.create_collection(NAME, DIMENSION, replication=3, shards=2)
            with traffic_on(fleet, client) as traffic:
                for name in COORDINATORS:
                    fleet.kill(name)
                goes_on(traffic)
                for name in COORDINATORS:
                    fleet.process(name).start()
                fleet.leader()
                client.create_collection("more", DIMENSION).upsert([1], vectors(1, 1))
                goes_on(traffic)
                wait_rest(fleet, NODES)
            report = traffic.stop()
            check_kept(fleet, report)
            check_available("no coordinators for a while", report)
    finally:
        Fleet.open(tmp_path / "fleet").down(5)


def test_a_lost_group_is_restored_from_a_copy(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(3, 2, 3), tls=False, usual_ports=False)
    try:
        fleet.up()
        fleet.process("r2").stop(10)
        with fleet.client(timeout=10) as client:
            client.create_collection(NAME, DIMENSION, replication=3, shards=2)
            auto = client.create_collection("auto", DIMENSION, replication=3)
            drawn = set(auto.add_batch(np.ones((5, DIMENSION), np.float32)))
            client.create_collection("dropped", DIMENSION, replication=3).upsert([1], vectors(1, 1))
            with traffic_on(fleet, client) as traffic:
                goes_on(traffic)
                copy = tmp_path / "catalog.copy"
                assert "3 collections" in cluster(fleet, "backup-catalog", copy)
                assert "is there already" in cluster(fleet, "backup-catalog", copy, refused=True)
                # What the copy does not know: a collection, a dropped one, a lease with its automatic ids.
                client.create_collection("later", DIMENSION, replication=3).upsert([1], vectors(1, 1))
                later = topology_of(fleet).collection("later").schema.uuid
                client.drop_collection("dropped")
                fleet.start("r2")
                drawn |= set(auto.add_batch(np.ones((5, DIMENSION), np.float32)))
                before = topology_of(fleet)
                goes_on(traffic)

                for name in COORDINATORS:
                    fleet.kill(name)
                shutil.copytree(fleet.folder / "c3", tmp_path / "old c3")
                for name in COORDINATORS:
                    shutil.rmtree(fleet.folder / name)
                goes_on(traffic)
                first = restore(fleet, "c1", copy)
                for name in ("c2", "c3"):
                    assert restore(fleet, name, copy, first["group"]) == {**first, "node_id": name}
                for name in COORDINATORS:
                    fleet.process(name).start()
                fleet.leader()
                fleet.wait_status(lambda s: s["revision"] >= first["revision"], PATIENCE_S, "the restored catalog")
                fleet.wait_serving(30)
                goes_on(traffic)
            report = traffic.stop()

            after = topology_of(fleet)
            assert after.cluster_id == before.cluster_id
            assert after.restored == first["revision"] > 1000 * before.revision
            for name in NODES:
                assert after.members[name].incarnation == before.members[name].incarnation
            for now, then in zip(after.collection(NAME).shards, before.collection(NAME).shards, strict=True):
                assert now.replicas == then.replicas, "nobody is taken for one that forgot"
            check_kept(fleet, report)
            check_available("the group lost, and restored from a copy", report)

            # Made after the copy: nobody's, told of, and every byte is still there.
            with pytest.raises(NotFoundError):
                client.collection("later").count()
            assert len(folders_of(fleet, later)) == 3
            kept = f"replica {later}.0: kept"
            fleet.wait_status(
                lambda s: sum(any(p.startswith(kept) for p in m.get("problems", ())) for m in s["members"]) == 3,
                PATIENCE_S,
                "what is kept to be told",
            )
            # Dropped after the copy: it is there again by name, says that it has nothing, and is no empty one.
            with pytest.raises(OmenDBError, match="let it go after the copy"):
                client.collection("dropped").get([1], consistency="majority")
            client.drop_collection("dropped")

            # Nothing is handed out twice, by whichever router.
            for name in ("r1", "r2"):
                fleet.process(name).stop(10)
                fleet.start(name)
            for _ in range(6):
                new = set(client.collection("auto").add_batch(np.ones((5, DIMENSION), np.float32)))
                assert not drawn & new
                drawn |= new
            assert client.collection("auto").count() == len(drawn)
            client.create_collection("new", DIMENSION).upsert([1], vectors(1, 1))

            # A member of the lost group is a stranger to the new one.
            fleet.process("c3").stop(10)
            shutil.rmtree(fleet.folder / "c3")
            shutil.copytree(tmp_path / "old c3", fleet.folder / "c3")
            fleet.process("c3").start()
            client.create_collection("without_c3", DIMENSION).upsert([1], vectors(1, 1))
            assert fleet.leader() in ("c1", "c2")
            assert "another cluster" in fleet.process("c3").log.read_text() or fleet.process("c3").ready() is None
    finally:
        Fleet.open(tmp_path / "fleet").down(5)


def test_a_copy_that_is_older_than_a_move_waits_for_people(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(1, 1, 4), tls=False, usual_ports=False)
    try:
        fleet.up()
        with fleet.client(timeout=10) as client:
            client.create_collection(NAME, DIMENSION, replication=3, shards=1)
            copied = set(topology_of(fleet).collection(NAME).shards[0].nodes("active"))
            (free,) = {"d1", "d2", "d3", "d4"} - copied
            leaves = min(copied)
            with traffic_on(fleet, client) as traffic:
                goes_on(traffic)
                cluster(fleet, "backup-catalog", tmp_path / "copy")
                cluster(fleet, "move", NAME, 0, "--from", leaves, "--to", free)
                wait_rest(fleet, copied - {leaves} | {free}, lambda status: not folders_at(fleet, leaves))
                goes_on(traffic)
            report = traffic.stop()
            fleet.kill("c1")
            shutil.rmtree(fleet.folder / "c1")
            restore(fleet, "c1", tmp_path / "copy")
            fleet.start("c1")
            fleet.wait_status(
                lambda s: sum("members of the shard changed" in str(m["problems"]) for m in s["members"]) == 2,
                PATIENCE_S,
                "the two that know better to say so",
            )
            # Nobody is told that something is absent, and no write is counted by members of the past.
            with pytest.raises(OmenDBError):
                client.collection(NAME).get([0], consistency="majority", timeout=2)
            with pytest.raises(OmenDBError):
                client.collection(NAME).upsert([0], vectors(0, 1), timeout=2)
            assert folders_at(fleet, free), "what came after the copy is kept"
            assert "by the members of the copy" in cluster(fleet, "accept-restored", NAME)
            wait_rest(fleet, copied)
            fleet.wait_serving(30)
            check_kept(fleet, report)
            places = {r.node_id: r.session for r in topology_of(fleet).collection(NAME).shards[0].replicas}
            assert places.pop(leaves) and not any(places.values()), "what was let go is made anew from the others"
    finally:
        Fleet.open(tmp_path / "fleet").down(5)


def folders_at(fleet: Fleet, node: str) -> list[Path]:
    """The replicas on a node's disk."""
    return list((fleet.folder / node / "replicas").glob("*"))

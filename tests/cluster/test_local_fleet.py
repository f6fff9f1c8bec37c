"""`omendb cluster` on real processes: up, used, shaken, down, and up again with the data that is there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import omendb
from omendb.cli.main import app
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb.fleet.process import start_time
from omendb_common.errors import UnavailableError

V = np.random.default_rng(1).random((50, 4), np.float32)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def ok(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def until(text: str, *arguments: object) -> str:
    """What a command prints, once it has a text in it."""
    ends = time.monotonic() + 30
    while text not in (told := run(*arguments).stdout):
        assert time.monotonic() < ends, told
    return told


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place for a fleet, which is ended whatever happens."""
    yield tmp_path / "fleet"
    if (tmp_path / "fleet").exists():
        Fleet.open(tmp_path / "fleet").down(5)


def test_up_status_down_up(folder: Path) -> None:
    told = json.loads(
        ok("cluster", "up", "--dir", folder, "--coordinators", 1, "--routers", 1, "--datanodes", 1, "--json")
    )
    assert [p["name"] for p in told["processes"]] == ["c1", "r1", "d1"] and all(p["running"] for p in told["processes"])
    pids = {p["pid"] for p in told["processes"]}
    http = told["processes"][1]["http"]
    with omendb.Client(f"http://{http}") as client:
        client.create_collection("kept", 4).upsert(range(50), V, {"n": list(range(50))})
    assert {p["pid"] for p in json.loads(ok("cluster", "up", "--dir", folder, "--json"))["processes"]} == pids
    status: dict[str, Any] = json.loads(ok("cluster", "status", "--dir", folder, "--json"))
    assert status["cluster"]["leader"] == "c1" and [c["name"] for c in status["cluster"]["collections"]] == ["kept"]
    shown = ok("cluster", "status", "--dir", folder)
    assert "datanode" in shown and "kept" in shown and "leader c1" in shown
    assert (folder / "run" / "d1.log").exists() and (folder / "tls" / "ca.pem").exists()

    ok("cluster", "down", "--dir", folder)
    assert not any(_alive(pid) for pid in pids)
    down = json.loads(ok("cluster", "status", "--dir", folder, "--json"))
    assert down["cluster"] is None and down["problem"] and not any(p["running"] for p in down["processes"])

    ok("cluster", "up", "--dir", folder)
    with Fleet.open(folder).client() as client:
        assert client.count(collection="kept") == 50
        assert client.search(V[7], k=1, collection="kept")[0].id == 7


def test_status_says_which_replica_is_lost(folder: Path) -> None:
    fleet = Fleet.make(folder, FleetSize(1, 1, 2), tls=False, usual_ports=False)
    fleet.up()
    with fleet.client(timeout=10) as client:
        client.create_collection("c", 4, replication=2, write_quorum=1).upsert([1], V[:1])
    fleet.kill("d1")
    (replica,) = (folder / "d1" / "replicas").iterdir()
    shutil.rmtree(replica)
    Fleet.open(folder).up()
    status = json.loads(until("are gone", "cluster", "status", "--dir", folder, "--json"))
    problems = {m["node_id"]: m["problems"] for m in status["cluster"]["members"]}
    assert problems["d2"] == [] and replica.name in problems["d1"][0]
    shown = ok("cluster", "status", "--dir", folder)
    assert f"d1: replica {replica.name}" in shown


def test_replicas_are_verified_and_repaired(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is compared by itself in this test's time, but for what comes back.
    for name, value in (("SETTLE_S", "0"), ("INTERVAL_S", "100000"), ("RETRY_S", "1000")):
        monkeypatch.setenv(f"OMENDB_REPAIR_{name}", value)
    fleet = Fleet.make(folder, FleetSize(1, 1, 2), usual_ports=False)
    fleet.up()
    with fleet.client(timeout=10) as client:
        made = client.create_collection("c", 4, replication=2, write_quorum=1, shards=2)
        made.upsert(range(50), V)
        told = json.loads(ok("cluster", "repair", "c", "--dir", folder, "--json"))
        assert told["equal"] and [shard["found"]["proven"] for shard in told["shards"]] == [True, True]
        assert "all replicas are equal" in ok("cluster", "verify", "c", "--dir", folder)
        fleet.kill("d2")
        made.upsert(range(40, 50), V[:10])
        failed = run("cluster", "verify", "c", "--dir", folder)
        assert failed.exit_code == 1 and "not all replicas are known to be equal" in failed.output
        fleet.start("d2")
        until("all replicas are equal", "cluster", "verify", "c", "--dir", folder)
        made.delete([3])
        assert "yes" in ok("cluster", "repair", "c", "--dir", folder)
    assert run("cluster", "verify", "none", "--dir", folder).exit_code != 0
    assert run("cluster", "verify", "c").exit_code == 2
    grpc = fleet.plan.of("coordinator")[0].address("grpc")
    router, tls = fleet.plan.of("router")[0], fleet.plan.tls_paths(fleet.plan.of("router")[0], folder)
    flags = [text for name, path in tls.items() for text in (f"--tls-{name}", path)]
    assert "equal" in ok("cluster", "verify", "c", "--coordinators", grpc, *flags, "--as", router.name)


def test_one_that_ended_is_started_again_and_the_others_left_alone(folder: Path) -> None:
    fleet = Fleet.make(folder, FleetSize(1, 2, 1), tls=False, usual_ports=False)
    fleet.up()
    before = {state.name: state.pid for state in fleet.states()}
    with fleet.client(timeout=10) as client:
        client.create_collection("c", 4).upsert([1], V[:1])
        assert fleet.router_at(client.router) in ("r1", "r2")
        fleet.kill("r1")
        assert client.count(collection="c") == 1, "the other router stands in"
        fleet.pause("d1")
        with pytest.raises(UnavailableError):
            fleet.pause("r1")
        fleet.resume("d1")
        Fleet.open(folder).up()
        after = {state.name: state.pid for state in fleet.states()}
        assert after["r1"] not in (None, before["r1"])
        assert {name: pid for name, pid in after.items() if name != "r1"} == {
            name: pid for name, pid in before.items() if name != "r1"
        }
        assert fleet.leader() == "c1" and client.count(collection="c") == 1


def _alive(pid: int) -> bool:
    return start_time(pid) is not None

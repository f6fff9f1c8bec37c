"""Which processes a fleet has, on which ports, and with what flags."""

from __future__ import annotations

import itertools
import json
import socket
from pathlib import Path

import pytest

from omendb.fleet.fleet import Fleet, up_members
from omendb.fleet.plan import PLAN_FILE, FleetSize, free_ports, make_plan, port_is_free, read_plan, with_free_ports
from omendb_common.errors import FormatVersionError, InvalidArgumentError, NotFoundError


def test_every_port_of_a_plan_is_its_own() -> None:
    plan = make_plan(FleetSize(5, 3, 4), tls=True, usual_ports=False)
    ports = [port for node in plan.nodes for port in node.ports.values()]
    assert len(set(ports)) == len(ports) == 5 * 2 + 3 * 2 + 4
    assert all(20_000 <= port < 32_000 for port in ports), "a port for outgoing connections could meet itself"
    assert [node.name for node in plan.of("datanode")] == ["d1", "d2", "d3", "d4"]


def test_processes_learn_of_each_other(tmp_path: Path) -> None:
    plan = make_plan(FleetSize(3, 2, 3), tls=False, usual_ports=False)
    grpc = ",".join(node.address("grpc") for node in plan.of("coordinator"))
    for node in plan.nodes:
        flags = plan.arguments(node, tmp_path)
        given = dict(itertools.pairwise(flags))
        assert given["--node-id"] == node.name and "--tls-ca" not in flags
        if node.kind == "coordinator":
            assert given["--peers"].count("=") == 3 and f"{node.name}={node.address('raft')}" in given["--peers"]
        else:
            assert given["--coordinators"] == grpc
        assert node.kind == "router" or given["--dir"] == str(tmp_path / node.name)
    with_tls = make_plan(FleetSize(1, 1, 1), tls=True, usual_ports=False)
    for node in with_tls.nodes:
        assert with_tls.arguments(node, tmp_path)[-2:] == [
            "--tls-key",
            str(tmp_path / "tls" / f"{node.kind}-{node.name}.key"),
        ]


def test_a_plan_is_kept_and_read_back(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(1, 1, 1), usual_ports=False)
    assert read_plan(tmp_path / "fleet") == fleet.plan == Fleet.open(tmp_path / "fleet").plan
    assert Fleet.make(tmp_path / "fleet").plan == fleet.plan, "without a size, the one that it was made with"
    assert [state.pid for state in fleet.states()] == [None, None, None]
    with pytest.raises(InvalidArgumentError, match="c1, r1, d1"):
        fleet.process("d2")
    with pytest.raises(NotFoundError, match="cluster up"):
        Fleet.open(tmp_path)
    value = json.loads((tmp_path / "fleet" / PLAN_FILE).read_text())
    (tmp_path / "fleet" / PLAN_FILE).write_text(json.dumps(value | {"format": 99}))
    with pytest.raises(FormatVersionError):
        Fleet.open(tmp_path / "fleet")


def test_a_router_is_known_by_the_address_of_every_face(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(1, 2, 1), usual_ports=False)
    for router in fleet.plan.of("router"):
        assert {fleet.router_at(router.address(face)) for face in ("http", "grpc")} == {router.name}
    with pytest.raises(NotFoundError):
        fleet.router_at(fleet.plan.node("d1").address("data"))


def test_a_fleet_grows_and_does_not_shrink(tmp_path: Path) -> None:
    made = Fleet.make(tmp_path / "fleet", FleetSize(1, 1, 1), usual_ports=False).plan
    more = Fleet.make(tmp_path / "fleet", FleetSize(1, 2, 3)).plan
    assert more == read_plan(tmp_path / "fleet") and more.nodes[:3] == made.nodes
    assert [n.name for n in more.nodes[3:]] == ["r2", "d2", "d3"] and more.size == FleetSize(1, 2, 3)
    for size in (FleetSize(1, 1, 3), FleetSize(1, 2, 2), FleetSize(3, 2, 3)):
        with pytest.raises(InvalidArgumentError):
            Fleet.make(tmp_path / "fleet", size)
    assert read_plan(tmp_path / "fleet") == more


@pytest.mark.parametrize("counts", [(2, 1, 1), (0, 1, 1), (3, 0, 1), (3, 1, 0), (3, 33, 1)])
def test_sizes_have_bounds(counts: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidArgumentError):
        FleetSize(*counts)


def test_ports_that_were_taken_meanwhile_are_replaced_but_not_those_of_coordinators() -> None:
    plan = make_plan(FleetSize(1, 1, 1), tls=False, usual_ports=False)
    with socket.socket() as taken, socket.socket() as also_taken:
        for held, port in ((taken, plan.node("d1").ports["data"]), (also_taken, plan.node("c1").ports["raft"])):
            held.bind(("127.0.0.1", port))
            held.listen()
        assert with_free_ports(plan, {"r1"}) == plan, "one that runs holds its port itself"
        mended = with_free_ports(plan, {"c1", "r1", "d1"})
        assert mended.node("d1").ports["data"] != plan.node("d1").ports["data"]
        assert mended.node("c1") == plan.node("c1") and mended.node("r1") == plan.node("r1")
        assert not port_is_free(plan.node("d1").ports["data"])


def test_free_ports_differ() -> None:
    ports = list(itertools.islice(free_ports(), 50))
    assert len(set(ports)) == 50


def test_members_that_are_up() -> None:
    members = [
        {"node_id": "d1", "role": "datanode", "state": "up"},
        {"node_id": "d2", "role": "datanode", "state": "suspect"},
        {"node_id": "r1", "role": "router", "state": "up"},
    ]
    assert up_members({"members": members}, "datanode") == {"d1"} and up_members({}, "router") == set()

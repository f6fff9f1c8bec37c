"""Which processes a fleet has, where each listens, and with what flags each starts."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from omendb_common.errors import FormatVersionError, InvalidArgumentError, ResourceExhaustedError

PLAN_FILE = "fleet.json"
FORMAT = 1
COORDINATORS = (1, 3, 5)
PROCESSES_MAX = 32
FIRST_ROUTER = (8480, 8481)
# Below the ports that systems give to outgoing connections: a process that tries to reach one that is down must not
# be given that very port for its own end, and find itself.
_PORTS = range(20_000, 32_000)
_TRIES = 500

Kind = Literal["coordinator", "router", "datanode"]
MODULES: dict[Kind, str] = {
    "coordinator": "omendb_coordinator",
    "router": "omendb_router",
    "datanode": "omendb_datanode",
}


@dataclass(frozen=True, slots=True)
class FleetSize:
    """How many processes of each kind."""

    coordinators: int = 3
    routers: int = 2
    datanodes: int = 3

    def __post_init__(self) -> None:
        if self.coordinators not in COORDINATORS:
            raise InvalidArgumentError(f"got {self.coordinators}", field="coordinators", bound="1, 3 or 5")
        for name in ("routers", "datanodes"):
            if not 1 <= getattr(self, name) <= PROCESSES_MAX:
                raise InvalidArgumentError(f"got {getattr(self, name)}", field=name, bound=f"1..{PROCESSES_MAX}")


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One process: its name, its kind, and the ports it listens on, by what they are for."""

    name: str
    kind: Kind
    ports: dict[str, int]

    def address(self, purpose: str) -> str:
        """``host:port`` of one of its ports."""
        return f"127.0.0.1:{self.ports[purpose]}"


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """A fleet in a folder. It is written down before the first process starts, and stays the same."""

    size: FleetSize
    tls: bool
    nodes: tuple[NodePlan, ...]

    def of(self, kind: Kind) -> list[NodePlan]:
        """The processes of one kind."""
        return [node for node in self.nodes if node.kind == kind]

    def node(self, name: str) -> NodePlan:
        """The process of that name."""
        found = next((node for node in self.nodes if node.name == name), None)
        if found is None:
            raise InvalidArgumentError(f"got {name!r}", field="node", bound=", ".join(n.name for n in self.nodes))
        return found

    def arguments(self, node: NodePlan, folder: Path) -> list[str]:
        """The command line of one process whose data lie in ``folder``/its name."""
        tls = self._tls_flags(node, folder) if self.tls else []
        home = str(folder / node.name)
        coordinators = ",".join(c.address("grpc") for c in self.of("coordinator"))
        if node.kind == "coordinator":
            peers = ",".join(f"{c.name}={c.address('raft')}/{c.address('grpc')}" for c in self.of("coordinator"))
            listen = ["--listen", node.address("grpc"), "--raft-listen", node.address("raft")]
            return ["--dir", home, "--node-id", node.name, *listen, "--peers", peers, "--bootstrap", *tls]
        if node.kind == "datanode":
            listen = ["--listen", node.address("data"), "--coordinators", coordinators]
            return ["--dir", home, "--node-id", node.name, *listen, *tls]
        listen = ["--http", node.address("http"), "--grpc", node.address("grpc"), "--coordinators", coordinators]
        return ["--node-id", node.name, *listen, *tls]

    def tls_paths(self, node: NodePlan, folder: Path) -> dict[str, str]:
        """The files that a process shows the others: ca, cert and key."""
        certificates = folder / "tls"
        files = {"ca": "ca.pem", "cert": f"{node.kind}-{node.name}.pem", "key": f"{node.kind}-{node.name}.key"}
        return {name: str(certificates / file) for name, file in files.items()}

    def _tls_flags(self, node: NodePlan, folder: Path) -> list[str]:
        return [text for name, path in self.tls_paths(node, folder).items() for text in (f"--tls-{name}", path)]

    def write(self, folder: Path) -> None:
        """Keep the plan in its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{PLAN_FILE}.partial"
        partial.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1), encoding="utf-8")
        partial.replace(folder / PLAN_FILE)


def read_plan(folder: Path) -> FleetPlan | None:
    """The plan of a folder; None when there is none yet."""
    try:
        value: dict[str, Any] = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if value["format"] > FORMAT:
        raise FormatVersionError(f"fleet format {value['format']}", field=str(folder), bound=f"at most {FORMAT}")
    nodes = tuple(NodePlan(n["name"], n["kind"], n["ports"]) for n in value["nodes"])
    return FleetPlan(FleetSize(**value["size"]), value["tls"], nodes)


def make_plan(size: FleetSize, *, tls: bool, usual_ports: bool = True) -> FleetPlan:
    """A plan with free ports; ``usual_ports``: the first router gets 8480 and 8481 when both are free."""
    ports = free_ports()
    nodes = [
        NodePlan(f"c{i + 1}", "coordinator", {"grpc": next(ports), "raft": next(ports)})
        for i in range(size.coordinators)
    ]
    for number in range(size.routers):
        usual = usual_ports and number == 0 and all(port_is_free(port) for port in FIRST_ROUTER)
        http, grpc = FIRST_ROUTER if usual else (next(ports), next(ports))
        nodes.append(NodePlan(f"r{number + 1}", "router", {"http": http, "grpc": grpc}))
    nodes += [NodePlan(f"d{i + 1}", "datanode", {"data": next(ports)}) for i in range(size.datanodes)]
    return FleetPlan(size, tls, tuple(nodes))


def grown(plan: FleetPlan, size: FleetSize) -> FleetPlan:
    """The plan with more routers and data nodes, which get the next names.

    Raises:
        InvalidArgumentError: it would have fewer, or other coordinators.
    """
    for kind, had, wanted in (
        ("routers", plan.size.routers, size.routers),
        ("datanodes", plan.size.datanodes, size.datanodes),
    ):
        if wanted < had:
            raise InvalidArgumentError(
                f"got {wanted}", field=kind, bound=f"at least {had}", mend="`omendb cluster drain` empties a data node"
            )
    if size.coordinators != plan.size.coordinators:
        raise InvalidArgumentError(f"got {size.coordinators}", field="coordinators", bound=str(plan.size.coordinators))
    ports = free_ports()
    more = [
        NodePlan(f"r{i + 1}", "router", {"http": next(ports), "grpc": next(ports)})
        for i in range(plan.size.routers, size.routers)
    ]
    more += [
        NodePlan(f"d{i + 1}", "datanode", {"data": next(ports)}) for i in range(plan.size.datanodes, size.datanodes)
    ]
    return FleetPlan(size, plan.tls, (*plan.nodes, *more))


def with_free_ports(plan: FleetPlan, stopped: set[str]) -> FleetPlan:
    """The plan with new ports for those stopped routers and data nodes whose ports somebody else has taken.

    Coordinators know each other by their ports, so theirs stay.
    """
    ports = free_ports()

    def mended(node: NodePlan) -> NodePlan:
        if node.kind == "coordinator" or node.name not in stopped:
            return node
        taken = {purpose for purpose, port in node.ports.items() if not port_is_free(port)}
        return replace(node, ports={p: next(ports) if p in taken else port for p, port in node.ports.items()})

    return replace(plan, nodes=tuple(mended(node) for node in plan.nodes))


def free_ports(dice: Random | None = None) -> Iterator[int]:
    """Ports on which nobody listens now, each once."""
    dice, given = dice or Random(), set[int]()
    for _ in range(_TRIES):
        port = dice.choice(_PORTS)
        if port not in given and port_is_free(port):
            given.add(port)
            yield port
    raise ResourceExhaustedError("no free ports", field="ports", bound=f"{_PORTS.start}..{_PORTS.stop}")


def port_is_free(port: int) -> bool:
    """Whether a process could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


__all__ = [
    "COORDINATORS",
    "FIRST_ROUTER",
    "FORMAT",
    "MODULES",
    "PLAN_FILE",
    "PROCESSES_MAX",
    "FleetPlan",
    "FleetSize",
    "Kind",
    "NodePlan",
    "free_ports",
    "grown",
    "make_plan",
    "port_is_free",
    "read_plan",
    "with_free_ports",
]

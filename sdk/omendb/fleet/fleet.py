"""A fleet in a folder: brought up, looked at, shaken, taken down.

::

    DIR/fleet.json          the plan: names, kinds, ports
    DIR/tls/                a development authority and a certificate per process
    DIR/run/<node>.{log,out,pid}
    DIR/<node>/             the node's data
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omendb.fleet.plan import MODULES, FleetPlan, FleetSize, Kind, grown, make_plan, read_plan, with_free_ports
from omendb.fleet.process import FleetProcess, wait_until
from omendb_common.clock import SystemClock
from omendb_common.errors import NotFoundError, OmenDBError, UnavailableError

if TYPE_CHECKING:
    from omendb.client import Client

START_S = 60.0
GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class NodeState:
    """One process now. ``pid`` is None when it does not run."""

    name: str
    kind: Kind
    pid: int | None
    addresses: dict[str, str]


class Fleet:
    """The processes of one folder. Another command that opens the folder sees the same ones."""

    def __init__(self, folder: Path, plan: FleetPlan) -> None:
        self.folder = folder
        self.plan = plan
        self._processes: dict[str, FleetProcess] = {}

    @staticmethod
    def open(folder: Path) -> Fleet:
        """The fleet of a folder; NotFoundError when there was none."""
        plan = read_plan(folder)
        if plan is None:
            raise NotFoundError("no fleet here", field=str(folder), mend="`omendb cluster up` makes one")
        return Fleet(folder, plan)

    @staticmethod
    def make(folder: Path, size: FleetSize | None = None, *, tls: bool = True, usual_ports: bool = True) -> Fleet:
        """The fleet of a folder, planned now when there was none.

        A fleet that is there gets the routers and data nodes that ``size`` has more.

        Raises:
            InvalidArgumentError: it would have fewer of them, or other coordinators.
        """
        plan = read_plan(folder)
        if plan is None:
            plan = make_plan(size or FleetSize(), tls=tls, usual_ports=usual_ports)
            plan.write(folder)
        elif size is not None and size != plan.size:
            plan = grown(plan, size)
            plan.write(folder)
        return Fleet(folder, plan)

    # -- as a whole

    def up(self, timeout_s: float = START_S) -> None:
        """Start whatever does not run, and wait until the cluster takes reads and writes."""
        stopped = {node.name for node in self.plan.nodes if self.process(node.name).pid is None}
        if not stopped:
            return self.wait_serving(timeout_s)
        mended = with_free_ports(self.plan, stopped)
        if mended != self.plan:
            self.plan, self._processes = mended, {}
            mended.write(self.folder)
        if self.plan.tls:
            self._issue_certificates()
        for node in self.plan.nodes:
            self.process(node.name).start()
        for node in self.plan.nodes:
            self.process(node.name).wait_ready(timeout_s)
        return self.wait_serving(timeout_s)

    def down(self, grace_s: float = GRACE_S) -> None:
        """End every process: routers first, coordinators last; SIGKILL for one that does not end in time."""
        for kind in ("router", "datanode", "coordinator"):
            processes = [self.process(node.name) for node in self.plan.nodes if node.kind == kind]
            for process in processes:
                process.send(signal.SIGTERM)
            for process in processes:
                process.stop(grace_s)

    def states(self) -> list[NodeState]:
        """Every process now."""
        return [
            NodeState(n.name, n.kind, self.process(n.name).pid, {p: n.address(p) for p in n.ports})
            for n in self.plan.nodes
        ]

    def urls(self) -> list[str]:
        """The routers, for a client."""
        return [f"http://{router.address('http')}" for router in self.plan.of("router")]

    def router_at(self, address: str) -> str:
        """The name of the router that a client knows by one of its addresses; NotFoundError when there is none."""
        for router in self.plan.of("router"):
            # Frames go to the port of REST.
            if address in (router.address("http"), router.address("grpc")):
                return router.name
        raise NotFoundError(f"no router at {address!r}", field="address")

    def client(self, **arguments: Any) -> Client:
        """A client that knows every router."""
        from omendb.client import Client

        return Client(self.urls(), **arguments)

    def wait_serving(self, timeout_s: float) -> None:
        """Wait until a router answers and knows every data node and coordinator that runs as up.

        Coordinators too: the feature level of a new cluster rises only once each has said which one it understands.
        """
        self._wait_up("datanode", timeout_s)
        self._wait_up("coordinator", timeout_s)

    def _wait_up(self, role: Kind, timeout_s: float) -> None:
        wanted = {node.name for node in self.plan.of(role) if self.process(node.name).pid is not None}
        self.wait_status(lambda status: wanted <= up_members(status, role), timeout_s, f"every {role} to be up")

    def wait_member(self, name: str, timeout_s: float) -> None:
        """Wait until the cluster knows a process as up."""
        role = self.plan.node(name).kind
        self.wait_status(lambda status: name in up_members(status, role), timeout_s, f"{name} to be known as up")

    def wait_status(self, predicate: Callable[[dict[str, Any]], bool], timeout_s: float, what: str) -> None:
        """Wait until the cluster's status, as a router tells it, satisfies ``predicate``."""
        seen: list[Any] = [None]

        def holds() -> bool:
            try:
                seen[0] = self.status()
            except OmenDBError as error:
                seen[0] = error
                return False
            return predicate(seen[0])

        wait_until(holds, timeout_s, what, lambda: f"the last word was {str(seen[0])[:500]}")

    def status(self, timeout_s: float = 2.0) -> dict[str, Any]:
        """The cluster's status as a router tells it; UnavailableError when none does."""
        with self.client(timeout=timeout_s) as client:
            return client.cluster_status()

    # -- one process

    def process(self, name: str) -> FleetProcess:
        """A process by its name."""
        found = self._processes.get(name)
        if found is None:
            node = self.plan.node(name)
            found = FleetProcess(name, MODULES[node.kind], self.plan.arguments(node, self.folder), self.folder / "run")
            self._processes[name] = found
        return found

    def kill(self, name: str) -> None:
        """``kill -9``."""
        self.process(name).kill()

    def pause(self, name: str) -> None:
        """SIGSTOP: it stands still, and its connections stay open."""
        self._must(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._must(name, signal.SIGCONT)

    def start(self, name: str, timeout_s: float = START_S) -> None:
        """Start it, and wait until it serves."""
        process = self.process(name)
        process.start()
        process.wait_ready(timeout_s)

    def leader(self, timeout_s: float = 20.0) -> str:
        """The coordinator that leads now."""
        found: list[str] = []

        def known() -> bool:
            try:
                leader = str(self.status().get("leader"))
            except OmenDBError:
                return False
            names = [node.name for node in self.plan.of("coordinator")]
            found[:] = [leader] if leader in names and self.process(leader).pid is not None else []
            return bool(found)

        wait_until(known, timeout_s, "a leader")
        return found[0]

    def _must(self, name: str, number: signal.Signals) -> None:
        if not self.process(name).send(number):
            raise UnavailableError(f"{name} does not run", field="node")

    def _issue_certificates(self) -> None:
        from omendb_common.security.dev_certificates import DevAuthority

        clock = SystemClock()
        # The coordinators draw the cluster's id when they first agree, so certificates cannot name it yet: they name
        # their process, and this fleet's own authority stands for the cluster.
        authority = DevAuthority.open(self.folder / "tls", "", clock)
        for node in self.plan.nodes:
            if self.process(node.name).pid is None:
                authority.issue(node.kind, node.name, clock)


def up_members(status: dict[str, Any], role: str) -> set[str]:
    """The members of one role that a status knows as up."""
    return {m["node_id"] for m in status.get("members", ()) if m.get("role") == role and m.get("state") == "up"}


__all__ = ["GRACE_S", "START_S", "Fleet", "NodeState", "up_members"]

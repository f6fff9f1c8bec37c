"""Links in front of a fleet's data nodes and coordinators, which can be cut: what others send there just stays away.

Only one way is cut, as where a switch drops what goes to a machine: what that machine itself sends still arrives, and
so do the answers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import free_ports
from omendb.fleet.process import FleetProcess

_READY_S = 30.0
_GRACE_S = 2.0


class Links:
    """One link in front of each process that was named; none is cut yet."""

    def __init__(self) -> None:
        self._links: dict[str, FleetProcess] = {}

    def prepare(self, fleet: Fleet, names: Iterable[str]) -> None:
        """Lay the links, before any process of the fleet starts: everybody is told of them instead of the processes."""
        ports = free_ports()
        for name in names:
            node = fleet.plan.node(name)
            listen = f"127.0.0.1:{next(ports)}"
            target = node.address("grpc" if node.kind == "coordinator" else "data")
            arguments = [listen, target, str(fleet.folder / f"link-{name}.knob")]
            link = FleetProcess(f"link-{name}", "omendb_chaos.fleet.slow_link", arguments, fleet.folder / "run")
            self._links[name] = link
            link.start()
            if node.kind == "datanode":
                fleet.process(name).arguments += ["--advertise", listen]
            else:
                _told_of(fleet, target, listen)
        for link in self._links.values():
            link.wait_ready(_READY_S)

    def cut(self, name: str) -> None:
        """From now on nothing that is sent there arrives, and no connection ends."""
        self._links[name].send(signal.SIGSTOP)

    def mend(self, name: str) -> None:
        """What was on its way arrives now."""
        self._links[name].send(signal.SIGCONT)

    def end(self) -> None:
        """End the links."""
        for link in self._links.values():
            link.send(signal.SIGCONT)  # one that stands still does not hear that it should end
            link.stop(_GRACE_S)


def _told_of(fleet: Fleet, address: str, listen: str) -> None:
    """Let data nodes and routers know a coordinator by another address."""
    for node in fleet.plan.nodes:
        if node.kind != "coordinator":
            process = fleet.process(node.name)
            process.arguments = [text.replace(address, listen) for text in process.arguments]


@contextmanager
def ended(links: Links) -> Iterator[Links]:
    """End them however this ends, while the folder that says which processes they are is still there."""
    try:
        yield links
    finally:
        links.end()


__all__ = ["Links", "ended"]

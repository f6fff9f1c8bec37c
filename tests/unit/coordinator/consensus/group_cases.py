"""Groups on one event loop, over loopback or over a network in memory that can be cut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from omendb_chaos.sim.disk import SimDisk
from omendb_common.disk import Disk
from omendb_coordinator.consensus.codec import decode, encode
from omendb_coordinator.consensus.group import RaftGroup
from omendb_coordinator.consensus.messages import Message
from omendb_coordinator.consensus.settings import RaftSettings
from omendb_coordinator.consensus.transport import Address, Deliver, Introduction

FAST = RaftSettings(heartbeat_s=0.03, election_min_s=0.15, election_max_s=0.3)
PATIENCE_S = 20.0


@dataclass(slots=True)
class ListMachine:
    """Remembers every command. ``poison``: a command that breaks it."""

    items: list[bytes] = field(default_factory=list)
    restored: int = 0
    poison: bytes = b"\0poison"

    def apply(self, index: int, command: bytes) -> bytes:
        if command == self.poison:
            raise ArithmeticError("the machine has a bug")
        self.items.append(command)
        return b"%d" % len(self.items)

    def snapshot(self) -> bytes:
        return b"\n".join(self.items)

    def restore(self, data: bytes, index: int) -> None:
        self.items = data.split(b"\n") if data else []
        self.restored += 1


class MemoryNetwork:
    """Carries messages between groups of one event loop; ``cut`` members hear and say nothing."""

    def __init__(self) -> None:
        self.cut: set[str] = set()
        self._delivers: dict[str, Deliver] = {}

    def transport(self, introduction: Introduction) -> _Line:
        return _Line(self, introduction.identity.node_id)

    def carry(self, sender: str, to: str, message: Message) -> None:
        if {sender, to} & self.cut or to not in self._delivers:
            return
        data = b"".join(encode(message))
        asyncio.get_running_loop().call_later(0.001, self._arrive, sender, to, data)

    def _arrive(self, sender: str, to: str, data: bytes) -> None:
        if to in self._delivers and not {sender, to} & self.cut:
            self._delivers[to](sender, decode(data))

    def plug(self, node: str, deliver: Deliver) -> None:
        self._delivers[node] = deliver

    def unplug(self, node: str) -> None:
        self._delivers.pop(node, None)


class _Line:
    def __init__(self, network: MemoryNetwork, node: str) -> None:
        self._network = network
        self._node = node

    async def start(self, deliver: Deliver) -> None:
        self._network.plug(self._node, deliver)

    def send(self, to: str, message: Message) -> None:
        self._network.carry(self._node, to, message)

    async def stop(self) -> None:
        self._network.unplug(self._node)


@dataclass(slots=True)
class Cluster:
    """Members by name, with their machines and disks, and what each of them died of."""

    peers: Mapping[str, Address]
    network: MemoryNetwork | None
    settings: RaftSettings
    groups: dict[str, RaftGroup] = field(default_factory=dict)
    machines: dict[str, ListMachine] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    fatal: dict[str, BaseException] = field(default_factory=dict)

    async def start(self, name: str, *, bootstrap: bool = False, rejoin: bool = False) -> RaftGroup:
        self.machines[name] = ListMachine()
        group = RaftGroup(
            self.disks.setdefault(name, SimDisk()),
            "raft",
            name,
            self.peers,
            self.machines[name],
            settings=self.settings,
            bootstrap=bootstrap,
            rejoin=rejoin,
            cluster_id="cluster",
            on_fatal=lambda error: self.fatal.__setitem__(name, error),
            transport=None if self.network is None else self.network.transport,
        )
        self.groups[name] = group
        await group.start()
        return group

    async def stop(self, name: str) -> None:
        await self.groups.pop(name).stop()

    async def leader(self, *among: str) -> RaftGroup:
        """Whoever leads, of these members, once there is one that has committed something of its own."""

        def leading() -> list[RaftGroup]:
            names = among or tuple(self.groups)
            return [g for n in names if (g := self.groups[n]).status.role == "leader"]

        await until(lambda: bool(leading()))
        group = leading()[0]
        await group.read_index(PATIENCE_S)
        return group

    async def settled(self) -> None:
        """Everybody has applied everything."""

        def same() -> bool:
            stands = [group.status for group in self.groups.values()]
            return len({s.applied_index for s in stands}) == 1 and all(s.applied_index == s.last_index for s in stands)

        await until(same)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something to hold; fails the test when it does not come."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@asynccontextmanager
async def cluster(
    count: int, *, network: MemoryNetwork | None = None, settings: RaftSettings = FAST
) -> AsyncIterator[Cluster]:
    """So many new members; over loopback when there is no network in memory."""
    ports = free_ports(count) if network is None else [0] * count
    peers = {f"c{number}": ("127.0.0.1", port) for number, port in enumerate(ports, start=1)}
    made = Cluster(peers, network, settings)
    try:
        for name in peers:
            await made.start(name, bootstrap=True)
        yield made
    finally:
        for group in made.groups.values():
            await group.stop()


__all__ = ["FAST", "PATIENCE_S", "Cluster", "ListMachine", "MemoryNetwork", "cluster", "free_ports", "until"]

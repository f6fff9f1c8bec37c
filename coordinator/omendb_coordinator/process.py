"""One coordinator process: its group, its face, and its own membership, from start to end."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import signal
import sys
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.disk import RealDisk
from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.feature_level import CURRENT
from omendb_common.security.renewal import renewed
from omendb_common.security.tls import TlsFiles
from omendb_common.telemetry.http import HealthServer
from omendb_common.telemetry.loop_lag import LoopLag
from omendb_common.telemetry.metrics import Metrics
from omendb_common.topology import Member, Topology
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.config import CoordinatorSettings
from omendb_coordinator.consensus.group import RaftGroup
from omendb_coordinator.consensus.settings import RaftSettings
from omendb_coordinator.consensus.tls import RaftTls
from omendb_coordinator.control import Control
from omendb_coordinator.measured import Figures
from omendb_coordinator.service import CoordinatorServer
from omendb_coordinator.watch import Watch

_log = logging.getLogger(__name__)

Address = tuple[str, int]

RELEASE = importlib.metadata.version("omendb")


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a coordinator listens for the others, and where it serves."""

    raft: Address
    serves: Address


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    folder: str
    node_id: str
    listen: Address
    raft_listen: Address
    peers: Mapping[str, Peer] = field(default_factory=dict)
    bootstrap: bool = False
    rejoin: bool = False
    zone: str = ""
    metrics_listen: Address | None = None
    tls: TlsFiles | None = None
    settings: CoordinatorSettings = field(default_factory=CoordinatorSettings)
    level: int = CURRENT


def parse_address(text: str, name: str) -> Address:
    """``host:port``; InvalidArgumentError otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidArgumentError(f"got {text!r}", field=name, bound="host:port")
    return host.strip("[]"), int(port)


def parse_peers(text: str) -> dict[str, Peer]:
    """``c1=host:port/host:port,c2=…``: the address for the group, then the one for everybody."""
    peers = {}
    for part in filter(None, text.split(",")):
        node_id, equals, addresses = part.partition("=")
        raft, slash, serves = addresses.partition("/")
        if not equals or not slash or not node_id or node_id in peers:
            raise InvalidArgumentError(f"got {part!r}", field="peers", bound="id=host:port/host:port, every id once")
        peers[node_id] = Peer(parse_address(raft, "peers"), parse_address(serves, "peers"))
    return peers


def written(address: Address) -> str:
    """An address as ``host:port``."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class CoordinatorProcess:
    """Builds a coordinator from its options, runs it and takes it down. Belongs to one event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = SystemClock()
        settings = options.settings
        watch = Watch(settings.topologies_kept)
        loop = asyncio.get_running_loop()

        def publish(topology: Topology, resync: bool) -> None:
            loop.call_soon_threadsafe(watch.publish, topology, resync)

        catalog = Catalog(publish, level=options.level)
        peers = dict(options.peers) or {options.node_id: Peer(options.raft_listen, options.listen)}
        self._addresses = {node_id: written(peer.serves) for node_id, peer in peers.items()}
        self._group = RaftGroup(
            RealDisk(),
            f"{options.folder}/raft",
            options.node_id,
            {node_id: peer.raft for node_id, peer in peers.items()},
            catalog,
            listen=options.raft_listen,
            settings=RaftSettings(
                heartbeat_s=settings.raft_heartbeat_s,
                election_min_s=settings.raft_election_min_s,
                election_max_s=settings.raft_election_max_s,
            ),
            tls=None if options.tls is None else _raft_tls(options.tls),
            bootstrap=options.bootstrap,
            rejoin=options.rejoin,
            clock=self._clock,
        )
        self._control = Control(
            self._group, catalog, watch, self._addresses, settings, self._clock, lambda: uuid.uuid4().hex
        )
        self._metrics = Metrics("coordinator", options.node_id, self._clock, release=RELEASE)
        if options.tls is not None:
            self._metrics.watch_certificate("cluster", renewed(options.tls).left_s)
        self._figures = Figures(self._control, self._metrics)
        self._lag = LoopLag()
        self._metrics.gauge("omendb_loop_lag_seconds", "How late the event loop is", lambda: self._lag.lag_s)
        self._health = HealthServer(self._metrics.render, self._figures.unready)
        self._server = CoordinatorServer(
            self._control,
            options.tls,
            self._clock,
            lambda method, seconds, code: self._metrics.observe_request(method, seconds, code),
        )
        self._client: CoordinatorClient | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then leave in good order."""
        options = self._options
        async with AsyncExitStack() as end:
            if options.metrics_listen is not None:
                end.push_async_callback(self._health.stop)
                await self._health.start(*options.metrics_listen)
            self._lag.start()
            end.callback(self._lag.stop)
            port = await self._server.bind(written(options.listen))
            if options.listen[1] == 0:
                self._addresses[options.node_id] = written((options.listen[0], port))
            await self._group.start()
            end.push_async_callback(self._group.stop)
            await self._server.start()
            end.push_async_callback(self._server.stop, options.settings.drain_s)
            leading = asyncio.create_task(self._control.lead(), name="leader's duties")
            end.push_async_callback(_cancelled, leading)
            await self._join()
            end.push_async_callback(self._leave)
            self._say_ready()
            ended = asyncio.create_task(stop.wait(), name="stop")
            end.push_async_callback(_cancelled, ended)
            await asyncio.wait({leading, ended}, return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()

    async def _join(self) -> None:
        """Be a member like every other process, so that people see this one and upgrades wait for it."""
        options = self._options
        member = Member(
            options.node_id,
            "coordinator",
            self._addresses[options.node_id],
            uuid.uuid4().hex,
            options.zone,
            feature_level=options.level,
        )
        self._client = CoordinatorClient(
            *(list(self._addresses.values()), options.tls, self._clock),
            name=options.node_id,
            level=options.level,
        )
        self._client.start_heartbeats(member)

    async def _leave(self) -> None:
        if self._client is None:
            return
        try:
            await self._client.leave(Deadline.after(self._clock, 1.0))
        except OmenDBError as problem:
            _log.info("ending without saying so: %s", problem)
        await self._client.close()

    def _say_ready(self) -> None:
        told = {
            "role": "coordinator",
            "node_id": self._options.node_id,
            "address": self._addresses[self._options.node_id],
            "raft": written(self._group.address),
            "metrics": self._health.address or None,
        }
        sys.stdout.write(f"ready {json.dumps(told)}\n")
        sys.stdout.flush()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _raft_tls(files: TlsFiles) -> RaftTls:
    try:
        return RaftTls.from_files(files.ca, files.cert, files.key)
    except OSError as problem:
        raise InvalidArgumentError(f"cannot use the TLS files: {problem}", field="tls_cert") from None


async def serve(options: Options) -> None:
    """Run a coordinator until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await CoordinatorProcess(options).run(stop)


__all__ = ["Address", "CoordinatorProcess", "Options", "Peer", "parse_address", "parse_peers", "serve", "written"]

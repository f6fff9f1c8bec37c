"""Real processes: a data node that joins, serves over frames, is killed under load, and comes back with every row."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from omendb_chaos.coordinators import Coordinators, read_ready
from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.hlc import HybridLogicalClock
from omendb_common.ids import IdColumn
from omendb_common.metadata import NewCollection
from omendb_common.schema import VectorField
from omendb_common.shard_calls import Apply, Lookup, Search, ShardRef, State, Verdict
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.frame_connection import FrameIdentity
from tests.unit.datanode.datanode_cases import upsert, vectors
from tests.unit.engine.engine_cases import schema_of

CLOCK = SystemClock()
ORIGIN = 5
KILLS = 1


def soon(timeout_s: float = 30.0) -> Deadline:
    """A deadline that no test should reach."""
    return Deadline.after(CLOCK, timeout_s)


class NodeProcess:
    """One data node on a folder of its own, to be ended in every way."""

    def __init__(self, folder: Path, coordinators: list[str], node_id: str = "d1") -> None:
        self.folder = folder / node_id
        self.log = folder / f"{node_id}.log"
        self.command = [sys.executable, "-m", "omendb_datanode", "--dir", str(self.folder), "--node-id", node_id]
        self.command += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
        self.command += ["--coordinators", ",".join(coordinators)]
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self) -> dict[str, object]:
        """Start it and wait until it serves."""
        environment = {**os.environ, "OMENDB_BUFFER_BUFFER_ROWS_MAX": "500"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, env=environment)
        told = read_ready(self.process, self.log.read_text(errors="replace"))
        self.address = str(told["address"])
        return told

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A data node beside one coordinator; not started."""
    group = Coordinators(tmp_path, 1)
    group.start()
    group.wait_ready()
    node = NodeProcess(tmp_path, group.addresses)
    yield node
    if node.process is not None:
        node.end(signal.SIGKILL)
    group.stop()


@asynccontextmanager
async def cluster(node: NodeProcess) -> AsyncIterator[CoordinatorClient]:
    """A client of the coordinators of ``node``."""
    client = CoordinatorClient(node.command[-1].split(","), None, CLOCK)
    await client.start()
    try:
        await client.refresh(0, soon())
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def called(node: NodeProcess, client: CoordinatorClient) -> AsyncIterator[RemoteDataNode]:
    """A connection as a router has it."""
    identity = FrameIdentity(client.topology.cluster_id, "router", "r1")
    remote = RemoteDataNode(node.address, identity=identity, node_id="d1")
    try:
        yield remote
    finally:
        await remote.close()


async def shard_of(client: CoordinatorClient, name: str) -> ShardRef:
    """The one shard of a collection."""
    info = (await client.refresh(0, soon())).collection(name)
    (shard,) = info.shards
    return ShardRef(info.schema.uuid, shard.shard_id, shard.epoch, ORIGIN)


def test_killed_under_load_it_comes_back_with_every_acknowledged_row(node: NodeProcess) -> None:
    acknowledged: dict[int, int] = {}
    hlc = HybridLogicalClock(CLOCK, origin=ORIGIN)

    async def load(remote: RemoteDataNode, shard: ShardRef, worker: int, killed: asyncio.Event) -> None:
        """Write until the node is gone; what was acknowledged is remembered with its stamp."""
        at = len(acknowledged)
        while True:
            ids = [worker * 1_000_000 + at, worker * 1_000_000 + at % 50]
            at += 1
            stamp = hlc.tick()
            try:
                answer = await remote.apply(Apply(shard, stamp, upsert(sorted(set(ids)), seed=at)), soon(5))
            except OmenDBError:
                assert killed.is_set(), "nothing fails while it lives"
                return
            assert answer.verdict is Verdict.OK and not len(answer.superseded), answer
            acknowledged.update((point, max(stamp, acknowledged.get(point, 0))) for point in set(ids))

    async def once(name: str) -> None:
        async with cluster(node) as client, called(node, client) as remote:
            if client.topology.find(name) is None:
                await client.create_collection(NewCollection(name, schema_of(VectorField(4))), soon())
            shard = await shard_of(client, name)
            before = len(acknowledged)
            if before:
                ids = IdColumn.of(np.array(sorted(acknowledged), np.uint64))
                looked = await remote.lookup(Lookup(shard, ids), soon())
                assert looked.verdict is Verdict.OK, looked.error
                assert (looked.states == State.LIVE).all(), "an acknowledged point is gone"
                expected = [acknowledged[point] for point in sorted(acknowledged)]
                assert (looked.stamps >= np.array(expected, np.uint64)).all(), "an acknowledged version is gone"
            killed = asyncio.Event()
            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                for worker in range(1, 9):
                    tasks.create_task(load(remote, shard, worker, killed))
                while len(acknowledged) < before + 300:
                    await asyncio.sleep(0.005)
                killed.set()
                assert node.process is not None
                node.process.kill()

    for _ in range(KILLS + 1):
        node.start()
        asyncio.run(once("docs"))
        node.end(signal.SIGKILL)


def _fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return str(answer.read().decode())


def test_from_the_first_start_to_a_clean_end(node: NodeProcess) -> None:
    told = node.start()
    assert told["role"] == "datanode" and told["node_id"] == "d1"

    async def use(first: bool) -> None:
        async with cluster(node) as client, called(node, client) as remote:
            if first:
                await client.create_collection(NewCollection("docs", schema_of(VectorField(4))), soon())
            shard = await shard_of(client, "docs")
            if first:
                stamp = HybridLogicalClock(CLOCK, origin=ORIGIN).tick()
                assert (await remote.apply(Apply(shard, stamp, upsert([1, 2], seed=3)), soon())).verdict is Verdict.OK
            hits = await remote.search(Search(shard, vectors(2, 3), 1), soon())
            assert hits.verdict is Verdict.OK and hits.ids.to_list() == [1, 2]
            if not first:
                await client.drop_collection("docs", soon())
                async with asyncio.timeout(30):
                    while list((node.folder / "replicas").iterdir()):
                        await asyncio.sleep(0.01)

    asyncio.run(use(True))
    asked = {path: _fetched(f"http://{told['metrics']}{path}") for path in ("/readyz", "/livez", "/metrics")}
    assert asked["/readyz"] == asked["/livez"] == "ok\n"
    assert "omendb_total_vectors 2.0" in asked["/metrics"] and "omendb_replicas_open 1.0" in asked["/metrics"]
    assert 'omendb_request_seconds_count{code="OK",method="apply"} 1.0' in asked["/metrics"]
    twin = subprocess.run(node.command, capture_output=True, text=True, timeout=60, check=False)
    assert twin.returncode == 1 and "runs on this folder" in twin.stderr and "Traceback" not in twin.stderr
    assert node.end(signal.SIGTERM) == 0
    node.start()
    asyncio.run(use(False))
    assert node.end(signal.SIGTERM) == 0
    assert "Traceback" not in node.log.read_text()
    other = [text if text != "d1" else "d9" for text in node.command]
    refused = subprocess.run(other, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2 and "node_id" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--tls-ca", "ca.pem"], {}, "tls"),
        (["--coordinators", ","], {}, "coordinators"),
        ([], {"OMENDB_DATANODE_READS_MAX": "many"}, "READS_MAX"),
        ([], {"OMENDB_DATANODE_NONSENSE": "1"}, "NONSENSE"),
        ([], {"OMENDB_DATANODE_DRAIN_S": "-1"}, "DRAIN_S"),
        ([], {"OMENDB_FRAMES_IN_FLIGHT_MAX": "0"}, "IN_FLIGHT_MAX"),
        ([], {"OMENDB_LOG_LEVEL": "loud"}, "log_level"),
        (["--set", "datanode.drain_s"], {}, "--set"),
        (["--set", "router.queue_max=1"], {}, "router.queue_max"),
    ],
)
def test_a_command_line_that_makes_no_sense(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], says: str
) -> None:
    command = [sys.executable, "-m", "omendb_datanode", "--dir", str(tmp_path / "d1"), "--node-id", "d1"]
    command += ["--coordinators", "127.0.0.1:1", *arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )
    assert ended.returncode == 2 and says in ended.stderr and "Traceback" not in ended.stderr

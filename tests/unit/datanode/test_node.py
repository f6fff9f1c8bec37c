"""A data node process inside this one, beside a coordinator that lives in memory."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omendb_common.config import EngineSettings, MemorySettings, WorkerSettings
from omendb_common.errors import ReplicaFailedError, ResourceExhaustedError
from omendb_common.hlc import HybridLogicalClock
from omendb_common.ids import IdColumn
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import Apply, ShardRef, Verdict
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_datanode.node import DataNodeProcess, Options
from tests.unit.coordinator.catalog_cases import SCHEMA
from tests.unit.coordinator.loopback import CLOCK, QUICK, Loopback, collection, in_a_loop, one_coordinator, soon, until

ENGINE = EngineSettings(workers=WorkerSettings(background_threads=1))


@asynccontextmanager
async def beside_a_coordinator() -> AsyncIterator[tuple[Loopback, CoordinatorClient]]:
    """A coordinator without members that gives real uuids."""
    patient = replace(QUICK, suspect_s=5.0, down_s=6.0, grace_s=6.0)
    async with one_coordinator(patient, nodes=0) as (server, client):
        server.control._new_id = lambda: uuid.uuid4().hex
        yield server, client


@asynccontextmanager
async def running(
    path: Path, coordinator: str, engine: EngineSettings = ENGINE
) -> AsyncIterator[tuple[DataNodeProcess, asyncio.Task[None]]]:
    """A data node that serves."""
    path.mkdir(exist_ok=True)
    stop = asyncio.Event()
    process = DataNodeProcess(Options(str(path), "d1", "127.0.0.1:0", [coordinator], engine=engine))
    task = asyncio.create_task(process.run(stop))
    try:
        await until(lambda: process._ready or task.done())
        yield process, task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


async def shard_of(client: CoordinatorClient, name: str) -> ShardRef:
    """The shard of a collection."""
    info = client.topology.collection(name)
    return ShardRef(info.schema.uuid, 0, info.shards[0].epoch, 1)


def write(shard: ShardRef, point: int) -> Apply:
    """An upsert of one point."""
    vectors = {f.name: np.ones((1, f.dimension), f.numpy_dtype) for f in SCHEMA.vectors}
    batch = WriteBatch(Op.UPSERT, IdColumn.of([point]), vectors)
    return Apply(shard, HybridLogicalClock(CLOCK, origin=1).tick(), batch)


def test_a_failed_log_ends_the_process(tmp_path: Path) -> None:
    @in_a_loop
    async def story() -> None:
        async with (
            beside_a_coordinator() as (server, client),
            running(tmp_path / "d1", server.address) as (node, task),
        ):
            await client.create_collection(collection("docs"), soon())
            shard = await shard_of(client, "docs")
            assert (await node.rules.apply(write(shard, 1), soon())).verdict is Verdict.OK
            node.hosting.replicas()[0].fail(OSError("the disk is gone"))
            with pytest.raises(ReplicaFailedError):
                await asyncio.wait_for(task, 20)

    story()


def test_a_late_loop_sheds_load(tmp_path: Path) -> None:
    @in_a_loop
    async def story() -> None:
        async with beside_a_coordinator() as (server, client), running(tmp_path / "d1", server.address) as (node, _):
            await client.create_collection(collection("docs"), soon())
            shard = await shard_of(client, "docs")
            node.lag.lag_s = 1e6
            answer = await node.rules.apply(write(shard, 1), soon())
            assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, ResourceExhaustedError)
            assert node._readiness() is not None
            node.lag.lag_s = 0.0
            assert (await node.rules.apply(write(shard, 1), soon())).verdict is Verdict.OK
            assert node._readiness() is None

    story()


def test_a_node_whose_folder_is_gone_is_another_one(tmp_path: Path) -> None:
    """Its old replicas are lost: it must not answer "absent" for them. New collections it takes (P16)."""

    @in_a_loop
    async def story() -> None:
        async with beside_a_coordinator() as (server, client):
            async with running(tmp_path / "old", server.address) as (node, _):
                await client.create_collection(collection("docs"), soon())
                assert (await node.rules.apply(write(await shard_of(client, "docs"), 1), soon())).verdict is Verdict.OK
            async with running(tmp_path / "new", server.address) as (node, _):
                await client.create_collection(collection("more"), soon())
                lost, fresh = await shard_of(client, "docs"), await shard_of(client, "more")
                assert client.topology.collection("docs").shards[0].nodes("lost") == ("d1",)
                assert (await node.rules.apply(write(lost, 2), soon())).verdict is Verdict.NOT_HERE
                assert (await node.rules.apply(write(fresh, 2), soon())).verdict is Verdict.OK

    story()


def test_many_replicas_share_the_memory(tmp_path: Path) -> None:
    @in_a_loop
    async def story() -> None:
        engine = replace(ENGINE, memory=MemorySettings(memory_limit_bytes=64 << 20))
        async with (
            beside_a_coordinator() as (server, client),
            running(tmp_path / "d1", server.address, engine) as (
                node,
                _,
            ),
        ):
            for n in range(24):
                await client.create_collection(collection(f"c{n}"), soon())
            await until(lambda: len(node.hosting.replicas()) == 24, 30.0)
            assert set(node.hosting.report().values()) == {"open"}

    story()

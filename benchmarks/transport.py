"""What a call between a router and a data node costs: framed calls, searches apart and together, large frames.

Two processes on the loopback, each with uvloop; the data node's searches are answered from arrays made beforehand, so
that nothing but the transport is measured. CPU counts both processes.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import uvloop

from benchmarks import own
from benchmarks.measure import MIB
from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.ids import IdColumn
from omendb_common.shard_calls import DataNode, Search, ShardHits, ShardRef, Verdict
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.datanode_server import serve_datanode
from omendb_common.wire.frame_client import FrameClient
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frame_server import Answer, FrameServer, Request

ROUTER = FrameIdentity("bench", "router", "r1")
NODE = FrameIdentity("bench", "datanode", "d1")
CLOCK = SystemClock()
K = 10
DIMENSION = 128
SMALL_CALLS_PER_S_MIN = 40_000
SEARCH_CPU_US_MAX = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--calls", type=int, default=40_000, help="calls of a pass")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32], help="calls under way at a time")
    parser.add_argument("--large-mib", type=int, default=8, help="size of the large frames")


class Ready:
    """A data node that has every answer ready."""

    def __init__(self) -> None:
        self._made: dict[int, ShardHits] = {}

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        """Hits for as many queries as were asked."""
        m = len(call.queries)
        if m not in self._made:
            ids = IdColumn(np.arange(m * call.k, dtype=np.uint64), None)
            distances = np.zeros((m, call.k), np.float32)
            counts = np.full(m, call.k, np.int64)
            self._made[m] = ShardHits(Verdict.OK, distances, counts, ids, np.zeros(m * call.k, np.uint64))
        return self._made[m]

    apply = lookup = score = repair = scroll = select = maintain = search


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _echo(request: Request) -> Answer:
    return request.message, request.attachments


async def _serve(pipe: Connection) -> None:
    plain = FrameServer(_echo, NODE)
    await plain.start("127.0.0.1:0")
    ready: Any = Ready()
    node: DataNode = ready
    searched = await serve_datanode(node, "127.0.0.1:0", identity=NODE)
    pipe.send((plain.address, searched.address))
    asked: asyncio.Event = asyncio.Event()

    def answer() -> None:
        if pipe.recv() == "stop":
            asked.set()
        else:
            pipe.send(_cpu_s())

    asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
    await asked.wait()
    await searched.stop(0.0)
    await plain.stop(0.0)


def _server_process(pipe: Connection) -> None:
    uvloop.run(_serve(pipe))


async def _pass(pipe: Connection, one: Callable[[], Awaitable[Any]], calls: int, in_flight: int) -> dict[str, float]:
    """Calls per second, CPU of both processes per call, and the median time of a call."""

    def both_cpu_s() -> float:
        pipe.send("cpu")
        return float(pipe.recv()) + _cpu_s()

    times: list[float] = []

    async def caller() -> None:
        for _ in range(calls // in_flight):
            began = time.perf_counter()
            await one()
            times.append(time.perf_counter() - began)

    await one()
    cpu_s, began = both_cpu_s(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    took_s, cpu_s = time.perf_counter() - began, both_cpu_s() - cpu_s
    made = len(times)
    return {
        "per_s": round(made / took_s),
        "cpu_us": round(cpu_s / made * 1e6, 1),
        "p50_ms": round(float(np.median(times)) * 1e3, 3),
        "p99_ms": round(float(np.percentile(times, 99)) * 1e3, 3),
    }


def _soon() -> Deadline:
    return Deadline.after(CLOCK, 10.0)


async def _measure(pipe: Connection, arguments: argparse.Namespace) -> dict[str, Any]:
    address, searched = pipe.recv()
    found: dict[str, Any] = {"small call": {}, "search, apart": {}, "search, together": {}}
    client = FrameClient(address, ROUTER)
    message = bytes(64)
    for n in arguments.in_flight:
        found["small call"][n] = await _pass(
            pipe, lambda: client.call(1, message, deadline=_soon()), arguments.calls, n
        )
    query = np.random.default_rng(0).random((1, DIMENSION), np.float32)
    call = Search(ShardRef("0" * 32, 0, 1, 1), query, K)
    for name, together in (("search, apart", False), ("search, together", True)):
        remote = RemoteDataNode(searched, identity=ROUTER, coalesce=together)
        for n in arguments.in_flight:
            found[name][n] = await _pass(pipe, lambda r=remote: r.search(call, _soon()), arguments.calls // 4, n)  # type: ignore[misc]
        await remote.close()
    large = np.random.default_rng(1).integers(0, 255, arguments.large_mib * MIB, np.uint8)
    rate = await _pass(pipe, lambda: client.call(1, b"", [large], deadline=_soon()), 40, 2)
    found["large frames"] = {"mib_per_s_each_way": round(rate["per_s"] * arguments.large_mib), "cpu_us": rate["cpu_us"]}
    await client.close()
    pipe.send("stop")
    return found


def run(arguments: argparse.Namespace) -> None:
    """Measure and print a table, a line of JSON, and what it means."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_server_process, args=(there,), daemon=True)
    server.start()
    found = uvloop.run(_measure(here, arguments))
    server.join(timeout=10)
    print(f"{'':18}{'in flight':>10}{'per s':>10}{'CPU us':>10}{'p50 ms':>10}{'p99 ms':>10}")
    for name in ("small call", "search, apart", "search, together"):
        for n, told in found[name].items():
            print(f"{name:18}{n:>10}{told['per_s']:>10}{told['cpu_us']:>10}{told['p50_ms']:>10}{told['p99_ms']:>10}")
    most = max(arguments.in_flight)
    small, search = found["small call"][most], found["search, together"][most]
    own.conclude(
        "transport",
        found,
        f"{most} in flight: {small['per_s']:,} small calls/s at {small['cpu_us']} µs of CPU each (goal ≥ "
        f"{SMALL_CALLS_PER_S_MIN:,}/s, ≤ {2e6 / SMALL_CALLS_PER_S_MIN:.0f} µs), {search['cpu_us']} µs of CPU per "
        f"search (goal ≤ {SEARCH_CPU_US_MAX}); large frames {found['large frames']['mib_per_s_each_way']} MiB/s each "
        "way",
    )

"""The load of the fleet's benchmark: thin clients of both faces, and the Python client, in a process of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import grpc
import numpy as np
import uvloop

import omendb
from omendb_proto.v1 import router_pb2 as pb

FACES = ("rest", "rest, json", "grpc", "python")
_GRPC_CHANNELS = 4


class _Http(asyncio.Protocol):
    """One keep-alive connection: sends a request, measures until the whole answer is there, sends the next."""

    def __init__(self, requests: list[bytes], until_s: float, times: list[float], first: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._until_s = until_s
        self._times = times
        self._next = first
        self._had = b""
        self._began = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._had += data
        head = self._had.find(b"\r\n\r\n")
        if head < 0:
            return
        length = self._had.lower().find(b"content-length:")
        if not self._had.startswith(b"HTTP/1.1 200") or not 0 <= length < head:
            self.done.set_exception(RuntimeError(f"the fleet answered {self._had[:300]!r}"))
            self._transport.close()
            return
        if len(self._had) < head + 4 + int(self._had[length + 15 : self._had.find(b"\r\n", length)]):
            return
        now = time.perf_counter()
        self._times.append(now - self._began)
        self._had = b""
        if now < self._until_s:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _rest(address: str, requests: list[bytes], n: int, seconds: float) -> list[float]:
    host, _, port = address.rpartition(":")
    times: list[float] = []
    until_s = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda i=i: _Http(requests, until_s, times, i * 31), host, int(port))  # type: ignore[misc]
        for i in range(n)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    return times


async def _grpc(address: str, requests: list[bytes], n: int, seconds: float) -> list[float]:
    times: list[float] = []
    until_s = time.perf_counter() + seconds
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(min(n, _GRPC_CHANNELS))]
    methods = [channel.unary_unary("/omendb.v1.Router/Search") for channel in channels]

    async def caller(first: int) -> None:
        method: Any = methods[first % len(methods)]
        number = first * 31
        while (began := time.perf_counter()) < until_s:
            await method(requests[number % len(requests)], timeout=10)
            times.append(time.perf_counter() - began)
            number += 1

    await asyncio.gather(*(caller(i) for i in range(n)))
    for channel in channels:
        await channel.close()
    return times


def _python(collection: omendb.Collection, queries: Any, n: int, seconds: float) -> list[float]:
    times: list[list[float]] = [[] for _ in range(n)]
    until_s = time.perf_counter() + seconds

    def caller(place: int) -> None:
        number = place * 31
        while (began := time.perf_counter()) < until_s:
            collection.search(queries[number % len(queries)], k=10)
            times[place].append(time.perf_counter() - began)
            number += 1

    threads = [threading.Thread(target=caller, args=(place,)) for place in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for some in times for one in some]


def _post(host: str, path: str, media: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _requests(face: str, include: str, http: str, name: str, queries: Any) -> list[bytes]:
    """A request for every query."""
    if face == "rest":
        path = f"/collections/{name}/search?k=10" + (f"&include={include}" if include else "")
        return [_post(http, path, "application/octet-stream", query.tobytes()) for query in queries]
    if face == "rest, json":
        path, listed = f"/collections/{name}/search", ",".join(f'"{part}"' for part in include.split(",") if part)
        more = f',"include":[{listed}]' if listed else ""
        texts = [",".join(f"{number:.6g}" for number in query.tolist()) for query in queries]
        return [_post(http, path, "application/json", f'{{"vector":[{text}],"k":10{more}}}'.encode()) for text in texts]
    return [
        pb.SearchRequest(
            collection=name, queries=query.tobytes(), dimension=len(query), k=10, with_payload=not include
        ).SerializeToString()
        for query in queries
    ]


def work(pipe: Connection, http: str, calls: str, name: str, queries: Any) -> None:
    """Serve orders of (face, include, in flight, seconds) until None comes; answers with each search's seconds."""
    queries = np.ascontiguousarray(queries, np.float32)
    made: dict[tuple[str, str], list[bytes]] = {}
    client = omendb.Client(f"http://{http}")
    collection = client.collection(name)
    while (order := pipe.recv()) is not None:
        face, include, n, seconds = order
        if (face, include) not in made:
            made[face, include] = _requests(face, include, http, name, queries)
        try:
            if face == "python":
                pipe.send(_python(collection, queries, n, seconds))
            elif face == "grpc":
                pipe.send(uvloop.run(_grpc(calls, made[face, include], n, seconds)))
            else:
                pipe.send(uvloop.run(_rest(http, made[face, include], n, seconds)))
        except (RuntimeError, OSError, grpc.RpcError, omendb.OmenDBError) as error:
            pipe.send(f"{face}: {error!r}")
    client.close()

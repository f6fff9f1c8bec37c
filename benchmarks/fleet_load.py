"""The load of the fleet's benchmark: thin clients of each face, and the Python client, in a process of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import grpc
import numpy as np
import uvloop

import omendb
from omendb_common.wire.frames import HEADER_BYTES, Kind, encode
from omendb_proto.v1 import frames_pb2
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.frame_face import PATH, PROTOCOL, ROLE

FACES = ("rest", "rest, json", "grpc", "frames", "python", "python, grpc")
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


class _Framed(asyncio.Protocol):
    """One connection that carries several searches at a time; each is measured until its whole answer is there."""

    def __init__(self, requests: list[bytes], until_s: float, times: list[float], n: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._until_s = until_s
        self._times = times
        self._n = n
        self._began: dict[int, float] = {}
        self._had = b""
        self._greeted = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(b"GET %b HTTP/1.1\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % (PATH, PROTOCOL))

    def _send(self, numbers: list[int]) -> None:
        """The next search of some places, whose numbers their frames carry."""
        frames = []
        began = time.perf_counter()
        for number in numbers:
            self._began[number] = began
            request = self._requests[(number * 31 + len(self._times)) % len(self._requests)]
            frames += encode(Kind.REQUEST, number, request, method=pb.ROUTER_METHOD_SEARCH, deadline_ms=10_000)
        self._transport.write(b"".join(frames))  # type: ignore[arg-type]  # these are bytes

    def data_received(self, data: bytes) -> None:
        self._had += data
        if not self._greeted:
            self._greet()
            return
        now, free, at = time.perf_counter(), [], 0
        while len(self._had) - at >= HEADER_BYTES:
            size = HEADER_BYTES + int.from_bytes(self._had[at + 28 : at + 32], "little")
            if len(self._had) - at < size:
                break
            if self._had[at + 5] == Kind.RESPONSE:
                number = int.from_bytes(self._had[at + 8 : at + 16], "little")
                self._times.append(now - self._began.pop(number))
                free.append(number)
            elif self._had[at + 5] != Kind.HELLO:
                self.done.set_exception(RuntimeError(f"the fleet answered {self._had[at : at + size]!r}"))
                self._transport.close()
                return
            at += size
        self._had = self._had[at:]
        if free and now < self._until_s:
            self._send(free)
        elif not self._began:
            self._transport.close()

    def _greet(self) -> None:
        if b"\r\n\r\n" not in self._had:
            return
        if not self._had.startswith(b"HTTP/1.1 101"):
            self.done.set_exception(RuntimeError(f"the fleet answered {self._had[:300]!r}"))
            self._transport.close()
            return
        self._greeted, self._had = True, b""
        hello = frames_pb2.Hello(version_min=1, version_max=1, role=ROLE, in_flight_max=1024, frame_bytes_max=1 << 28)
        self._transport.write(encode(Kind.HELLO, 0, hello.SerializeToString())[0])
        self._send(list(range(1, self._n + 1)))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _frames(address: str, requests: list[bytes], n: int, seconds: float) -> list[float]:
    host, _, port = address.rpartition(":")
    times: list[float] = []
    until_s = time.perf_counter() + seconds
    make = partial(_Framed, requests, until_s, times, n)
    _, protocol = await asyncio.get_running_loop().create_connection(make, host, int(port))
    await protocol.done
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


def _python(collection: omendb.Collection, level: Any, queries: Any, n: int, seconds: float) -> list[float]:
    times: list[list[float]] = [[] for _ in range(n)]
    until_s = time.perf_counter() + seconds

    def caller(place: int) -> None:
        number = place * 31
        while (began := time.perf_counter()) < until_s:
            collection.search(queries[number % len(queries)], k=10, consistency=level or None)
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


def _requests(face: str, include: str, level: str, http: str, name: str, queries: Any) -> list[bytes]:
    """A request for every query."""
    if face == "rest":
        path = f"/collections/{name}/search?k=10" + (f"&include={include}" if include else "")
        path += f"&consistency={level}" if level else ""
        return [_post(http, path, "application/octet-stream", query.tobytes()) for query in queries]
    if face == "rest, json":
        path, listed = f"/collections/{name}/search", ",".join(f'"{part}"' for part in include.split(",") if part)
        more = (f',"include":[{listed}]' if listed else "") + (f',"consistency":"{level}"' if level else "")
        texts = [",".join(f"{number:.6g}" for number in query.tolist()) for query in queries]
        return [_post(http, path, "application/json", f'{{"vector":[{text}],"k":10{more}}}'.encode()) for text in texts]
    return [
        pb.SearchRequest(
            collection=name,
            queries=query.tobytes(),
            dimension=len(query),
            k=10,
            with_payload=not include,
            consistency=f"CONSISTENCY_{level.upper() or 'UNSPECIFIED'}",
        ).SerializeToString()
        for query in queries
    ]


def work(pipe: Connection, http: str, calls: str, name: str, queries: Any) -> None:
    """Serve orders of (face, include, level, in flight, seconds) until None; answers with each search's seconds."""
    queries = np.ascontiguousarray(queries, np.float32)
    made: dict[tuple[str, str, str], list[bytes]] = {}
    clients = {"python": omendb.Client(f"http://{http}"), "python, grpc": omendb.Client(f"grpc://{calls}")}
    collections = {face: client.collection(name) for face, client in clients.items()}
    while (order := pipe.recv()) is not None:
        face, include, level, n, seconds = order
        if (face, include, level) not in made:
            made[face, include, level] = _requests(face, include, level, http, name, queries)
        requests = made[face, include, level]
        try:
            if face in collections:
                pipe.send(_python(collections[face], level, queries, n, seconds))
            elif face == "frames":
                pipe.send(uvloop.run(_frames(http, requests, n, seconds)))
            elif face == "grpc":
                pipe.send(uvloop.run(_grpc(calls, requests, n, seconds)))
            else:
                pipe.send(uvloop.run(_rest(http, requests, n, seconds)))
        except (RuntimeError, OSError, grpc.RpcError, omendb.OmenDBError) as error:
            pipe.send(f"{face}: {error!r}")
    for client in clients.values():
        client.close()

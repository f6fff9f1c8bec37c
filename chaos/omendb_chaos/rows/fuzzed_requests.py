"""R23: requests that nobody should send, over REST, gRPC, frames and bare connections: an error of the table for each.

Violations: an internal error or another 5xx, an answer that takes more than five seconds, an exception that nobody
awaited, a server that does not answer any more, a folder that cannot be read afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import httpx
import numpy as np

from omendb_chaos.fuzz import values
from omendb_chaos.fuzz.client_frames import UPGRADE, client_frames
from omendb_chaos.fuzz.grpc_messages import grpc_request
from omendb_chaos.fuzz.raw_http import raw_http
from omendb_chaos.fuzz.rest_requests import rest_request
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_common.config import load_settings
from omendb_common.wire import status
from omendb_common.wire.frames import FrameDecoder, Kind
from omendb_engine.folder import Folder
from omendb_router.face_serving import Place
from omendb_router.grpc_face import SERVICE
from omendb_server.serving import Server

_HANG_S = 5.0
_AT_A_TIME = 8
# Of a hundred requests: REST, gRPC, bare connections, connections that change over to frames.
_SHARES = (44, 44, 4, 8)
_REQUESTS = {"small": 1_200, "full": 100_000}
_GOOD_CODES = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED")
# What strangers, calls without time, and those that are given up are told; none: the end of the connection.
_ODD_CODES = ("PERMISSION_DENIED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "none")
_ANY = Place("127.0.0.1", 0)


class Fuzz:
    """Requests against one server, and what came of them."""

    def __init__(self, server: Server, outcome: Outcome) -> None:
        self.codes: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._outcome = outcome
        self._server = server
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(server.faces.app, raise_app_exceptions=False), base_url="http://fuzz"
        )
        self._channel = grpc.aio.insecure_channel(str(server.faces.grpc))

    async def close(self) -> None:
        """End the connections."""
        await self._http.aclose()
        await self._channel.close()

    async def fill(self) -> None:
        """The collections that requests mostly name."""
        body: dict[str, Any] = {"dimension": values.DIMENSION}
        named = {"vectors": {"a": {"dimension": 2}, "b": {"dimension": 3, "dtype": "int8"}}}
        for name, more in (("c", body), ("named", named), ("bytes", {**body, "dtype": "uint8", "metric": "cosine"})):
            await self._http.post("/collections", json={"name": name, "if_not_exists": True, **more})

    async def rest(self, own: random.Random) -> None:
        """One REST request."""
        request = rest_request(own)
        async with self._timed(request.told):
            try:
                answer = await self._http.request(
                    request.method, request.path, content=request.body, headers=request.headers
                )
            except (httpx.InvalidURL, UnicodeError):
                # The client's own library refuses to send it.
                self.codes["unsent"] += 1
                return
            late = answer.status_code == 504 and "timeout=" in request.path
            self.codes[f"rest {answer.status_code}"] += 1
            if answer.status_code >= 500 and not late:
                self._outcome.violated(f"{answer.status_code} {answer.text[:200]} for {request.told()}")

    async def grpc(self, own: random.Random) -> None:
        """One gRPC call."""
        name, data = grpc_request(own)
        async with self._timed(lambda: f"{name} {data[:400]!r}"):
            try:
                await self._channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=30)
                code = "OK"
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                if code not in _GOOD_CODES:
                    self._outcome.violated(f"{code} {error.details()} for {name} {data[:400]!r}")
            self.codes[f"grpc {code}"] += 1

    async def frames(self, own: random.Random) -> None:
        """A connection that changes over to frames, and some calls on it."""
        data, calls = client_frames(own)
        place = self._server.faces.http
        async with self._timed(lambda: f"frames {data[:400]!r}"):
            reader, writer = await asyncio.open_connection(place.host, place.port)
            try:
                writer.write(UPGRADE)
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 101 " not in head:
                    self._outcome.violated(f"{head!r} for a request for frames")
                    return
                writer.write(data)
                # What is damaged gets no answer at all, or the end of the connection.
                codes = await _answered(reader, calls, 10 * _HANG_S if calls else 0.05)
            except (ConnectionError, asyncio.IncompleteReadError):
                codes = ["none"]
            finally:
                writer.close()
            for code in codes:
                self.codes[f"frames {code}"] += 1
                if code not in _GOOD_CODES and (calls or code not in _ODD_CODES):
                    self._outcome.violated(f"{code} for frames {data[:400]!r}")
            if len(codes) < calls:
                self._outcome.violated(f"{len(codes)} of {calls} answers to frames {data[:400]!r}")

    async def bare(self, own: random.Random) -> None:
        """Bytes on a connection of their own, to the end of them or of our patience."""
        data = raw_http(own)
        place = self._server.faces.http
        async with self._timed(lambda: f"bytes {data[:400]!r}"):
            reader, writer = await asyncio.open_connection(place.host, place.port)
            answer = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                writer.write(data)
                # A request that is not whole gets no answer; the server closes such connections when they idle.
                answer = await asyncio.wait_for(reader.read(65_536), 0.05)
            writer.close()
            status = answer.split(b" ", 2)[1:2] if answer.startswith(b"HTTP/1.1 ") else [b"none"]
            self.codes[f"bare {status[0].decode()}"] += 1
            if status[0].startswith(b"5"):
                self._outcome.violated(f"{answer[:200]!r} for bytes {data[:400]!r}")

    @contextlib.asynccontextmanager
    async def _timed(self, told: Callable[[], str]) -> AsyncIterator[None]:
        started = time.monotonic()
        try:
            async with asyncio.timeout(12 * _HANG_S):
                yield
        except TimeoutError:
            self._outcome.violated(f"no answer in {12 * _HANG_S:.0f} s to {told()}")
        taken_s = time.monotonic() - started
        self.slowest_s = max(self.slowest_s, taken_s)
        if taken_s > _HANG_S:
            self._outcome.violated(f"{taken_s:.1f} s for {told()}")


async def _answered(reader: asyncio.StreamReader, calls: int, patience_s: float) -> list[str]:
    """The codes of the answers, until there are as many as calls, the connection ends, or our patience."""
    codes: list[str] = []
    decoder = FrameDecoder(1 << 30)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            while not calls or len(codes) < calls:
                while (frame := decoder.next()) is None:
                    room = decoder.room()
                    some = await reader.read(min(len(room), 65_536))
                    if not some:
                        return codes
                    room[: len(some)] = some
                    decoder.received(len(some))
                if frame.kind == Kind.ERROR:
                    codes.append(status.from_bytes(frame.message).code)
                elif frame.kind == Kind.RESPONSE:
                    codes.append("OK")
    return codes


class _Heard(logging.Handler):
    """Keeps what the faces log of bugs: the caller is told nothing of them."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(logging.ERROR)
        self._outcome = outcome

    def emit(self, record: logging.LogRecord) -> None:
        self._outcome.violated(self.format(record)[-1500:])


async def _fuzz(path: str, seed: int, requests: int, outcome: Outcome) -> Fuzz:
    overrides = {"storage.durability": "os"}
    server = Server.open(path, load_settings(None, None, {}, overrides).settings)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: outcome.violated(f"nobody awaited {context}"[:1500]))
    await server.start(_ANY, _ANY)
    fuzz = Fuzz(server, outcome)
    try:
        numbers = iter(range(requests))

        async def work() -> None:
            kinds: tuple[Callable[[random.Random], Awaitable[None]], ...] = (
                fuzz.rest,
                fuzz.grpc,
                fuzz.bare,
                fuzz.frames,
            )
            for number in numbers:
                if number % 100 == 0:
                    await fuzz.fill()
                own = dice("R23", seed, number)
                await own.choices(kinds, _SHARES)[0](own)

        await fuzz.fill()
        await asyncio.gather(*(work() for _ in range(_AT_A_TIME)))
        async with httpx.AsyncClient(timeout=_HANG_S) as client:
            alive = await client.get(f"http://{server.faces.http}/readyz")
        if alive.status_code != 200:
            outcome.violated(f"afterwards the server says {alive.text}")
    finally:
        await fuzz.close()
        await server.stop()
    return fuzz


def _read_everything(path: str, outcome: Outcome) -> int:
    """The folder as an embedded database: every point of every collection can be read."""
    folder = Folder.open(path)
    points = 0
    try:
        for name in folder.names():
            replica = folder.replica(name)
            count, seen, cursor = replica.count(), 0, None
            while True:
                page = replica.scroll(cursor, 1000)
                page.picked.payload()
                for field in replica.schema.vectors:
                    if not np.isfinite(page.picked.vectors(field.name, replica.schema)).all():
                        outcome.violated(f"{name} holds a number that is none")
                seen, cursor = seen + len(page.picked), page.cursor
                if cursor is None:
                    break
            if seen != count:
                outcome.violated(f"{name} counts {count} points and shows {seen}")
            points += seen
    finally:
        folder.close()
    return points


def run(seed: int, budget: Budget) -> Outcome:
    """Send the requests, then look at what the server is and what its folder holds."""
    outcome = Outcome("R23", seed, budget)
    requests = _REQUESTS[budget]
    heard = _Heard(outcome)
    logging.getLogger("omendb").addHandler(heard)
    try:
        with tempfile.TemporaryDirectory() as folder:
            fuzz = asyncio.run(_fuzz(f"{folder}/db", seed, requests, outcome))
            points = _read_everything(f"{folder}/db", outcome)
    finally:
        logging.getLogger("omendb").removeHandler(heard)
    outcome.notes += [f"{count:7,} {code}" for code, count in sorted(fuzz.codes.items())]
    answered = sum(fuzz.codes.values())
    outcome.figure = (
        f"{answered:,} requests, {len(outcome.violations)} violations, slowest {fuzz.slowest_s * 1e3:.0f} ms, "
        f"{points:,} points readable afterwards"
    )
    return outcome


__all__ = ["Fuzz", "run"]

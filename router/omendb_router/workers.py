"""Several router processes on the same two ports: the kernel spreads the connections over them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from omendb_common.errors import UnavailableError
from omendb_router.face_serving import Place, bind

_LOG = logging.getLogger("omendb.router.workers")
RESTART_PAUSE_S = 1.0
"""A worker that ended unasked is started again after so long; what it served meanwhile goes to the others."""


class Workers:
    """Starts the workers and keeps them running. Each is a router of its own: another lease, the same ports.

    A worker ends when this process does, however it ends: it reads the pipe that stands open as long.
    """

    def __init__(
        self,
        count: int,
        node_id: str,
        http: Place,
        grpc: Place,
        metrics: Place | None,
        arguments: Sequence[str],
    ) -> None:
        """Worker i tells its metrics i ports above ``metrics``: what one of them has counted, the others have not."""
        self._count = count
        self._node_id = node_id
        self._places = http, grpc
        self._metrics = metrics
        self._arguments = arguments
        self._ready: list[asyncio.Future[dict[str, Any]]] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; UnavailableError when a worker cannot start."""
        # Bound, not listening: the ports are ours from now on, and workers may come and go on them.
        held = [bind(place, shared=True) for place in self._places]
        try:
            places = [Place(place.host, sock.getsockname()[1]) for place, sock in zip(self._places, held, strict=True)]
            loop = asyncio.get_running_loop()
            self._ready = [loop.create_future() for _ in range(self._count)]
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._keep(number, places, stop)) for number in range(self._count)]
                told = group.create_task(self._say_ready(stop))
                await stop.wait()
                told.cancel()
                await asyncio.wait(keepers)
        finally:
            for sock in held:
                sock.close()

    async def _say_ready(self, stop: asyncio.Event) -> None:
        workers = await asyncio.gather(*self._ready)
        first = {**workers[0], "node_id": self._node_id, "pid": os.getpid()}
        first["workers"] = [{name: told[name] for name in ("node_id", "pid", "metrics")} for told in workers]
        sys.stdout.write(f"ready {json.dumps(first)}\n")
        sys.stdout.flush()

    async def _keep(self, number: int, places: Sequence[Place], stop: asyncio.Event) -> None:
        while not stop.is_set():
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "omendb_router", *self._arguments),
                *("--node-id", f"{self._node_id}.{number}", "--worker"),
                *("--http", str(places[0]), "--grpc", str(places[1])),
                *self._metrics_of(number),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                await self._watch(number, process, stop)
            finally:
                if process.returncode is None:
                    process.terminate()
                    await process.wait()
            if not self._ready[number].done():
                raise UnavailableError(f"worker {number} ended with {process.returncode}", field="workers")
            if not stop.is_set():
                _LOG.error("worker %d ended with %s; it is started again", number, process.returncode)
                await _either(stop.wait(), asyncio.sleep(RESTART_PAUSE_S))

    def _metrics_of(self, number: int) -> tuple[str, ...]:
        place = self._metrics
        if place is None:
            return ()
        return "--metrics-listen", str(Place(place.host, place.port + number if place.port else 0))

    async def _watch(self, number: int, process: asyncio.subprocess.Process, stop: asyncio.Event) -> None:
        """Until it ends, or everything is to end."""
        assert process.stdout is not None
        await _either(self._read(number, process.stdout), stop.wait())

    async def _read(self, number: int, lines: asyncio.StreamReader) -> None:
        """Take the line that says ready; the end of the stream is the end of the worker."""
        while line := await lines.readline():
            word, _, told = line.decode("utf-8", "replace").partition(" ")
            if word == "ready" and not self._ready[number].done():
                self._ready[number].set_result(json.loads(told))


async def _either(*work: Any) -> None:
    """Wait for one of several, and end the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


__all__ = ["RESTART_PAUSE_S", "Workers"]

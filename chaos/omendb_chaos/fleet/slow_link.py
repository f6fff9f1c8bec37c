"""A link that can become slow while it carries: ``python -m omendb_chaos.fleet.slow_link LISTEN TARGET KNOB``.

It stands in front of one process. What goes through, either way, arrives as many milliseconds later as the knob says,
in order, however much is on its way: a long link, not a thin one. It is a process of its own, so that it takes no time
of who measures.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from omendb_chaos.fleet.knob import Knob

_CHUNK_BYTES = 64 << 10
# Chunks on their way in one direction: 64 MiB, far more than a bound on calls lets through in the time of the link.
_CHUNKS_MAX = 1024
_Queue = asyncio.Queue[tuple[float, bytes]]


class SlowLink:
    """Relays connections to ``target``, late."""

    def __init__(self, target: tuple[str, int], knob: Knob) -> None:
        self._target = target
        self._knob = knob

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either end closes it."""
        far: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError):
                back, far = await asyncio.open_connection(*self._target)
                _at_once(writer)
                _at_once(far)
                tasks = {
                    asyncio.ensure_future(self._carry(reader, far)),
                    asyncio.ensure_future(self._carry(back, writer)),
                }
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction; ends when everything that was said before its end has arrived."""
        queue: _Queue = asyncio.Queue(_CHUNKS_MAX)
        delivering = asyncio.ensure_future(_deliver(queue, writer))
        loop = asyncio.get_running_loop()
        try:
            data = b"."
            while data:
                data = await _heard(reader)
                late_s = self._knob.value / 1e3
                if late_s:
                    self._knob.feel()
                await queue.put((loop.time() + late_s, data))
            await delivering
        finally:
            delivering.cancel()


async def _heard(reader: asyncio.StreamReader) -> bytes:
    """What came next; nothing when that end is gone, with or without a word."""
    try:
        return await reader.read(_CHUNK_BYTES)
    except OSError:
        return b""


async def _deliver(queue: _Queue, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while True:
            due_s, data = await queue.get()
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            if not data:
                return
            writer.write(data)
            await writer.drain()


def _at_once(writer: asyncio.StreamWriter) -> None:
    """Let nothing wait for company: that would be a delay of our own."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _serve(listen: tuple[str, int], link: SlowLink) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(link.relay, *listen)
    sys.stdout.write(f"ready {json.dumps({'listen': listen})}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> int:
    """Relay until SIGTERM."""
    listen, target, knob = sys.argv[1:]
    asyncio.run(_serve(_address(listen), SlowLink(_address(target), Knob(Path(knob)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["SlowLink", "main"]

"""A disk and a link that become slow while they are used: late, never wrong, and counted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from omendb_chaos.fleet.knob import Knob
from omendb_chaos.fleet.slow_disk import SYNC_S_MIN, SlowDisk
from omendb_chaos.fleet.slow_link import SlowLink


def test_a_disk_is_slow_as_long_as_the_knob_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    knob = Knob(tmp_path / "knob")
    disk = SlowDisk(knob=Knob(tmp_path / "knob"))
    file = disk.open(str(tmp_path / "file"), "create")
    file.pwrite([b"one"], 0)
    file.datasync()
    assert not slept and not knob.felt
    knob.turn(10)
    file.pwrite([b"two"], 3)
    file.datasync()
    assert file.pread(6, 0) == b"onetwo"
    disk.sync_dir(str(tmp_path))
    assert knob.felt == len(slept) == 4
    assert all(late_s > 0 for late_s in slept)
    assert slept[1] > SYNC_S_MIN / 2, "a sync that costs nothing is slow all the same"
    knob.turn(0)
    file.datasync()
    file.close()
    assert knob.felt == 4


def test_a_link_carries_everything_late_and_in_order(tmp_path: Path) -> None:
    async def story() -> None:
        knob = Knob(tmp_path / "knob")
        echo = await asyncio.start_server(_echo, "127.0.0.1", 0)
        link = SlowLink(echo.sockets[0].getsockname()[:2], Knob(tmp_path / "knob"))
        relay = await asyncio.start_server(link.relay, "127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(*relay.sockets[0].getsockname()[:2])
        writer.write(b"at once")
        assert await reader.readexactly(7) == b"at once"
        assert not knob.felt
        knob.turn(30)
        began_s = loop.time()
        writer.write(b"late")
        # What comes after the link is well again does not overtake what is on its way.
        while not knob.felt:
            await asyncio.sleep(0)
        knob.turn(0)
        writer.write(b" and after it")
        assert await reader.readexactly(17) == b"late and after it"
        assert loop.time() - began_s >= 0.03
        writer.close()
        for server in (relay, echo):
            server.close()
            await server.wait_closed()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_link_to_nobody_closes_what_came(tmp_path: Path) -> None:
    async def story() -> None:
        gone = await asyncio.start_server(_echo, "127.0.0.1", 0)
        address = gone.sockets[0].getsockname()[:2]
        gone.close()
        await gone.wait_closed()
        relay = await asyncio.start_server(SlowLink(address, Knob(tmp_path / "knob")).relay, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*relay.sockets[0].getsockname()[:2])
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()
        relay.close()
        await relay.wait_closed()

    asyncio.run(asyncio.wait_for(story(), 20))


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()

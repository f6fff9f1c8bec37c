"""Calls over a real connection: answers, deadlines, cancellation, back-pressure, loss, and a polite end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
import uvloop

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.wire import frame_client
from omendb_common.wire.frame_client import FrameClient, split_address
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frame_server import Answer, FrameServer, Request
from omendb_common.wire.frames import FRAME_BYTES_MAX, FrameDecoder, FrameLimits, Kind
from tests.unit.wire.frame_cases import NODE, ROUTER, calling, frame, hello, serving, soon, until

Scene = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Scene], None]:
    """Runs a scene on each event loop, and finds what it left behind."""

    def run(scene: Scene) -> None:
        async def whole() -> None:
            complaints: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(60):
                await scene()
            await until(lambda: len(asyncio.all_tasks()) == 1)
            assert not complaints

        request.param(whole())

    return run


class Gate:
    """A handler that holds every call until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = 0
        self.cancelled = 0

    async def __call__(self, request: Request) -> Answer:
        self.running += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return request.message, request.attachments


def test_calls_are_answered_in_any_order(play: Any) -> None:
    async def handle(request: Request) -> Answer:
        await asyncio.sleep(0.002 * (int(request.message) % 7))
        return request.message, [memoryview(b"")] * request.method

    async def scene() -> None:
        async with serving(handle) as server, calling(server.address, connections=3) as client:
            numbers = [str(i).encode() for i in range(200)]
            replies = await asyncio.gather(*(client.call(i % 5, n, deadline=soon()) for i, n in enumerate(numbers)))
            assert [reply.message for reply in replies] == numbers
            assert [len(reply.attachments) for reply in replies] == [i % 5 for i in range(200)]
            assert client.connected and client.in_flight == 0
            while server.connections < 3:
                await client.call(0, b"0", deadline=soon())
            await asyncio.gather(*(client.call(0, n, deadline=soon()) for n in numbers))
            assert server.connections == 3 and server.stats.connections == 3

    play(scene)


def test_large_frames_go_both_ways(play: Any) -> None:
    async def scene() -> None:
        async with serving() as server, calling(server.address) as client:
            array = np.random.default_rng(3).integers(0, 255, 30_000_000, np.uint8)
            small = [client.call(1, b"s" * i, deadline=soon()) for i in range(50)]
            reply, *rest = await asyncio.gather(client.call(1, b"big", [array, b"end"], deadline=soon()), *small)
            assert np.array_equal(np.frombuffer(reply.attachments[0], np.uint8), array)
            assert bytes(reply.attachments[1]) == b"end" and [len(r.message) for r in rest] == list(range(50))

    play(scene)


def test_the_errors_of_a_handler_arrive(play: Any) -> None:
    bugs: list[BaseException] = []

    async def handle(request: Request) -> Answer:
        if request.method == 1:
            raise NotFoundError("no such point", field="ids")
        raise KeyError("secret")

    async def scene() -> None:
        async with serving(handle, report=bugs.append) as server, calling(server.address) as client:
            with pytest.raises(NotFoundError, match="no such point"):
                await client.call(1, b"", deadline=soon())
            with pytest.raises(OmenDBError) as caught:
                await client.call(2, b"", deadline=soon())
            assert "secret" not in str(caught.value) and isinstance(bugs[0], KeyError)

    play(scene)


def test_a_deadline_ends_a_call_at_both_ends(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        async with serving(gate, cancellable={1}) as server, calling(server.address) as client:
            await_first = asyncio.create_task(client.call(2, b"", deadline=soon()))
            await until(lambda: gate.running == 1)
            started = time.monotonic()
            with pytest.raises(DeadlineExceededError) as caught:
                await client.call(1, b"", deadline=soon(0.05))
            assert 0.04 < time.monotonic() - started < 5.0 and caught.value.outcome == "unknown"
            await until(lambda: gate.cancelled == 1)
            with pytest.raises(DeadlineExceededError):
                await client.call(2, b"", deadline=soon(0.05))
            # A call of the other method runs on, though its cancellation has come: nobody may end a write half-way.
            await until(lambda: server.stats.frames_in == client.stats.frames_out)
            assert gate.running == 2 and gate.cancelled == 1
            gate.open.set()
            assert (await await_first).message == b""
            await until(lambda: server.in_flight == 0 and client.in_flight == 0)

    play(scene)


def test_a_deadline_that_has_passed_sends_nothing(play: Any) -> None:
    async def scene() -> None:
        async with serving() as server, calling(server.address) as client:
            await client.call(1, b"", deadline=soon())
            with pytest.raises(DeadlineExceededError) as caught:
                await client.call(1, b"", deadline=soon(0.0))
            assert caught.value.outcome == "none" and server.stats.calls == 1

    play(scene)


def test_the_server_knows_what_time_is_left(play: Any) -> None:
    seen: list[float] = []

    async def handle(request: Request) -> Answer:
        seen.append(request.deadline.left_s)
        return b"", ()

    async def scene() -> None:
        async with serving(handle) as server, calling(server.address) as client:
            await client.call(1, b"", deadline=soon(7.0))
            await client.call(1, b"", deadline=soon(10**9))

    play(scene)
    assert 5.0 < seen[0] <= 7.001 and 80_000 < seen[1] <= 86_401


def test_a_cancelled_call_is_cancelled_there(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        async with serving(gate, cancellable={1}) as server, calling(server.address) as client:
            task = asyncio.create_task(client.call(1, b"", deadline=soon()))
            await until(lambda: gate.running == 1)
            task.cancel()
            await until(lambda: gate.cancelled == 1)
            assert task.cancelled() and server.stats.calls_cancelled == client.stats.calls_cancelled == 1

    play(scene)


def test_no_more_calls_are_under_way_than_granted(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        limits = FrameLimits(in_flight_max=4)
        async with serving(gate, limits=limits) as server, calling(server.address) as client:
            tasks = [asyncio.create_task(client.call(1, b"%d" % i, deadline=soon())) for i in range(20)]
            late = asyncio.create_task(client.call(1, b"", deadline=soon(0.05)))
            await until(lambda: gate.running == 4)
            with pytest.raises(DeadlineExceededError) as caught:
                await late
            assert caught.value.outcome == "none" and gate.running == 4
            gate.open.set()
            assert [r.message for r in await asyncio.gather(*tasks)] == [b"%d" % i for i in range(20)]
            assert server.stats.calls == 20

    play(scene)


def test_a_queue_of_callers_is_bounded(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_client, "WAITING_MAX", 3)

    async def scene() -> None:
        gate = Gate()
        async with serving(gate, limits=FrameLimits(in_flight_max=1)) as server, calling(server.address) as client:
            tasks = [asyncio.create_task(client.call(1, b"", deadline=soon()))]
            await until(lambda: gate.running == 1)
            tasks += [asyncio.create_task(client.call(1, b"", deadline=soon())) for _ in range(3)]
            await until(lambda: len(client._waiters) == 3)
            with pytest.raises(ResourceExhaustedError):
                await client.call(1, b"", deadline=soon())
            tasks[2].cancel()
            gate.open.set()
            await asyncio.wait(tasks)
            assert [task.cancelled() for task in tasks] == [False, False, True, False]

    play(scene)


def test_a_server_stops_reading_above_its_memory(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        limits = FrameLimits(in_flight_bytes_max=3_000_000)
        async with serving(gate, limits=limits) as server, calling(server.address) as client:
            tasks = [asyncio.create_task(client.call(1, b"", [bytes(1_000_000)], deadline=soon())) for _ in range(40)]
            await until(lambda: gate.running == 3)
            held = server.stats.frames_in
            await until(lambda: client.stats.frames_out == held or any(task.done() for task in tasks) or held < 10)
            assert server.stats.frames_in <= 5 and gate.running == 3
            gate.open.set()
            await asyncio.gather(*tasks)
            assert server.stats.calls == 40

    play(scene)


def test_a_caller_that_does_not_read_is_not_written_to_without_end(play: Any) -> None:
    """Answers pile up to the buffer's bound; then no more is taken, and nothing is lost when reading goes on."""
    calls = 400

    async def handle(request: Request) -> Answer:
        return b"", [bytes(200_000)]

    async def scene() -> None:
        limits = FrameLimits(write_buffer_bytes=1_000_000, in_flight_max=4)
        async with serving(handle, limits=limits) as server:
            host, port = server.address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1000)
            writer.write(hello() + b"".join(frame(Kind.REQUEST, i + 1, deadline_ms=60_000) for i in range(calls)))
            await until(lambda: any(session.paused_writing for session in server._sessions) and not server.in_flight)
            (session,) = server._sessions
            # Some turns of the loop, in which a server that does not stop would go on.
            for _ in range(200):
                await asyncio.sleep(0)
            assert server.stats.calls < calls // 2 and session.unsent < 3_000_000
            decoder, answered = FrameDecoder(FRAME_BYTES_MAX), 0
            while answered < calls:
                room = decoder.room()
                data = await reader.read(min(len(room), 65_536))
                room[: len(data)] = data
                decoder.received(len(data))
                while (one := decoder.next()) is not None:
                    answered += one.kind == Kind.RESPONSE
            writer.close()

    play(scene)


def test_all_that_wait_go_on_when_there_is_room_again(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        async with serving(gate) as server, calling(server.address) as client:
            first = asyncio.create_task(client.call(1, b"", deadline=soon()))
            await until(lambda: gate.running == 1)
            (link,) = client._links
            link.pause_writing()
            tasks = [asyncio.create_task(client.call(1, b"", deadline=soon())) for _ in range(5)]
            await until(lambda: len(client._waiters) == 5)
            link.resume_writing()
            await until(lambda: gate.running == 6)
            gate.open.set()
            await asyncio.gather(first, *tasks)

    play(scene)


def test_a_call_larger_than_a_frame_is_refused_before_it_is_sent(play: Any) -> None:
    async def handle(request: Request) -> Answer:
        return b"", [bytes(200_000 if request.method else 10)]

    async def scene() -> None:
        limits = FrameLimits(frame_bytes_max=100_000)
        async with serving(handle, limits=limits) as server, calling(server.address) as client:
            with pytest.raises(InvalidArgumentError, match="frame"):
                await client.call(0, b"", [bytes(200_000)], deadline=soon())
            with pytest.raises(InvalidArgumentError, match="frame"):
                await client.call(1, b"", deadline=soon())
            assert len((await client.call(0, b"", deadline=soon())).attachments) == 1
            assert not server.stats.broken and server.stats.connections == 1

    play(scene)


def test_nobody_there(play: Any) -> None:
    async def scene() -> None:
        async with serving() as server:
            address = server.address
        async with calling(address) as client:
            for _ in range(3):
                with pytest.raises(UnavailableError) as caught:
                    await client.call(1, b"", deadline=soon())
                assert caught.value.outcome == "none"
            assert not client.connected

    play(scene)


def test_a_peer_that_comes_back_is_found_again(play: Any) -> None:
    async def scene() -> None:
        async with serving() as server, calling(server.address) as client:
            await client.call(1, b"", deadline=soon())
            address = server.address
            await server.stop()
            with pytest.raises(UnavailableError):
                await client.call(1, b"", deadline=soon())
            again = FrameServer(server.handler, NODE)
            await again.start(address)
            try:
                deadline = soon(20)
                while True:
                    try:
                        assert (await client.call(1, b"back", deadline=deadline)).message == b"back"
                        break
                    except UnavailableError as error:
                        assert error.outcome == "none"
                        await asyncio.sleep(0.005)
            finally:
                await again.stop()

    play(scene)


def test_calls_under_way_when_a_peer_dies_are_of_unknown_outcome(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        async with serving(gate, cancellable={1}) as server, calling(server.address) as client:
            tasks = [asyncio.create_task(client.call(1, b"", deadline=soon())) for _ in range(3)]
            await until(lambda: gate.running == 3)
            for session in list(server._sessions):
                session.abort("died")
            for task in tasks:
                with pytest.raises(UnavailableError) as caught:
                    await task
                assert caught.value.outcome == "unknown"
            await until(lambda: gate.cancelled == 3)

    play(scene)


def test_a_server_that_stops_answers_what_it_took(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        async with serving(gate) as server, calling(server.address) as client:
            task = asyncio.create_task(client.call(1, b"taken", deadline=soon()))
            await until(lambda: gate.running == 1)
            stopping = asyncio.create_task(server.stop(drain_s=30))
            await until(lambda: server.draining and not client._links)
            with pytest.raises(UnavailableError) as caught:
                await client.call(1, b"late", deadline=soon())
            assert caught.value.outcome == "none" and not task.done()
            gate.open.set()
            assert (await task).message == b"taken"
            await stopping
            assert server.connections == 0

    play(scene)


def test_a_call_that_crosses_the_goaway_is_refused_untouched(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        async with serving(gate) as server, calling(server.address) as client:
            task = asyncio.create_task(client.call(1, b"", deadline=soon()))
            await until(lambda: gate.running == 1)
            (session,) = server._sessions
            session._going = True
            with pytest.raises(UnavailableError, match="shutting down") as caught:
                await client.call(1, b"", deadline=soon())
            assert caught.value.outcome == "none" and gate.running == 1
            gate.open.set()
            await task

    play(scene)


def test_the_patience_of_a_stop_ends(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        async with serving(gate) as server, calling(server.address) as client:
            task = asyncio.create_task(client.call(1, b"", deadline=soon()))
            await until(lambda: gate.running == 1)
            await server.stop(drain_s=0.02)
            assert gate.cancelled == 1 and server.in_flight == 0
            with pytest.raises(UnavailableError):
                await task

    play(scene)


def test_a_closed_client_ends_its_calls(play: Any) -> None:
    async def scene() -> None:
        gate = Gate()
        async with serving(gate, limits=FrameLimits(in_flight_max=1)) as server, calling(server.address) as client:
            tasks = [asyncio.create_task(client.call(1, b"", deadline=soon())) for _ in range(3)]
            await until(lambda: gate.running == 1)
            await client.close()
            outcomes = [error.outcome for error in await asyncio.gather(*tasks, return_exceptions=True)]  # type: ignore[union-attr]
            assert outcomes == ["unknown", "none", "none"]
            with pytest.raises(UnavailableError):
                await client.call(1, b"", deadline=soon())
            gate.open.set()

    play(scene)


@pytest.mark.parametrize(
    "identity",
    [FrameIdentity("c2", "router", "r1"), FrameIdentity("c1", "coordinator", "r1"), FrameIdentity("", "router", "")],
    ids=str,
)
def test_strangers_are_refused(play: Any, identity: FrameIdentity) -> None:
    async def scene() -> None:
        async with serving(roles={"router"}) as server, calling(server.address, identity=identity) as client:
            with pytest.raises(UnavailableError) as caught:
                await client.call(1, b"", deadline=soon())
            assert caught.value.outcome == "none" and server.stats.broken["refused"] == 1

    play(scene)


def test_another_node_at_the_address_is_not_spoken_to(play: Any) -> None:
    async def scene() -> None:
        async with serving() as server, calling(server.address, peer_node="d2") as client:
            with pytest.raises(UnavailableError, match="'d1' answers there"):
                await client.call(1, b"", deadline=soon())
            assert server.stats.calls == 0

    play(scene)


@pytest.mark.parametrize(
    ("client_versions", "server_versions", "agreed"),
    [((1, 1), (1, 1), 1), ((1, 2), (1, 1), 1), ((1, 1), (1, 2), 1), ((1, 2), (1, 2), 2), ((2, 3), (1, 1), None)],
    ids=str,
)
def test_neighbouring_releases_understand_each_other(
    play: Any, client_versions: tuple[int, int], server_versions: tuple[int, int], agreed: int | None
) -> None:
    async def scene() -> None:
        ours, theirs = FrameLimits(versions=client_versions), FrameLimits(versions=server_versions)
        async with serving(limits=theirs) as server, calling(server.address, limits=ours) as client:
            if agreed is None:
                with pytest.raises(UnavailableError) as caught:
                    await client.call(1, b"x", deadline=soon())
                assert caught.value.outcome == "none"
            else:
                assert (await client.call(1, b"x", deadline=soon())).message == b"x"
                assert [session.version for session in server._sessions] == [agreed]

    play(scene)


@pytest.mark.parametrize("address", ["", "host", ":1", "h:", "h:x", "h:65536", "h:123456", "h:-1"])
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(InvalidArgumentError):
        split_address(address)
    assert split_address("[::1]:65535") == ("::1", 65_535) and split_address("h:0") == ("h", 0)


def test_a_client_has_a_sensible_number_of_connections(play: Any) -> None:
    async def scene() -> None:
        for connections in (0, 9):
            with pytest.raises(InvalidArgumentError):
                FrameClient("h:1", ROUTER, connections=connections)
        assert Deadline.after(SystemClock(), 1).left_s > 0

    play(scene)

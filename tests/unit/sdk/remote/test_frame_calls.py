"""Calls in frames: shared by threads, lost, late, refused, interrupted, and where there are no frames to be had."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omendb
from omendb.remote import frame_link
from omendb.remote.addresses import parse_addresses
from omendb.remote.byte_pipe import BytePipe
from omendb.remote.cancelling import CANCEL_SCOPE, CancelScope
from omendb.remote.channels import CallFailed, RouterChannel, Tls
from omendb.remote.frame_calls import FrameCalls
from omendb_common.clock import SystemClock
from omendb_common.errors import (
    DeadlineExceededError,
    NotFoundError,
    OmenDBError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.security.dev_certificates import DevAuthority
from omendb_common.wire.frames import Kind
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.config import FaceSettings, FaceTls
from omendb_router.face_serving import Place
from tests.unit.sdk.remote.face_server import FaceServer, face_server
from tests.unit.sdk.remote.scripted_router import Peer, scripted

INFO = pb.ServerInfoRequest()


def calls_to(port: int) -> FrameCalls:
    return FrameCalls(parse_addresses(f"http://127.0.0.1:{port}")[0], Tls())


def info(calls: FrameCalls, timeout_s: float = 20.0) -> Any:
    return calls.call("ServerInfo", INFO, timeout_s)


def answering(peer: Peer) -> None:
    """A good router."""
    while True:
        asked = peer.frame()
        if asked.kind == Kind.REQUEST:
            peer.info(asked.call)


@pytest.fixture
def framed(tmp_path: Path) -> Iterator[FaceServer]:
    with face_server(tmp_path / "db") as running:
        yield running


def test_threads_share_a_connection_and_each_gets_its_own_answer(framed: FaceServer) -> None:
    vectors = np.random.default_rng(3).random((400, 8), dtype=np.float32)
    with omendb.Client(framed.url) as client:
        made = client.create_collection("docs", dimension=8)
        made.upsert(range(400), vectors)

        def ask(number: int) -> int:
            if number % 50 == 7:
                with pytest.raises(NotFoundError):
                    client.collection("none").count()
            return int(made.search(vectors[number], k=1)[0].id)

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(ask, range(400))) == list(range(400))
        assert framed.faces._frames.connections <= 2


def test_under_tls_too(tmp_path: Path) -> None:
    files = DevAuthority.open(tmp_path, "dev", SystemClock()).issue("router", "r1", SystemClock())
    vectors = np.random.default_rng(3).random((2000, 256), dtype=np.float32)
    with (
        face_server(tmp_path / "db", tls=FaceTls(files.cert, files.key)) as running,
        omendb.Client(f"https://127.0.0.1:{running.port}", tls_ca=files.ca) as client,
    ):
        made = client.create_collection("docs", dimension=256)
        made.upsert(range(2000), vectors)
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda n: int(made.search(vectors[n], k=1)[0].id), range(200))
            assert list(found) == list(range(200))
        records: list[Any] = list(made.get(range(2000), include=("vector",)))
        assert np.array_equal([record.vector for record in records], vectors)
        assert running.faces._frames.connections >= 1
        with pytest.raises(OmenDBError):
            omendb.Client(f"https://127.0.0.1:{running.port}", timeout=5)


def test_a_write_after_the_router_was_started_again_is_no_riddle(tmp_path: Path) -> None:
    with face_server(tmp_path / "db") as first:
        client = omendb.Client(first.url)
        docs = client.create_collection("docs", dimension=2)
        docs.upsert([1], [[0, 0]])
        place = first.http
    with face_server(tmp_path / "db", http=place), client:
        # The connection ended while nobody looked: what is sent on it would be of unknown outcome.
        docs.upsert([2], [[1, 1]])
        assert docs.count() == 2


class NoFrames(http.server.BaseHTTPRequestHandler):
    """An older router, or a proxy that passes no upgrade."""

    grpc_port = 0
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        body = json.dumps({"grpc_port": self.grpc_port}).encode() if self.path == "/info" else b"{}"
        self.send_response(200 if self.path == "/info" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_where_no_frames_are_offered_it_is_grpc(framed: FaceServer) -> None:
    kind = type("Old", (NoFrames,), {"grpc_port": framed.grpc.port, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as old:
        thread = threading.Thread(target=old.serve_forever)
        thread.start()
        with omendb.Client(f"http://127.0.0.1:{old.server_address[1]}") as client:
            client.create_collection("docs", dimension=2).upsert([1], [[0, 0]])
            assert client.collection("docs").count() == 1
        old.shutdown()
        thread.join()
    assert framed.faces._frames.connections == 0
    assert kind.asked == ["/frames", "/info"], "it is asked once, not with every call"  # type: ignore[attr-defined]


def test_where_only_grpc_is_within_reach_it_is_grpc(framed: FaceServer) -> None:
    unused = framed.grpc.port - 1
    if unused == framed.http.port:
        pytest.skip("the two ports happen to be neighbours")
    with omendb.Client(f"http://127.0.0.1:{unused}") as client:
        assert client.list_collections() == []


def test_too_many_connections_are_a_refusal_with_words(tmp_path: Path) -> None:
    with face_server(tmp_path / "db", FaceSettings(connections_max=1)) as running:
        first, second = calls_to(running.port), calls_to(running.port)
        info(first)
        with pytest.raises(CallFailed) as caught:
            info(second)
        assert caught.value.answered and getattr(caught.value.error, "outcome", "") == "none"
        first.close()
        second.close()


def test_a_router_that_hangs_is_given_up_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_link, "PROBE_AFTER_S", 0.05)
    monkeypatch.setattr(frame_link, "PROBE_ANSWER_S", 0.05)
    probes: list[int] = []

    def hang(peer: Peer) -> None:
        while True:
            probes.append(peer.frame().method)

    with scripted(hang) as router:
        calls = calls_to(router.port)
        with pytest.raises(CallFailed) as caught:
            calls.call("Upsert", pb.UpsertRequest(), 300.0)
        assert not caught.value.answered and getattr(caught.value.error, "outcome", "") == "unknown"
        assert probes[:2] == [pb.ROUTER_METHOD_UPSERT, pb.ROUTER_METHOD_SERVER_INFO]
        calls.close()


def test_a_slow_router_that_shows_life_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_link, "PROBE_AFTER_S", 0.02)
    monkeypatch.setattr(frame_link, "PROBE_ANSWER_S", 10.0)

    def slow(peer: Peer) -> None:
        first = peer.frame()
        for _ in range(3):
            peer.info(peer.frame().call)
        peer.send(Kind.RESPONSE, first.call, pb.CountReply(count=9).SerializeToString())
        peer.frame()

    with scripted(slow) as router:
        calls = calls_to(router.port)
        assert calls.call("Count", pb.CountRequest(), 300.0).count == 9
        calls.close()


LOST: dict[str, Callable[[Peer], None]] = {
    "closes": lambda peer: None,
    "garbage": lambda peer: peer.sock.sendall(b"x" * 100),
    "a request": lambda peer: peer.send(Kind.REQUEST, 1),
    "half a frame": lambda peer: peer.sock.sendall(b"OMF1"),
}


@pytest.mark.parametrize("how", LOST)
def test_a_connection_that_breaks_leaves_the_outcome_open_and_the_next_call_gets_another(how: str) -> None:
    broken: list[int] = []

    def once(peer: Peer) -> None:
        peer.frame()
        if not broken:
            broken.append(1)
            LOST[how](peer)
        else:
            peer.info(1)
            peer.frame()

    with scripted(once) as router:
        calls = calls_to(router.port)
        with pytest.raises(CallFailed) as caught:
            calls.call("Upsert", pb.UpsertRequest(), 20.0)
        error = caught.value.error
        assert isinstance(error, UnavailableError) and error.outcome == "unknown" and not caught.value.answered
        assert info(calls).version == "scripted" and router.connections == 2
        calls.close()


def test_an_answer_that_is_no_message_is_of_unknown_outcome() -> None:
    with scripted(lambda peer: peer.send(Kind.RESPONSE, peer.frame().call, b"\xff\xff")) as router:
        calls = calls_to(router.port)
        with pytest.raises(CallFailed) as caught:
            info(calls)
        assert caught.value.answered and getattr(caught.value.error, "outcome", "") == "unknown"
        calls.close()


def test_a_late_answer_is_passed_over_and_the_connection_stays_good() -> None:
    late = threading.Event()

    def story(peer: Peer) -> None:
        first = peer.frame()
        assert peer.frame().kind == Kind.CANCEL
        late.set()
        peer.info(first.call)
        answering(peer)

    with scripted(story) as router:
        calls = calls_to(router.port)
        with pytest.raises(CallFailed) as caught:
            info(calls, 0.05)
        assert isinstance(caught.value.error, DeadlineExceededError) and not caught.value.answered
        assert late.wait(20)
        assert info(calls).version == "scripted" and router.connections == 1
        calls.close()


def test_a_large_request_goes_out_as_the_router_reads() -> None:
    def story(peer: Peer) -> None:
        asked = peer.frame()
        assert len(asked.message) > 32 << 20
        peer.send(Kind.RESPONSE, asked.call)
        peer.frame()

    with scripted(story) as router:
        calls = calls_to(router.port)
        # Before a router that is silent is asked who it is, which would push the rest along.
        calls.call("Upsert", pb.UpsertRequest(collection="x" * (32 << 20)), frame_link.PROBE_AFTER_S - 1)
        calls.close()


@pytest.mark.parametrize("how", ["answered", "late", "cancelled"])
def test_whoever_reads_names_another_when_it_leaves(how: str) -> None:
    first_asked, first_left = threading.Event(), threading.Event()
    scope = CancelScope()

    def story(peer: Peer) -> None:
        one = peer.frame()
        first_asked.set()
        two = peer.frame()
        if how == "answered":
            peer.info(one.call)
        elif how == "cancelled":
            scope.cancel()
        assert first_left.wait(20)
        peer.info(two.call)
        while True:
            peer.frame()

    def first() -> None:
        CANCEL_SCOPE.set(scope)
        try:
            info(calls, 0.5 if how == "late" else 20.0)
        except CallFailed:
            assert how != "answered"
        first_left.set()

    with scripted(story) as router, ThreadPoolExecutor(2) as pool:
        calls = calls_to(router.port)
        reading = pool.submit(first)
        assert first_asked.wait(20)
        # It waits beside the one that reads, and nobody else comes.
        assert pool.submit(info, calls, 20.0).result(25).version == "scripted"
        reading.result(20)
        calls.close()


def test_what_could_not_be_sent_in_time_is_sent_by_the_next() -> None:
    read = threading.Event()
    seen: list[tuple[int, int]] = []

    def story(peer: Peer) -> None:
        assert read.wait(20)
        while True:
            asked = peer.frame()
            seen.append((asked.kind, len(asked.message)))
            if asked.kind == Kind.REQUEST:
                peer.send(Kind.RESPONSE, asked.call)

    with scripted(story) as router:
        calls = calls_to(router.port)
        large = pb.UpsertRequest(collection="x" * (32 << 20))
        with pytest.raises(CallFailed) as caught:
            calls.call("Upsert", large, 1.5)
        assert isinstance(caught.value.error, DeadlineExceededError)
        read.set()
        # Over the same connection, behind what is left of the first.
        calls.call("Upsert", pb.UpsertRequest(collection="y" * (1 << 20)), 20.0)
        assert [kind for kind, _ in seen] == [Kind.REQUEST, Kind.CANCEL, Kind.REQUEST]
        assert router.connections == 1
        calls.close()


def test_no_more_calls_are_begun_than_the_router_takes() -> None:
    begun, let_go = threading.Event(), threading.Event()

    def story(peer: Peer) -> None:
        first = peer.frame()
        begun.set()
        assert let_go.wait(20)
        peer.info(first.call)
        answering(peer)

    with scripted(story, in_flight_max=1) as router, ThreadPoolExecutor(1) as pool:
        calls = calls_to(router.port)
        first = pool.submit(info, calls)
        assert begun.wait(20)
        with pytest.raises(CallFailed) as caught:
            info(calls)
        assert isinstance(caught.value.error, ResourceExhaustedError) and caught.value.answered
        let_go.set()
        first.result(20)
        info(calls)
        calls.close()


def test_a_cancelled_call_ends_whoever_reads_for_it() -> None:
    asked = threading.Semaphore(0)

    def story(peer: Peer) -> None:
        while True:
            if peer.frame().kind == Kind.REQUEST:
                asked.release()

    def call(scope: CancelScope) -> None:
        CANCEL_SCOPE.set(scope)
        with pytest.raises(CallFailed, match="cancelled"):
            info(calls, 300.0)

    with scripted(story) as router, ThreadPoolExecutor(3) as pool:
        calls = calls_to(router.port)
        scopes = [CancelScope() for _ in range(3)]
        running = [pool.submit(call, scope) for scope in scopes]
        for _ in scopes:
            assert asked.acquire(timeout=20)
        for scope, future in zip(scopes, running, strict=True):
            scope.cancel()
            future.result(20)
        calls.close()


def test_an_interrupted_reader_breaks_the_connection_and_nobody_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait, interrupts = BytePipe.wait, [True]

    def interrupted(self: BytePipe, timeout_s: float, *, to_write: bool = False) -> Any:
        ready = wait(self, timeout_s, to_write=to_write)
        if timeout_s > 100 and interrupts:
            interrupts.clear()
            raise KeyboardInterrupt
        return ready

    with scripted(answering) as router:
        calls = calls_to(router.port)
        info(calls)
        monkeypatch.setattr(BytePipe, "wait", interrupted)
        monkeypatch.setattr(frame_link, "PROBE_AFTER_S", 1e6)
        with pytest.raises(KeyboardInterrupt):
            info(calls, 300.0)
        assert info(calls, 50.0).version == "scripted" and router.connections == 2
        calls.close()


def test_closing_ends_the_calls_that_wait() -> None:
    asked = threading.Semaphore(0)

    def story(peer: Peer) -> None:
        while peer.frame():
            asked.release()

    with scripted(story) as router, ThreadPoolExecutor(2) as pool:
        calls = calls_to(router.port)
        running = [pool.submit(info, calls, 300.0) for _ in range(2)]
        for _ in running:
            assert asked.acquire(timeout=20)
        calls.close()
        for future in running:
            with pytest.raises(CallFailed, match="closed"):
                future.result(20)
        with pytest.raises(CallFailed) as caught:
            info(calls)
        assert getattr(caught.value.error, "outcome", "") == "none"


def test_nobody_there_is_said_at_once() -> None:
    with scripted(answering) as router:
        port = router.port
    channel = RouterChannel(parse_addresses(f"http://127.0.0.1:{port}")[0], Tls())
    began = time.monotonic()
    with pytest.raises(CallFailed) as caught:
        channel.call("ServerInfo", INFO, 20.0)
    assert getattr(caught.value.error, "outcome", "") == "none" and not caught.value.answered
    assert time.monotonic() - began < 15
    channel.close()


def test_a_router_that_leaves_is_asked_no_more() -> None:
    def story(peer: Peer) -> None:
        asked = peer.frame()
        peer.send(Kind.GOAWAY, 0)
        peer.info(asked.call)
        # Until the client lets it go.
        with pytest.raises(EOFError):
            peer.frame()

    with scripted(story) as router:
        calls = calls_to(router.port)
        info(calls)
        info(calls)
        assert router.connections == 2
        calls.close()


def test_one_place_is_all_that_a_client_names(framed: FaceServer) -> None:
    with omendb.Client(framed.url) as client:
        assert client.router == str(Place("127.0.0.1", framed.port))

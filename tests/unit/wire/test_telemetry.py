"""Metrics have their names and their truth; the health port has its four routes; no secret is in a log line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from omendb_common.errors import InvalidArgumentError
from omendb_common.telemetry import http, logs
from omendb_common.telemetry.http import HealthServer
from omendb_common.telemetry.loop_lag import LoopLag
from omendb_common.telemetry.metrics import SAMPLED, Metrics
from omendb_common.telemetry.windows import CountWindow, QuantileWindow
from omendb_common.wire.frames import FrameStats
from tests.unit.wire.frame_cases import until


class HandClock:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def mono_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)


def shown(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels, as Prometheus reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_the_gauges_of_the_specification_have_their_names() -> None:
    clock = HandClock()
    metrics = Metrics("datanode", "d1", clock)
    for name in SAMPLED:
        metrics.sample(name, lambda: 7.0)
    metrics.count_inserted(600)
    for i in range(100):
        metrics.observe_search(0.001 * (i + 1), queries=2)
    clock.now_s += 30
    values = {name: value for (name, labels), value in shown(metrics).items() if not labels}
    assert all(values[name] == 7.0 for name in SAMPLED) and len(SAMPLED) == 6
    assert values["omendb_insertion_rate_per_sec"] == 20.0
    assert values["omendb_search_latency_p95"] == pytest.approx(0.095, abs=0.002)
    assert values["omendb_daily_searches"] == 200
    assert values["omendb_inserted_points_total"] == 600 and values["omendb_search_queries_total"] == 200
    clock.now_s += 61
    values = {name: value for (name, labels), value in shown(metrics).items() if not labels}
    assert values["omendb_insertion_rate_per_sec"] == 0 and values["omendb_search_latency_p95"] == 0
    assert values["omendb_daily_searches"] == 200
    with pytest.raises(InvalidArgumentError):
        metrics.sample("omendb_typo", lambda: 0.0)


def test_requests_and_frames_are_counted_by_what_became_of_them() -> None:
    metrics = Metrics("router", "r1", HandClock(), release="0.1.0")
    metrics.observe_request("search", 0.004)
    metrics.observe_request("search", 0.3, "UNAVAILABLE")
    client, server = FrameStats(), FrameStats()
    client.broken["magic"] += 3
    server.connections, server.bytes_in = 2, 99
    metrics.watch_frames(client, "client")
    metrics.watch_frames(server, "server")
    metrics.gauge("omendb_something", "A gauge", lambda: 5.0)
    values = shown(metrics)
    assert values["omendb_request_seconds_count", (("code", "OK"), ("method", "search"))] == 1
    bucket = (("code", "OK"), ("le", "0.005"), ("method", "search"))
    assert values["omendb_request_seconds_bucket", bucket] == 1
    assert values["omendb_request_seconds_sum", (("code", "UNAVAILABLE"), ("method", "search"))] == 0.3
    assert values["omendb_frame_broken_total", (("end", "client"), ("reason", "magic"))] == 3
    assert values["omendb_frame_connections", (("end", "server"),)] == 2
    assert values["omendb_frame_bytes_total", (("direction", "in"), ("end", "server"))] == 99
    assert values["omendb_build_info", (("node", "r1"), ("release", "0.1.0"), ("role", "router"))] == 1
    assert values["omendb_something", ()] == 5.0 and values["omendb_memory_usage_bytes", ()] > 1_000_000


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 9)), max_size=40))
def test_a_window_counts_what_lies_in_it(steps: list[tuple[float, int]]) -> None:
    clock = HandClock()
    window = CountWindow(clock, slot_s=1.0, slots=10)
    counted = []
    for pause, amount in steps:
        clock.now_s += pause
        window.add(amount)
        counted.append((int(clock.now_s), amount))
    newest = int(clock.now_s)
    assert window.total == sum(amount for slot, amount in counted if slot > newest - 10)
    clock.now_s += 1e6
    assert window.total == 0 and window.per_second == 0


def test_quantiles_forget_the_old_and_the_many() -> None:
    clock = HandClock()
    window = QuantileWindow(clock, window_s=10, samples=4)
    assert window.quantile(0.95) == 0.0
    for value in (100.0, 1.0, 2.0, 3.0, 4.0):
        window.add(value)
    assert window.quantile(1.0) == 4.0 and window.quantile(0.0) == 1.0
    clock.now_s += 11
    window.add(9.0)
    assert window.quantile(0.0) == 9.0


async def ask(address: str, request: bytes, close: bool = False) -> bytes:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        if close:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def served(scene: Any, readiness: Any = lambda: None) -> None:
    async def whole() -> None:
        server = HealthServer(lambda: b"metrics here\n", readiness)
        await server.start("127.0.0.1", 0)
        try:
            async with asyncio.timeout(30):
                await scene(server)
        finally:
            await server.stop()
        assert not server.connections

    for run in (asyncio.run, uvloop.run):
        run(whole())


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_the_health_port_has_four_routes_and_no_more() -> None:
    async def scene(server: HealthServer) -> None:
        for path, body in (
            ("/metrics", b"metrics here\n"),
            ("/livez", b"ok\n"),
            ("/healthz", b"ok\n"),
            ("/readyz", b"ok\n"),
        ):
            answer = await ask(server.address, get(path + "?x=1"))
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\n" + body)
            assert b"Content-Length: %d\r\n" % len(body) in answer
            head = await ask(server.address, get(path, "HEAD"))
            assert head.startswith(b"HTTP/1.1 200") and head.endswith(b"\r\n\r\n")
            assert (await ask(server.address, get(path, "POST"))).startswith(b"HTTP/1.1 405")
        for path in ("/", "/debug", "/metrics/", "/metrics/../etc/passwd", "//metrics", "/%6detrics", "*", "/v1/admin"):
            assert (await ask(server.address, get(path))).startswith(b"HTTP/1.1 404"), path

    served(scene)
    assert sorted(http.ROUTES) == ["/healthz", "/livez", "/metrics", "/readyz"]


def test_a_process_that_is_not_ready_says_why() -> None:
    async def scene(server: HealthServer) -> None:
        answer = await ask(server.address, get("/readyz"))
        assert answer.startswith(b"HTTP/1.1 503") and b"no coordinator" in answer
        assert (await ask(server.address, get("/livez"))).startswith(b"HTTP/1.1 200")

    served(scene, lambda: "no coordinator")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /metrics SMTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", b"431"),
        (b"x" * 9000, b"431"),
        (b"GET /met", b""),
    ],
)
def test_no_request_breaks_the_health_port(request_bytes: bytes, status: bytes) -> None:
    async def scene(server: HealthServer) -> None:
        answer = await ask(server.address, request_bytes, close=True)
        assert answer.startswith(b"HTTP/1.1 " + status) if status else answer == b""
        assert (await ask(server.address, get("/livez"))).startswith(b"HTTP/1.1 200")

    served(scene)


def test_slow_and_many_peers_of_the_health_port_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_S", 0.05)
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 3)

    async def scene(server: HealthServer) -> None:
        slow = [asyncio.create_task(ask(server.address, b"GET /l")) for _ in range(10)]
        assert await asyncio.gather(*slow) == [b""] * 10
        await until(lambda: not server.connections)
        assert (await ask(server.address, get("/livez"))).startswith(b"HTTP/1.1 200")

    served(scene)


@pytest.fixture
def log() -> Iterator[Any]:
    """Configures the root logger to a buffer; what it was comes back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()

    def start(form: Any, level: str = "info") -> io.StringIO:
        logs.configure(form=form, level=level, role="router", node_id="r1", stream=stream)
        return stream

    yield start
    root.handlers[:], _ = before
    root.setLevel(before[1])


SECRETS = (
    "omn_k1_0123456789abcdefABCDEF",
    "Bearer abcdef.123456",
    "Authorization: Basic dXNlcjpwYXNz",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----\nMIIEvQ",
    "AKIAIOSFODNN7EXAMPLE",
    "password=hunter22",
    "{'api_key': 'sesame12'}",
    '"client_secret": "sesame12"',
    "access_token=sesame12&x=1",
)
_CANARIES = re.compile(r"0123456789abcdef|abcdef\.123|dXNlcj|eyJzdWI|MIIEvQ|IOSFODNN|hunter22|sesame12")


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_in_a_line(log: Any, form: str, secret: str) -> None:
    assert _CANARIES.search(secret)
    stream = log(form)
    logger = logging.getLogger("omendb.test")
    logger.info("sent %s to x", secret)
    logger.info("given", extra={"header": secret, "api_token": "sesame12", "rows": 3})
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("failed")
    assert not _CANARIES.search(stream.getvalue()), stream.getvalue()
    assert logs.HIDDEN in stream.getvalue() and "3" in stream.getvalue()


def test_ordinary_words_are_not_hidden() -> None:
    for text in ("the token bucket is empty", "keys: 4", "monkey = banana", "partition key: tenant", "key=abcdef"):
        assert logs.hide(text) == text


def test_json_lines_are_json(log: Any) -> None:
    stream = log("json", "debug")
    logging.getLogger("omendb.a").debug("a\nb", extra={"rows": 3, "what": object(), "role": "forged"})
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["message"] == "a\nb" and told["level"] == "debug" and told["rows"] == 3 and told["role"] == "router"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])


def test_nobody_forges_a_second_line(log: Any) -> None:
    stream = log("text")
    logging.getLogger("omendb.a").warning("name %s", "x\n2026-01-01 ERROR forged\x1b[31m\r", extra={"y": "z\nq"})
    logging.getLogger("omendb.a").debug("not shown")
    assert len(stream.getvalue().splitlines()) == 1 and "\x1b" not in stream.getvalue()
    assert len(stream.getvalue()) < 300


def test_a_line_has_a_greatest_length(log: Any) -> None:
    stream = log("text")
    logging.getLogger("omendb.a").info("x" * 100_000)
    assert len(stream.getvalue()) < logs.MESSAGE_CHARS_MAX + 200


@pytest.mark.parametrize("wrong", [{"form": "xml"}, {"level": "loud"}])
def test_log_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        logs.configure(**wrong)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_loop_that_is_held_up_is_seen(run: Any) -> None:
    async def scene() -> None:
        seen: list[float] = []
        lag = LoopLag(every_s=0.005, shed_above_s=0.1, observe=seen.append)
        lag.start()
        await until(lambda: len(seen) > 2)
        assert not lag.shed() or max(seen) > 0.1
        time.sleep(0.25)  # what a handler must never do
        await until(lambda: lag.worst_s > 0.2)
        assert lag.shed() and max(seen) > 0.2
        await until(lambda: not lag.shed())
        lag.stop()
        count = len(seen)
        await asyncio.sleep(0.02)
        assert len(seen) == count

    run(scene())

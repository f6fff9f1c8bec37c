"""A router as a process: its flags, its start without coordinators, its workers on shared ports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_router.__main__ import options_from, parser, worker_arguments
from omendb_router.face_serving import Place

ANY = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]


def start(module: str, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("ready "), process.communicate(timeout=30)
    told: dict[str, Any] = json.loads(line.removeprefix("ready "))
    return told


def until(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[str]:
    listen = ["--listen", "127.0.0.1:0", "--raft-listen", "127.0.0.1:0"]
    process = start("omendb_coordinator", "--dir", str(tmp_path / "c1"), "--node-id", "c1", *listen, "--bootstrap")
    yield ready(process)["address"]
    process.terminate()
    process.communicate(timeout=30)


def test_flags_become_options() -> None:
    flags = ["--node-id", "r1", "--coordinators", "a:1, b:2,", "--http", "[::1]:80", "--metrics-listen", "x:0"]
    options = options_from(parser().parse_args(flags))
    assert (
        options.coordinators == ("a:1", "b:2") and options.http == Place("::1", 80) and options.metrics == Place("x", 0)
    )
    assert options.tls is None and not options.shared


def test_settings_reach_the_faces_the_router_and_its_connections(tmp_path: Path) -> None:
    file = tmp_path / "omendb.yaml"
    file.write_text(
        "faces: {timeout_s: 7, body_bytes_max: 1MiB}\nframes: {frame_bytes_max: 2MiB}\nindex: {hnsw_m: 8}\n"
    )
    flags = ["--node-id", "r1", "--coordinators", "a:1", "--config", str(file), "--set", "router.queue_max=3"]
    options = options_from(parser().parse_args(flags))
    assert (options.face_settings.timeout_s, options.face_settings.body_bytes_max) == (7.0, 1 << 20)
    assert (options.settings.queue_max, options.frames.frame_bytes_max) == (3, 2 << 20)
    worker = ["--node-id", "r1.0", "--worker", *worker_arguments(parser().parse_args(flags))]
    told = options_from(parser().parse_args(worker))
    assert (told.settings, told.face_settings, told.frames) == (options.settings, options.face_settings, options.frames)


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--set", "faces.body_bytes_max=256MiB"], "frames.frame_bytes_max"),
        (["--set", "auto_ids=replica"], "auto_ids"),
        (["--set", "storage.durability=os"], "storage.durability"),
        (["--coordinators", ","], "--coordinators"),
        (["--workers", "0"], "--workers"),
        (["--workers", "257"], "--workers"),
        (["--http", "x"], "--http"),
        (["--tls-ca", "f"], "tls"),
        (["--face-tls-key", "f"], "tls"),
        (["--metrics-listen", "9480"], "--metrics-listen"),
    ],
)
def test_flags_that_make_no_sense_are_named(flags: list[str], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        options_from(parser().parse_args(["--node-id", "r1", "--coordinators", "a:1", *flags]))
    assert caught.value.field == field


def test_a_worker_gets_the_flags_of_its_parent() -> None:
    tls = ["--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c", "--face-tls-cert", "d", "--face-tls-key", "e"]
    flags = ["--node-id", "r1", "--coordinators", "a:1,b:2", "--zone", "z", "--workers", "2", *tls]
    parent = options_from(parser().parse_args(flags))
    worker = options_from(
        parser().parse_args(["--node-id", "r1.0", "--worker", *worker_arguments(parser().parse_args(flags))])
    )
    assert (worker.coordinators, worker.zone, worker.tls, worker.face_tls) == (
        *(parent.coordinators, parent.zone, parent.tls, parent.face_tls),
    )
    assert worker.shared and not parent.shared


def test_a_router_waits_for_the_coordinators_and_says_so() -> None:
    with taken_place() as nobody:
        flags = ["--node-id", "r1", "--coordinators", nobody, "--metrics-listen", "127.0.0.1:0", *ANY]
        process = start("omendb_router", *flags)
        assert process.stderr is not None
        assert "waiting for the coordinators" in process.stderr.readline()
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "ready" not in out


@contextlib.contextmanager
def taken_place() -> Iterator[str]:
    """An address where somebody has a port and nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def test_workers_share_the_ports_and_come_back(coordinator: str) -> None:
    flags = [
        "--node-id",
        "r1",
        "--coordinators",
        coordinator,
        "--workers",
        "2",
        "--metrics-listen",
        "127.0.0.1:0",
        *ANY,
    ]
    process = start("omendb_router", *flags)
    try:
        told = ready(process)
        assert told["node_id"] == "r1" and told["pid"] == process.pid
        workers = {worker["node_id"]: worker for worker in told["workers"]}
        assert set(workers) == {"r1.0", "r1.1"}
        for worker in workers.values():
            assert httpx.get(f"http://{worker['metrics']}/readyz").status_code == 200

        def who() -> str | None:
            try:
                answer: str = httpx.get(f"http://{told['http']}/info", timeout=10).json()["node_id"]
            except httpx.TransportError:  # it had waited in the queue of the worker that was killed
                return None
            return answer

        os.kill(workers["r1.0"]["pid"], signal.SIGKILL)
        until(lambda: not is_alive(workers["r1.0"]["pid"]))
        until(lambda: who() == "r1.1")
        until(lambda: who() == "r1.0")
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0
        until(lambda: not is_alive(workers["r1.1"]["pid"]))
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=30)


def test_workers_end_with_their_parent(coordinator: str) -> None:
    process = start("omendb_router", "--node-id", "r1", "--coordinators", coordinator, "--workers", "2", *ANY)
    told = ready(process)
    process.kill()
    process.communicate(timeout=30)
    until(lambda: not any(is_alive(worker["pid"]) for worker in told["workers"]))


def test_a_router_whose_port_is_taken_ends(coordinator: str) -> None:
    with taken_place() as taken:
        process = start(
            "omendb_router", "--node-id", "r1", "--coordinators", coordinator, "--http", taken, "--grpc", "127.0.0.1:0"
        )
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "cannot listen" in said and "Traceback" not in said

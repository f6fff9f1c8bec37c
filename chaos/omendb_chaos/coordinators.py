"""A group of real coordinator processes on loopback, to be killed and started again."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from omendb_common.security.tls import TlsFiles

READY_S_MAX = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()


@dataclass(slots=True)
class Coordinators:
    """``count`` coordinators under ``folder``; none runs before :meth:`start`.

    ``environment``: settings, as ``OMENDB_COORDINATOR_…``. ``tls``: files by node id; plain text without.
    """

    folder: Path
    count: int
    environment: Mapping[str, str] = field(default_factory=dict)
    tls: Mapping[str, TlsFiles] = field(default_factory=dict)
    _ports: dict[str, tuple[int, int]] = field(default_factory=dict)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ports = free_ports(2 * self.count)
        self._ports = {f"c{i + 1}": (ports[2 * i], ports[2 * i + 1]) for i in range(self.count)}

    @property
    def node_ids(self) -> list[str]:
        """The names of all members."""
        return list(self._ports)

    @property
    def addresses(self) -> list[str]:
        """Where all members serve gRPC."""
        return [f"127.0.0.1:{serves}" for _, serves in self._ports.values()]

    @property
    def running(self) -> list[str]:
        """The members whose process was started and not ended by us."""
        return list(self._running)

    def start(self, *node_ids: str) -> None:
        """Start these members, all without arguments; does not wait until they serve."""
        peers = ",".join(f"{n}=127.0.0.1:{raft}/127.0.0.1:{serves}" for n, (raft, serves) in self._ports.items())
        for node_id in node_ids or self.node_ids:
            raft, serves = self._ports[node_id]
            command = [sys.executable, "-m", "omendb_coordinator", "--node-id", node_id, "--bootstrap"]
            command += ["--dir", str(self.folder / node_id), "--peers", peers]
            command += ["--listen", f"127.0.0.1:{serves}", "--raft-listen", f"127.0.0.1:{raft}"]
            if (files := self.tls.get(node_id)) is not None:
                command += ["--tls-ca", files.ca, "--tls-cert", files.cert, "--tls-key", files.key]
            with (self.folder / f"{node_id}.log").open("ab") as log:
                self._running[node_id] = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **self.environment}
                )

    def wait_ready(self, *node_ids: str) -> None:
        """Wait until these members, all without arguments, have said that they serve."""
        for node_id in node_ids or self.running:
            read_ready(self._running[node_id], self.log(node_id))

    def log(self, node_id: str) -> str:
        """What a member has written to its log."""
        path = self.folder / f"{node_id}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self, node_id: str) -> None:
        """``kill -9``, and wait until it is gone."""
        process = self._running.pop(node_id)
        process.kill()
        _reap(process)

    def signal(self, node_id: str, number: signal.Signals) -> None:
        """Send a signal to a member, such as SIGSTOP."""
        self._running[node_id].send_signal(number)

    def stop(self) -> dict[str, int]:
        """SIGTERM to all that run; their exit codes."""
        for process in self._running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        codes = {node_id: _reap(process) for node_id, process in self._running.items()}
        self._running.clear()
        return codes


def _reap(process: subprocess.Popen[bytes]) -> int:
    try:
        code = process.wait(30.0)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return code


def read_ready(process: subprocess.Popen[bytes], log: str) -> dict[str, object]:
    """What a process says of itself when it serves; AssertionError when it ends or takes too long instead."""
    assert process.stdout is not None
    line = _line(process.stdout, time.monotonic() + READY_S_MAX)
    assert line.startswith(b"ready "), f"no ready line but {line!r}, exit code {process.poll()}:\n{log}"
    told: dict[str, object] = json.loads(line.removeprefix(b"ready "))
    return told


def _line(stream: IO[bytes], deadline_s: float) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([stream], [], [], max(0.0, deadline_s - time.monotonic()))
        piece = os.read(stream.fileno(), 4096) if readable else b""
        if not piece:
            return line
        line += piece
    return line


__all__ = ["READY_S_MAX", "Coordinators", "free_ports", "read_ready"]

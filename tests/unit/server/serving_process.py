"""A single-node server as a process of its own, for tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import TracebackType
from typing import Any

import httpx


class ServingProcess:
    """``python -m omendb_server`` on ports of its choice; ended with SIGTERM, or by :meth:`kill`."""

    def __init__(self, path: str, *flags: str) -> None:
        command = [
            sys.executable,
            "-m",
            "omendb_server",
            path,
            "--http",
            "127.0.0.1:0",
            "--grpc",
            "127.0.0.1:0",
            *flags,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            _, said = self.process.communicate(timeout=30)
            raise RuntimeError(said)
        self.told: dict[str, Any] = json.loads(line.removeprefix("ready "))
        self.client = httpx.Client(base_url=f"http://{self.told['http']}", timeout=30)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self._wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def _wait(self) -> int:
        self.client.close()
        self.process.communicate(timeout=60)
        return self.process.returncode

    def __enter__(self) -> ServingProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()

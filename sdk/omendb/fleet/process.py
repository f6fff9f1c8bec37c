"""One process of a fleet: started, told apart from others that get its pid later, waited for, ended.

What a process says on its standard output and error goes to files, so that it outlives whoever started it; its pid and
start time are in a file beside them, so that another command can find it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omendb_common.errors import UnavailableError

READY = "ready "
LOOK_EVERY_S = 0.02
_TAIL_BYTES = 4000


@dataclass
class FleetProcess:
    """``python -m module arguments…`` as a node called ``name`` with its files in ``folder``."""

    name: str
    module: str
    arguments: list[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What it says to people (standard error)."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its pid while it runs, else None."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None  # reaped, so that it is no zombie that still looks alive
        told = self._read_pid_file()
        if told is None or start_time(told["pid"]) != told["started"]:
            return None
        return int(told["pid"])

    def start(self) -> None:
        """Start it; does nothing while it runs. :meth:`wait_ready` says when it serves."""
        if self.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as errors, self._said.open("wb") as said:
            # A session of its own: an interrupt at the terminal is for the command, not for the fleet.
            self._child = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        told = {"pid": self._child.pid, "started": start_time(self._child.pid)}
        partial = self._pid_file.with_suffix(".partial")
        partial.write_text(json.dumps(told), encoding="utf-8")
        partial.replace(self._pid_file)

    def ready(self) -> dict[str, Any] | None:
        """What it said when it began to serve; None before."""
        try:
            text = self._said.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        line = next((line for line in text.splitlines() if line.startswith(READY) and line.endswith("}")), None)
        told: dict[str, Any] | None = None if line is None else json.loads(line.removeprefix(READY))
        return told

    def wait_ready(self, timeout_s: float) -> dict[str, Any]:
        """Wait until it serves; UnavailableError, with the end of its log, when it ends first or takes too long."""
        told: dict[str, Any] | None = None

        def serves_or_ended() -> bool:
            nonlocal told
            told = self.ready()
            return told is not None or self.pid is None

        wait_until(serves_or_ended, timeout_s, f"{self.name} to serve", self._tail)
        if told is None:
            raise UnavailableError(f"{self.name} ended at once: {self._tail()}", field=str(self.log))
        return told

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; whether it was there to get it."""
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait_ended(self, timeout_s: float) -> None:
        """Wait until it is gone."""
        wait_until(lambda: self.pid is None, timeout_s, f"{self.name} to end", self._tail)

    def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, and after ``grace_s`` SIGKILL."""
        if self.send(signal.SIGTERM):
            self.send(signal.SIGCONT)  # one that stands still cannot end
            try:
                self.wait_ended(grace_s)
            except UnavailableError:
                self.kill()
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        if self.send(signal.SIGKILL):
            self.wait_ended(30.0)

    @property
    def _said(self) -> Path:
        return self.folder / f"{self.name}.out"

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def _read_pid_file(self) -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = json.loads(self._pid_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return told

    def _tail(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
        return "it said nothing"


def start_time(pid: int) -> str | None:
    """What tells a process from another one that gets its pid later; None when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_time_by_ps(pid)
    # The name in brackets may hold anything, so fields are counted from its end: state is the first, start the 20th.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _start_time_by_ps(pid: int) -> str | None:
    done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = done.stdout.strip().partition(" ")
    return started.strip() if started and "Z" not in state else None


def wait_until(
    predicate: Callable[[], bool], timeout_s: float, what: str, detail: Callable[[], str] = lambda: ""
) -> None:
    """Look until ``predicate`` holds; UnavailableError naming ``what`` after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() >= deadline:
            more = detail()
            raise UnavailableError(f"waited {timeout_s:.0f} s for {what}{f': {more}' if more else ''}", field="timeout")
        time.sleep(LOOK_EVERY_S)


__all__ = ["LOOK_EVERY_S", "READY", "FleetProcess", "start_time", "wait_until"]

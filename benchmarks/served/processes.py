"""A real server process on the loopback: started over a folder, killed, started again, watched."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.jobs import SYNC_CALLS
from benchmarks.measure import Sampler, process_tree
from benchmarks.served.client import venv
from benchmarks.served.launch import HOST, launch
from benchmarks.setup_competitors import ROOT, interpreter
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize, free_ports

START_S = 60.0
LOOK_EVERY_S = 0.01
TRACE_ATTACH_S = 10.0
_SYNC = re.compile(r"^\d+\s+(\d+\.\d+) (?:" + "|".join(SYNC_CALLS) + r")\(")


class Server:
    """One server that is one process, or the parent of all of its processes."""

    def __init__(self, name: str, mode: str, folder: Path) -> None:
        self.folder = folder
        self._name = name
        self._mode = mode
        self._port = next(free_ports())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port`` of what the client connects to."""
        return f"{HOST}:{self._port}"

    def start(self) -> None:
        """Start it, and wait until its port takes connections."""
        python = interpreter(venv(self._name))
        told = launch(self._name, self._mode, self.folder, self._port, python)
        fresh = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        user = told.user if os.geteuid() == 0 else None
        if fresh and user is not None:
            shutil.chown(self.folder, user)
        if self._name == "redis-stack":
            _name_old_openssl(Path(told.environment["LD_LIBRARY_PATH"]))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **told.environment}
        with (self.folder.parent / "server.log").open("ab") as log:
            if fresh and told.first:
                subprocess.run(told.first, check=True, stdout=log, stderr=log, user=user, cwd=self.folder)
            self._process = subprocess.Popen(
                told.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                user=user,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self._port), timeout=1.0):
                return
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._name} does not start; its log is beside {self.folder.name}")
            time.sleep(LOOK_EVERY_S)

    def roots(self) -> list[int]:
        """The processes that all others of the server descend from."""
        return [] if self._process is None else [self._process.pid]

    def kill(self) -> None:
        """``kill -9`` of every process at once."""
        for pid in [member for root in self.roots() for member in process_tree(root)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop it as its operator would, and start it again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(START_S)
            self.kill()
        self.start()


class FleetServer:
    """OmenDB as a fleet: three coordinators, two routers, three data nodes, without TLS as the others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fleet = Fleet.make(folder, FleetSize(3, 2, 3), tls=False, usual_ports=False)

    @property
    def address(self) -> str:
        """Every router."""
        return ",".join(router.address("http") for router in self._fleet.plan.of("router"))

    def start(self) -> None:
        """Start all processes, and wait until they serve."""
        self._fleet.up()

    def roots(self) -> list[int]:
        """Every process of the fleet that runs."""
        return [state.pid for state in self._fleet.states() if state.pid is not None]

    def kill(self) -> None:
        """``kill -9`` of every process, one right after the other."""
        for state in self._fleet.states():
            if state.pid is not None:
                self._fleet.kill(state.name)

    def restart(self) -> None:
        """End it in order, and start it again."""
        self._fleet.down()
        self.start()


def make_server(name: str, mode: str, folder: Path) -> Server | FleetServer:
    """The server called ``name`` over ``folder``, not started."""
    return FleetServer(folder) if name == "omendb-fleet" else Server(name, mode, folder)


def _name_old_openssl(folder: Path) -> None:
    """Link OpenSSL 1.1 of the neighbour under the names that Redis was linked with."""
    for path in (folder.parent / "psycopg2_binary.libs").glob("*.so*"):
        folder.mkdir(exist_ok=True)
        plain = re.sub(r"-[0-9a-f]{8}\.so", ".so", path.name) if path.name.startswith(("libssl", "libcrypto")) else ""
        for name in {plain, path.name} - {""}:
            if not (folder / name).exists():
                (folder / name).symlink_to(path)


def resident_bytes(roots: list[int]) -> int:
    """The memory of all processes below ``roots``; a page that several share counts once (PSS)."""
    total = 0
    for pid in {member for root in roots for member in process_tree(root)}:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class PeakMemory(Sampler):
    """Samples a server's memory and keeps the peak."""

    def __init__(self, server: Server | FleetServer, interval_s: float = 0.5) -> None:
        super().__init__(interval_s)
        self.peak = 0
        self._server = server

    def sample(self) -> None:
        """Look once."""
        self.peak = max(self.peak, resident_bytes(self._server.roots()))


class SyncTrace:
    """strace on every process of a running server: when it called for a sync; a context manager."""

    def __init__(self, roots: list[int], out: Path) -> None:
        self._out = out
        self._members = [str(pid) for root in roots for pid in process_tree(root)]
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def possible() -> bool:
        """Whether there is an strace."""
        return shutil.which("strace") is not None

    def __enter__(self) -> Self:
        command = ["strace", "-f", "-ttt", "-o", str(self._out), "-e", f"trace={','.join(SYNC_CALLS)}"]
        members = [part for pid in self._members for part in ("-p", pid)]
        self._process = subprocess.Popen([*command, *members], stderr=subprocess.PIPE)
        # It says "attached" once for every process, and traces from then on.
        assert self._process.stderr is not None
        for _ in self._members:
            self._process.stderr.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.communicate(timeout=TRACE_ATTACH_S)

    def count(self, began: float, ended: float) -> int:
        """The sync calls between two moments of the wall clock."""
        text = self._out.read_text(encoding="utf-8", errors="replace") if self._out.exists() else ""
        return count_syncs_between(text, began, ended)


def count_syncs_between(trace: str, began: float, ended: float) -> int:
    """Count the sync calls of a trace that began between two moments, those that wait for nothing left out."""
    found = (_SYNC.match(line) for line in trace.splitlines() if "MS_ASYNC" not in line)
    return sum(1 for one in found if one and began <= float(one[1]) <= ended)

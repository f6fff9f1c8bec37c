"""Real members: processes with files and mutual TLS, killed and stopped while clients write.

The parent talks to each of them in lines: ``P <command>`` proposes, ``R`` reads an index, ``D`` dumps what was applied.
An answer begins with the number that the question began with.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omendb_chaos.raft.checks import Violation
from omendb_common.clock import SystemClock
from omendb_common.disk import RealDisk
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.security.dev_certificates import DevAuthority
from omendb_coordinator.consensus.group import RaftGroup
from omendb_coordinator.consensus.settings import RaftSettings
from omendb_coordinator.consensus.tls import ROLE, RaftTls

MEMBERS = ("c1", "c2", "c3")
WRITERS = 8
_ANSWER_S = 4.0
_HEALED_S = 60.0
_LINE_BYTES_MAX = 64 << 20


# -- the child


@dataclass(slots=True)
class _Applied:
    """Every command, in order."""

    items: list[str] = field(default_factory=list)

    def apply(self, index: int, command: bytes) -> bytes:
        self.items.append(command.decode())
        return b""

    def snapshot(self) -> bytes:
        return json.dumps(self.items).encode()

    def restore(self, data: bytes, index: int) -> None:
        self.items = json.loads(data)


async def _serve(options: dict[str, Any]) -> None:
    machine = _Applied()
    group = RaftGroup(
        RealDisk(),
        options["folder"],
        options["node_id"],
        {name: (host, port) for name, (host, port) in options["peers"].items()},
        machine,
        settings=RaftSettings(
            election_min_s=0.4, election_max_s=0.8, snapshot_entries=300, keep_entries=50, chunk_bytes=4096
        ),
        tls=RaftTls.from_files(*options["tls"]),
        bootstrap=True,
    )
    await group.start()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        number, what, *rest = line.decode().split()
        task = asyncio.create_task(_answer(group, machine, number, what, rest))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await group.stop()


async def _answer(group: RaftGroup, machine: _Applied, number: str, what: str, rest: list[str]) -> None:
    answer: Any
    try:
        if what == "P":
            answer = (await group.propose(rest[0].encode(), _ANSWER_S)).index
        elif what == "R":
            answer = await group.read_index(_ANSWER_S)
        else:
            status = group.status
            answer = [status.role, status.applied_index, status.last_index, machine.items]
    except OmenDBError as error:
        unknown = isinstance(error, UnavailableError) and error.outcome == "unknown"
        answer = "unknown" if unknown else "none"
    sys.stdout.write(f"{number} {json.dumps(answer)}\n")
    sys.stdout.flush()


# -- the parent


@dataclass(slots=True)
class Tally:
    """What happened in a run."""

    acknowledged: int = 0
    reads: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class _Child:
    """One member's process, started again and again on the same folder."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._numbers = 0
        self.errors = b""

    @property
    def up(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        code = "import asyncio, json, sys; from omendb_chaos.raft import processes; "
        code += "asyncio.run(processes._serve(json.loads(sys.argv[1])))"
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, json.dumps(self._options)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES_MAX,
        )
        self._listener = asyncio.create_task(self._listen(self._process), name="answers")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            number, _, answer = line.decode().partition(" ")
            future = self._waiting.pop(number, None)
            if future is not None and not future.done():
                future.set_result(json.loads(answer))

    async def ask(self, what: str, timeout_s: float = 2 * _ANSWER_S) -> Any:
        """The answer, or "unknown" when none comes."""
        process = self._process
        if process is None or process.stdin is None:
            return "none"
        self._numbers += 1
        number = str(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        with suppress(OSError, TimeoutError):
            process.stdin.write(f"{number} {what}\n".encode())
            async with asyncio.timeout(timeout_s):
                return await future
        self._waiting.pop(number, None)
        return "unknown"

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        ended_itself = process.returncode
        if ended_itself is None:
            process.kill()
        assert process.stderr is not None
        complaints = await process.stderr.read()
        await process.wait()
        if self._listener is not None:
            await self._listener
        for future in self._waiting.values():
            if not future.done():
                future.set_result("unknown")
        self._waiting.clear()
        if ended_itself is not None:
            raise Violation(f"{self._options['node_id']} ended itself with {ended_itself}: {complaints[-2000:]!r}")


class _Run:
    def __init__(self, children: dict[str, _Child], rng: random.Random) -> None:
        self._children = children
        self._rng = rng
        self._commands = 0
        self._acknowledged: dict[str, int] = {}
        self._never: set[str] = set()
        self._acknowledged_to = 0
        self._ending = False
        self.tally = Tally()

    async def run(self, seconds: float) -> None:
        """Write and read while things go wrong, then see what everybody has."""
        for child in self._children.values():
            await child.start()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(self._write())
            tasks.create_task(self._read())
            await self._break_things(seconds)
            self._ending = True
        await self._compare()

    async def _write(self) -> None:
        while not self._ending:
            self._commands += 1
            command = f"{self._commands}"
            answer = await self._rng.choice(list(self._children.values())).ask(f"P {command}")
            if isinstance(answer, int):
                self._acknowledged[command] = answer
                self._acknowledged_to = max(self._acknowledged_to, answer)
                self.tally.acknowledged += 1
            elif answer == "none":
                self._never.add(command)
                await asyncio.sleep(0.01)

    async def _read(self) -> None:
        while not self._ending:
            floor = self._acknowledged_to
            answer = await self._rng.choice(list(self._children.values())).ask("R")
            if isinstance(answer, int):
                self.tally.reads += 1
                if answer < floor:
                    raise Violation(f"a read at {answer}, after entry {floor} was acknowledged")
            await asyncio.sleep(0.01)

    async def _break_things(self, seconds: float) -> None:
        rng, children = self._rng, list(self._children.values())
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_HEALED_S):
            # Python takes its time to start, and that is not what is tried here.
            while not self._acknowledged:
                await asyncio.sleep(0.05)
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(rng.uniform(0.5, 3.0))
            kind = rng.choice(("kill -9", "kill -9", "SIGSTOP", "SIGSTOP", "kill -9 of all"))
            self.tally.faults[kind] += 1
            if kind == "SIGSTOP":
                child = rng.choice(children)
                child.signal(signal.SIGSTOP)
                await asyncio.sleep(rng.uniform(0.1, 1.5))
                child.signal(signal.SIGCONT)
                continue
            for child in children if kind == "kill -9 of all" else [rng.choice(children)]:
                await child.kill()
            await asyncio.sleep(rng.choice((0.0, 0.3, 1.0)))
            for child in children:
                if not child.up:
                    await child.start()

    async def _compare(self) -> None:
        """All members come to the same state, which has everything that was acknowledged, once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _HEALED_S
        stands: list[Any] = []
        while loop.time() < deadline:
            stands = [await child.ask("D") for child in self._children.values()]
            whole = all(isinstance(stand, list) for stand in stands)
            if whole and "leader" in {s[0] for s in stands} and len({(s[1], s[2]) for s in stands}) == 1:
                break
            await asyncio.sleep(0.1)
        else:
            raise Violation(f"no agreement after {_HEALED_S} s: {[s[:3] for s in stands]}")
        items = stands[0][3]
        if any(stand[3] != items for stand in stands):
            raise Violation("the members have different states")
        if len(set(items)) != len(items):
            raise Violation(f"{len(items) - len(set(items))} commands were applied twice")
        lost = set(self._acknowledged) - set(items)
        if lost:
            raise Violation(f"{len(lost)} acknowledged commands are gone, {min(lost)} among them")
        if self._never & set(items):
            raise Violation(f"{min(self._never & set(items))} was applied, its client was told that it never would be")


async def _run_all(seed: int, seconds: float) -> Tally:
    with tempfile.TemporaryDirectory(prefix="omendb-raft-") as folder:
        clock = SystemClock()
        authority = DevAuthority.open(Path(folder, "ca"), "chaos", clock)
        sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in MEMBERS}
        peers = {name: sock.getsockname()[:2] for name, sock in sockets.items()}
        for sock in sockets.values():
            sock.close()
        children = {}
        for name in MEMBERS:
            files = authority.issue(ROLE, name, clock)
            tls = (files.ca, files.cert, files.key)
            children[name] = _Child({"folder": f"{folder}/{name}", "node_id": name, "peers": peers, "tls": tls})
        run = _Run(children, random.Random(seed))
        try:
            await run.run(seconds)
        finally:
            for child in children.values():
                child.signal(signal.SIGCONT)
                await child.kill()
        return run.tally


def torment(seed: int, seconds: float) -> Tally:
    """Three members for so many seconds of faults. Violation when a promise was broken."""
    return asyncio.run(_run_all(seed, seconds))


__all__ = ["MEMBERS", "WRITERS", "Tally", "torment"]

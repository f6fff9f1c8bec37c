"""A real member of a Raft group: a process with files and mutual TLS, to be killed and stopped.

Its parent talks to it in lines: ``P <command>`` proposes, ``R`` reads an index, ``S`` asks how it stands, ``D`` dumps
what was applied. An answer begins with the number that the question began with.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from omendb_chaos.raft.checks import Violation
from omendb_common.clock import SystemClock
from omendb_common.disk import RealDisk
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.security.dev_certificates import DevAuthority
from omendb_coordinator.consensus.group import RaftGroup
from omendb_coordinator.consensus.settings import RaftSettings
from omendb_coordinator.consensus.tls import ROLE, RaftTls

MEMBERS = ("c1", "c2", "c3")
ANSWER_S = 4.0
_LINE_BYTES_MAX = 64 << 20
Address = tuple[str, int]


class MemberStatus(NamedTuple):
    """How a member says that it stands."""

    role: str
    applied: int
    last: int


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
        settings=RaftSettings(**options["settings"]),
        tls=RaftTls.from_files(*options["tls"]),
        bootstrap=True,
        # Relays in between give each member other addresses of its peers, from which the name is made otherwise.
        cluster_id="chaos",
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
            answer = (await group.propose(rest[0].encode(), ANSWER_S)).index
        elif what == "R":
            answer = await group.read_index(ANSWER_S)
        elif what == "S":
            status = group.status
            answer = [status.role, status.applied_index, status.last_index]
        else:
            answer = [group.status.applied_index, machine.items]
    except OmenDBError as error:
        unknown = isinstance(error, UnavailableError) and error.outcome == "unknown"
        answer = "unknown" if unknown else "none"
    sys.stdout.write(f"{number} {json.dumps(answer)}\n")
    sys.stdout.flush()


# -- the parent


class MemberProcess:
    """One member's process, started again and again on the same folder."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self.node_id = str(options["node_id"])
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._numbers = 0

    @property
    def up(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    async def start(self) -> None:
        """Start it; does not wait until it serves."""
        code = "import asyncio, json, sys; from omendb_chaos.raft import member_process; "
        code += "asyncio.run(member_process._serve(json.loads(sys.argv[1])))"
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

    async def ask(self, what: str, timeout_s: float = 2 * ANSWER_S) -> Any:
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

    async def status(self) -> MemberStatus | None:
        """How it stands; None when it does not say."""
        answer = await self.ask("S")
        return MemberStatus(*answer) if isinstance(answer, list) else None

    def signal(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP."""
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
            raise Violation(f"{self.node_id} ended itself with {ended_itself}: {complaints[-2000:]!r}")


@asynccontextmanager
async def members(
    settings: Mapping[str, Any],
    names: tuple[str, ...] = MEMBERS,
    dialled: Callable[[str, str, Address], Address] = lambda who, whom, address: address,
) -> AsyncIterator[dict[str, MemberProcess]]:
    """A group that is not started yet, in a folder that goes when it ends.

    Args:
        settings: those of ``RaftSettings`` that are not the default.
        dialled: where the first member dials the second, which listens at the address.
    """
    with tempfile.TemporaryDirectory(prefix="omendb-raft-") as folder:
        clock = SystemClock()
        authority = DevAuthority.open(Path(folder, "ca"), "chaos", clock)
        sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
        listens: dict[str, Address] = {name: sock.getsockname()[:2] for name, sock in sockets.items()}
        for sock in sockets.values():
            sock.close()
        group = {}
        for name in names:
            files = authority.issue(ROLE, name, clock)
            peers = {other: dialled(name, other, at) if other != name else at for other, at in listens.items()}
            options = {"folder": f"{folder}/{name}", "node_id": name, "peers": peers, "settings": dict(settings)}
            group[name] = MemberProcess(options | {"tls": (files.ca, files.cert, files.key)})
        try:
            yield group
        finally:
            for member in group.values():
                member.signal(signal.SIGCONT)
                await member.kill()


__all__ = ["ANSWER_S", "MEMBERS", "Address", "MemberProcess", "MemberStatus", "members"]

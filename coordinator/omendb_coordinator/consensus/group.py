"""A member of a Raft group on an event loop: timers, a thread for the disk, and the seam that the catalog uses.

::

    group = RaftGroup(
        RealDisk(),
        "data/raft",
        "c1",
        {"c1": ("10.0.0.1", 7701), "c2": ("10.0.0.2", 7701), "c3": ("10.0.0.3", 7701)},
        machine,                # a StateMachine
        listen=("0.0.0.0", 7701),
        settings=RaftSettings(),
        tls=RaftTls.from_files(ca, cert, key),
        bootstrap=True,         # the very first time; rejoin=True after the disk was lost
    )
    await group.start()
    committed = await group.propose(b"...", timeout_s=5.0)

One member is a group too: it only keeps a durable log, and listens nowhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal, TypeVar

from omendb_common.clock import Clock, SystemClock
from omendb_common.disk import Disk, RealDisk
from omendb_common.errors import InvalidArgumentError, OmenDBError, Outcome, ResourceExhaustedError, UnavailableError
from omendb_coordinator.consensus.core import RaftCore
from omendb_coordinator.consensus.frames import Greeting
from omendb_coordinator.consensus.identity import Identity, cluster_id_of
from omendb_coordinator.consensus.lock import FolderLock
from omendb_coordinator.consensus.member import Member, Proposal, Read
from omendb_coordinator.consensus.messages import Message
from omendb_coordinator.consensus.seam import (
    COMMAND_BYTES_MAX,
    Committed,
    ConsensusStatus,
    NotLeaderError,
    StateMachine,
)
from omendb_coordinator.consensus.settings import RaftSettings
from omendb_coordinator.consensus.storage import Storage
from omendb_coordinator.consensus.tls import RaftTls
from omendb_coordinator.consensus.transport import Address, Deliver, Introduction, TcpTransport, Transport

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

INBOX_MAX = 4096
WAITING_MAX = 10_000
EXIT_CODE = 70


def end_process(error: BaseException) -> None:
    """The default answer to a state that must not be served: end at once, and let whoever supervises start anew."""
    _log.critical("this member cannot go on: %r", error)
    os._exit(EXIT_CODE)


class RaftGroup:
    """See the module; implements ``seam.Consensus``.

    Args:
        disk: where ``folder`` is; one member per folder.
        peers: id and address of every member, this one too. The ids never change, the addresses may.
        listen: where this member listens for the others; its own address in ``peers`` when None.
        tls: None sends everything readable and believes everybody's name: for tests and a closed host only.
        bootstrap: make the folder if no member lives there; harmless on later starts.
        rejoin: make the folder for a member that lost it: it catches up before it votes again.
        cluster_id: the cluster's name, checked against the folder and the other members; made from ``peers``, as they
            are when the folder is made, when None.
        on_fatal: called once when this member must not go on; by default the process ends.
        on_save: called with the seconds that each visit to the disk took, for metrics; must not raise.
        transport: in the place of TCP, in tests; called with how this member introduces itself.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        node_id: str,
        peers: Mapping[str, Address],
        machine: StateMachine,
        *,
        listen: Address | None = None,
        settings: RaftSettings | None = None,
        tls: RaftTls | None = None,
        bootstrap: bool = False,
        rejoin: bool = False,
        cluster_id: str | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        on_fatal: Callable[[BaseException], None] = end_process,
        on_save: Callable[[float], None] = lambda _: None,
        transport: Callable[[Introduction], Transport] | None = None,
    ) -> None:
        if node_id not in peers:
            raise InvalidArgumentError(f"{node_id} is not one of {', '.join(peers)}", field="node_id")
        if bootstrap and rejoin:
            raise InvalidArgumentError("a group is made once; a member rejoins it later", field="rejoin")
        self._disk = disk
        self._folder = folder
        self._node_id = node_id
        self._peers = dict(peers)
        self._machine = machine
        self._listen = listen if listen is not None else peers[node_id]
        self._settings = settings if settings is not None else RaftSettings()
        self._tls = tls
        self._bootstrap = bootstrap
        self._rejoin = rejoin
        self._cluster_id = cluster_id
        self._clock = clock if clock is not None else SystemClock()
        self._rng = rng if rng is not None else random.SystemRandom()
        self._on_fatal = on_fatal
        self._on_save = on_save
        self._make_transport = transport if transport is not None else self._tcp
        self._inbox: deque[tuple[str, Message]] = deque()
        self._proposals: deque[Proposal] = deque()
        self._reads: deque[Read] = deque()
        self._wake = asyncio.Event()
        self._save_wake = asyncio.Event()
        self._callbacks: list[Callable[[ConsensusStatus], None]] = []
        self._told: tuple[object, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []
        self._executor: ThreadPoolExecutor | None = None
        self._lock: FolderLock | None = None
        self._storage: Storage | None = None
        self._transport: Transport | None = None
        self._member: Member | None = None
        self._ended = "not started"

    # -- the seam

    async def start(self) -> None:
        """See ``Consensus``.

        Raises:
            InvalidArgumentError: no member lives in the folder, or another one.
            CorruptionError: something in it is missing or damaged that must not be guessed.
            DatabaseLockedError: another process runs this member.
            OSError: the address cannot be listened on.
        """
        self._executor = ThreadPoolExecutor(1, f"raft-disk-{self._node_id}")
        loop = asyncio.get_running_loop()
        try:
            storage = self._storage = await loop.run_in_executor(self._executor, self._open)
            core = RaftCore(
                self._node_id, storage.identity.members, self._settings, self._rng, self._now(), storage.recovered
            )
            self._transport = self._make_transport(Introduction(storage.identity, self._settings.election_max_s))
            self._member = Member(core, storage, self._machine, self._settings, self._transport.send)
            await self._transport.start(self._deliver)
        except BaseException:
            await self._close()
            raise
        self._ended = ""
        self._tasks = [
            asyncio.create_task(self._guard(self._turns, self._member), name="raft turns"),
            asyncio.create_task(self._guard(self._saves, self._member), name="raft saves"),
        ]

    async def stop(self) -> None:
        """See ``Consensus``. Another member is asked to lead first, if this one does."""
        if self._member is not None and not self._ended and self.status.role == "leader" and len(self._peers) > 1:
            self._member.hand_over(self._now())
            self._save_wake.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.election_min_s):
                    while self.status.role == "leader" and not self._ended:
                        await asyncio.sleep(self._settings.heartbeat_s / 4)
        self._end("this member is stopping")
        await self._close()

    async def propose(self, command: bytes, timeout_s: float) -> Committed:
        """See ``Consensus``."""
        if len(command) > COMMAND_BYTES_MAX:
            raise InvalidArgumentError(
                f"{len(command)} bytes", field="command", bound=f"at most {COMMAND_BYTES_MAX} bytes"
            )
        member = self._running()
        if member.status.role != "leader":
            raise NotLeaderError(member.status.leader)
        if len(self._proposals) >= WAITING_MAX:
            raise ResourceExhaustedError(f"{WAITING_MAX} commands wait", field="coordinator")
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._proposals.append(Proposal(command, _settle(future)))
        self._wake.set()
        return await self._wait(future, timeout_s, "unknown")

    async def read_index(self, timeout_s: float) -> int:
        """See ``Consensus``."""
        member = self._running()
        if member.status.role != "leader":
            raise NotLeaderError(member.status.leader)
        if len(self._reads) >= WAITING_MAX:
            raise ResourceExhaustedError(f"{WAITING_MAX} reads wait", field="coordinator")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reads.append(Read(_settle(future)))
        self._wake.set()
        return await self._wait(future, timeout_s, "none")

    @property
    def status(self) -> ConsensusStatus:
        """See ``Consensus``; UnavailableError before the start."""
        if self._member is None:
            raise UnavailableError(self._ended, field="coordinator")
        return self._member.status

    def on_change(self, callback: Callable[[ConsensusStatus], None]) -> None:
        """See ``Consensus``. Called soon after, on the event loop; what it raises goes to the loop's handler."""
        self._callbacks.append(callback)

    @property
    def address(self) -> Address:
        """Where this member listens for the others."""
        return self._transport.address if isinstance(self._transport, TcpTransport) else self._listen

    # -- start and end

    def _open(self) -> Storage:
        """Make the folder if that is wanted, and read it. Runs in the disk's thread."""
        members = tuple(sorted(self._peers))
        if self._bootstrap or self._rejoin:
            self._disk.mkdir(self._folder)
        if isinstance(self._disk, RealDisk) and self._disk.exists(self._folder):
            self._lock = FolderLock(self._folder)
        if (self._bootstrap or self._rejoin) and not Storage.exists(self._disk, self._folder):
            cluster_id = self._cluster_id or cluster_id_of(self._peers)
            birth = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
            origin: Literal["bootstrap", "rejoin"] = "rejoin" if self._rejoin else "bootstrap"
            Storage.create(self._disk, self._folder, Identity(cluster_id, self._node_id, members, birth, origin))
        storage = Storage.open(self._disk, self._folder)
        try:
            storage.identity.check(self._node_id, members, self._cluster_id, self._folder)
        except OmenDBError:
            storage.close()
            raise
        return storage

    def _tcp(self, introduction: Introduction) -> Transport:
        others = {peer: address for peer, address in self._peers.items() if peer != self._node_id}
        if not others:
            return _Alone()
        return TcpTransport(introduction, others, self._listen, self._tls, self._admit, self._rng)

    async def _admit(self, greeting: Greeting) -> bool:
        assert self._storage is not None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._executor, self._storage.meet, greeting.sender, greeting.birth, greeting.origin
            )
        except OSError as error:
            self._fail(error)
            raise

    def _end(self, why: str) -> None:
        """Serve nothing from now on."""
        if not self._ended:
            self._ended = why
        if self._member is not None:
            self._member.abandon(why)
        for proposal in self._proposals:
            proposal.done(UnavailableError(why, field="coordinator"))
        self._proposals.clear()
        for read in self._reads:
            read.done(UnavailableError(why, field="coordinator"))
        self._reads.clear()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._transport is not None:
            await self._transport.stop()
        if self._executor is not None:
            # A write under way is waited for: its file must not be closed under it.
            await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
        if self._storage is not None:
            self._storage.close()
        if self._lock is not None:
            self._lock.release()

    # -- the loops

    def _now(self) -> float:
        return self._clock.mono_s()

    def _running(self) -> Member:
        if self._ended or self._member is None:
            raise UnavailableError(self._ended, field="coordinator")
        return self._member

    def _deliver(self, sender: str, message: Message) -> None:
        # A member that cannot keep up loses messages, like a network that is too busy.
        if len(self._inbox) < INBOX_MAX:
            self._inbox.append((sender, message))
            self._wake.set()

    async def _guard(self, work: Callable[[Member], Coroutine[Any, Any, None]], member: Member) -> None:
        """Run a loop; whatever it raises ends this member for good."""
        try:
            await work(member)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Serve nothing any more, and say why, once."""
        if not self._ended:
            self._end(f"this member failed: {error!r}")
            # Not one more message: what it says from now on may be wrong.
            for task in self._tasks:
                if task is not asyncio.current_task():
                    task.cancel()
            self._on_fatal(error)

    async def _turns(self, member: Member) -> None:
        """Hand events to the member, in the order in which they came, and the time last."""
        tick_s = self._settings.heartbeat_s / 2
        before = self._now()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self._wake.wait()
            self._wake.clear()
            if self._now() - before > 4 * tick_s:
                # The process was held up. What arrived meanwhile must be heard before anybody judges by the time.
                for _ in range(3):
                    await asyncio.sleep(0)
            before = self._now()
            self._turn(member)

    def _turn(self, member: Member) -> None:
        while self._inbox:
            sender, message = self._inbox.popleft()
            member.on_message(sender, message, self._now())
        if self._proposals:
            proposals = list(self._proposals)
            self._proposals.clear()
            member.propose(proposals, self._now())
        if self._reads:
            reads = list(self._reads)
            self._reads.clear()
            member.read(reads, self._now())
        member.on_tick(self._now())
        self._save_wake.set()
        self._tell()

    async def _saves(self, member: Member) -> None:
        """Do what takes its turn: the disk in its thread, everything that waits for one sync together."""
        loop = asyncio.get_running_loop()
        while True:
            job = member.begin()
            if job is None:
                await self._save_wake.wait()
                self._save_wake.clear()
                continue
            if job.needs_disk:
                started = self._now()
                await loop.run_in_executor(self._executor, job.run)
                self._on_save(self._now() - started)
            member.end(job, self._now())
            self._tell()

    def _tell(self) -> None:
        status = self.status
        news = (status.role, status.term, status.leader)
        if news != self._told:
            self._told = news
            _log.info("%s is %s in term %d, led by %s", status.node_id, *news)
            loop = asyncio.get_running_loop()
            for callback in self._callbacks:
                loop.call_soon(callback, status)

    async def _wait(self, future: asyncio.Future[_T], timeout_s: float, outcome: Outcome) -> _T:
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise UnavailableError(
                f"no majority answered in {timeout_s:g} s", field="coordinator", outcome=outcome
            ) from None


class _Alone:
    """The transport of a group of one."""

    async def start(self, deliver: Deliver) -> None:
        """See ``Transport``."""

    def send(self, to: str, message: Message) -> None:
        """See ``Transport``."""

    async def stop(self) -> None:
        """See ``Transport``."""


def _settle(future: asyncio.Future[_T]) -> Callable[[_T | OmenDBError], None]:
    """What tells a caller, unless it has gone away; never raises."""

    def done(result: _T | OmenDBError) -> None:
        if future.done() or future.get_loop().is_closed():
            return
        if isinstance(result, OmenDBError):
            future.set_exception(result)
        else:
            future.set_result(result)

    return done


__all__ = ["EXIT_CODE", "RaftGroup", "end_process"]

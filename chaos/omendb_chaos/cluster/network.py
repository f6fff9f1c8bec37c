"""The network between the processes of a simulated cluster: every direction of every pair is a link of its own.

A message may be lost, come twice, late, or out of order; a link may be cut. What has left arrives whether or not its
sender still waits. A sender hears of a broken connection sometimes, sooner or later, and sometimes not at all.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from omendb_chaos.cluster.processes import Process, ProcessLoop
from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, UnavailableError
from omendb_common.shard_calls import (
    Applied,
    Apply,
    Entries,
    Listed,
    Looked,
    Lookup,
    Maintain,
    Maintained,
    Repair,
    Score,
    Scored,
    Scroll,
    Scrolled,
    Search,
    Select,
    Selected,
    ShardHits,
    Summed,
    Sums,
    Verdict,
)


class Server(Protocol):
    """Who answers calls."""

    async def ask(self, kind: str, call: Any, deadline: Deadline) -> Any:
        """Answer a call, or raise an error that its caller is to see."""


@dataclass(slots=True)
class Link:
    """One direction between two places. Shares are probabilities per message, delays uniform in seconds.

    ``late``: the share of messages that are ``late_s`` late beside their delay.
    """

    cut: bool = False
    loss: float = 0.0
    twice: float = 0.0
    delay_s: tuple[float, float] = (0.0002, 0.002)
    late: float = 0.0
    late_s: float = 0.5


@dataclass(slots=True)
class _Place:
    """Where calls arrive: the process that serves, its clock, and who waits for its answers."""

    process: Process
    server: Server
    clock: Clock
    waiting: dict[int, _Call] = field(default_factory=dict)


@dataclass(slots=True)
class _Call:
    number: int
    source: str
    target: str
    kind: str
    what: Any
    left_s: float
    answer: asyncio.Future[Any]
    served: asyncio.Task[None] | None = None
    refused: bool = False


class Network:
    """Calls between named places. ``note`` is told of everything that happens, in order."""

    def __init__(self, loop: ProcessLoop, rng: random.Random, note: Callable[..., None]) -> None:
        self.calm = Link()
        self.counts: Counter[str] = Counter()
        self.drops: Callable[[str, str], bool] = lambda kind, target: False
        """Asked of every call, by its kind and target, whether it is lost on its way beside those that links lose."""
        self.sees: Callable[[str, str, str], None] = lambda source, kind, target: None
        """Told of every call when it is made."""
        self._loop = loop
        self._rng = rng
        self._note = note
        self._places: dict[str, _Place] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._number = 0

    # -- places and links

    def serve(self, process: Process, server: Server, clock: Clock) -> None:
        """Let ``server`` answer what arrives at the process's place."""
        self._places[process.name] = _Place(process, server, clock)

    def gone(self, name: str) -> None:
        """The process there died: connections break, nobody listens."""
        place = self._places.pop(name, None)
        if place is None:
            return
        for call in list(place.waiting.values()):
            self._tell(call, UnavailableError("connection reset", field=name, outcome="unknown"))

    def serving(self, name: str) -> bool:
        """Whether somebody listens there."""
        return name in self._places

    def link(self, source: str, target: str) -> Link:
        """The link from one place to another, to be changed."""
        key = source, target
        if key not in self._links:
            calm = self.calm
            self._links[key] = Link(calm.cut, calm.loss, calm.twice, calm.delay_s, calm.late, calm.late_s)
        return self._links[key]

    def every(self, places: Iterable[str], link: Link) -> None:
        """Make all links between these places like this one, as those are that nobody mentioned yet."""
        self.calm = link
        known = list(places)
        for source in known:
            for target in known:
                if source != target:
                    self._links[source, target] = Link(
                        self.link(source, target).cut, link.loss, link.twice, link.delay_s, link.late, link.late_s
                    )

    def heal(self) -> None:
        """Good links everywhere."""
        self.calm = Link()
        self.drops = lambda kind, target: False
        self._links.clear()

    # -- calls

    async def call(
        self, source: Process, target: str, kind: str, what: Any, deadline: Deadline, *, hang_up: bool = False
    ) -> Any:
        """Ask a place.

        Args:
            hang_up: a client's call: it is never sent twice by the transport (a client that repeats a write says so),
                and who gives up breaks the connection, which the other side notices.

        Raises:
            UnavailableError: outcome "none" when certainly nothing arrived, else "unknown".
        """
        self.counts[kind] += 1
        self.sees(source.name, kind, target)
        if not source.alive:
            raise UnavailableError("this process has ended", field=source.name, outcome="none")
        self._number += 1
        call = _Call(self._number, source.name, target, kind, what, deadline.left_s, self._loop.create_future())
        place = self._places.get(target)
        link = self.link(source.name, target)
        if place is None and not link.cut:
            refused = UnavailableError("connection refused", field=target, outcome="none")
            self._loop.outside(self._travel(link), _settle, call.answer, refused)
        elif place is None or not self._send(call, link, place, again=not hang_up):
            self._broken_some_day(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            if hang_up and place is not None:
                self._loop.outside(self._travel(link), self._hung_up, call)
            raise

    def _send(self, call: _Call, link: Link, place: _Place, *, again: bool) -> bool:
        """Put a call on its way, maybe twice; whether it can arrive."""
        if link.cut or self._rng.random() < link.loss or self.drops(call.kind, call.target):
            self._note("lost", call.kind, call.source, call.target)
            return False
        place.waiting[call.number] = call
        self._loop.outside(self._travel(link), self._arrive, call, place)
        if again and link.twice and self._rng.random() < link.twice:
            # A copy of what was done may come much later. Not of what was refused: no transport sends a call again
            # that was answered, so whoever asked takes that for certain. The answer to a second copy is nobody's.
            self._loop.outside(self._travel(link) + self._travel(link), self._arrive, call, place)
        return True

    def _travel(self, link: Link) -> float:
        seconds = self._rng.uniform(*link.delay_s)
        if link.late and self._rng.random() < link.late:
            seconds += self._rng.random() * link.late_s
        return seconds

    def _broken_some_day(self, call: _Call) -> None:
        """Nobody answers: the caller may find the connection broken before it gives up."""
        if self._rng.random() < 0.5:
            lost = UnavailableError("connection lost", field=call.target, outcome="unknown")
            self._loop.outside(self._rng.random() * call.left_s, _settle, call.answer, lost)

    def _arrive(self, call: _Call, place: _Place) -> None:
        if self._places.get(call.target) is not place:
            return  # it died; who waited was told
        if call.refused:
            return
        if self.link(call.source, call.target).cut:
            place.waiting.pop(call.number, None)
            self._broken_some_day(call)
            return
        self._note("arrives", call.kind, call.source, call.target)
        served = place.process.spawn(self._serve(call, place, again=call.served is not None))
        call.served = call.served or served

    async def _serve(self, call: _Call, place: _Place, *, again: bool) -> None:
        deadline = Deadline.after(place.clock, call.left_s)
        try:
            answer = await place.server.ask(call.kind, call.what, deadline)
        except OmenDBError as error:
            answer, call.refused = error, True
        call.refused = call.refused or getattr(answer, "verdict", Verdict.OK) is not Verdict.OK
        if place.process.alive and not again:
            place.waiting.pop(call.number, None)
            self._tell(call, answer)

    def _tell(self, call: _Call, answer: Any) -> None:
        """Send an answer back."""
        link = self.link(call.target, call.source)
        if link.cut or self._rng.random() < link.loss:
            self._note("answer lost", call.kind, call.target, call.source)
            self._broken_some_day(call)
            return
        self._loop.outside(self._travel(link), self._answered, call, answer)

    def _answered(self, call: _Call, answer: Any) -> None:
        if self.link(call.target, call.source).cut:
            self._broken_some_day(call)
            return
        self._note("answer", call.kind, call.target, call.source, _in_words(answer))
        _settle(call.answer, answer)

    def _hung_up(self, call: _Call) -> None:
        if call.served is not None and not call.served.done():
            call.served.cancel()


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, OmenDBError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _in_words(answer: Any) -> str:
    if isinstance(answer, OmenDBError):
        return f"{type(answer).__name__} {getattr(answer, 'outcome', '')}"
    verdict = getattr(answer, "verdict", None)
    return "" if verdict is None else str(int(verdict))


class RemoteNode:
    """A :class:`~omendb_common.shard_calls.DataNode` at the other end of the network, as ``source`` calls it."""

    def __init__(self, network: Network, source: Process, target: str) -> None:
        self._network = network
        self._source = source
        self._target = target

    async def _ask(self, kind: str, call: Any, deadline: Deadline) -> Any:
        return await within(deadline, self._network.call(self._source, self._target, kind, call, deadline))

    async def apply(self, call: Apply, deadline: Deadline) -> Applied:
        """See ``DataNode``, as all that follow."""
        applied: Applied = await self._ask("apply", call, deadline)
        return applied

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        """Search."""
        hits: ShardHits = await self._ask("search", call, deadline)
        return hits

    async def lookup(self, call: Lookup, deadline: Deadline) -> Looked:
        """Look ids up."""
        looked: Looked = await self._ask("lookup", call, deadline)
        return looked

    async def score(self, call: Score, deadline: Deadline) -> Scored:
        """Score ids."""
        scored: Scored = await self._ask("score", call, deadline)
        return scored

    async def repair(self, call: Repair, deadline: Deadline) -> Applied:
        """Bring records up to date."""
        applied: Applied = await self._ask("repair", call, deadline)
        return applied

    async def scroll(self, call: Scroll, deadline: Deadline) -> Scrolled:
        """Read a page."""
        page: Scrolled = await self._ask("scroll", call, deadline)
        return page

    async def select(self, call: Select, deadline: Deadline) -> Selected:
        """Resolve a filter."""
        selected: Selected = await self._ask("select", call, deadline)
        return selected

    async def maintain(self, call: Maintain, deadline: Deadline) -> Maintained:
        """Do or tell something about a replica."""
        maintained: Maintained = await self._ask("maintain", call, deadline)
        return maintained

    async def sums(self, call: Sums, deadline: Deadline) -> Summed:
        """Tell values of the hash tree."""
        summed: Summed = await self._ask("sums", call, deadline)
        return summed

    async def entries(self, call: Entries, deadline: Deadline) -> Listed:
        """List records by the hash tree."""
        found: Listed = await self._ask("entries", call, deadline)
        return found


async def within(deadline: Deadline, work: Any) -> Any:
    """What ``work`` answers before the deadline; DeadlineExceededError when it does not."""
    try:
        async with asyncio.timeout(deadline.left_s):
            return await work
    except TimeoutError:
        raise DeadlineExceededError("no answer in time", field="timeout", outcome="unknown") from None


__all__ = ["Link", "Network", "RemoteNode", "Server", "within"]

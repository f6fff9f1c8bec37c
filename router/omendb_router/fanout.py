"""Calls to many data nodes at once: owned by the router, bounded, hedged, and ended by their deadline (P17, P20).

No call here raises: what became of it is a value, :class:`Heard` or :class:`Unheard`.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.shard_calls import DataNode, Verdict
from omendb_common.topology import Topology
from omendb_router.health import Circuit, NodeHealth, RetryBudget
from omendb_router.nodes import NodePool
from omendb_router.settings import RouterSettings


class Answer(Protocol):
    """What every answer of a data node has."""

    @property
    def verdict(self) -> Verdict:
        """What the replica said."""

    @property
    def error(self) -> OmenDBError | None:
        """Why it refused."""


A = TypeVar("A", bound=Answer)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heard(Generic[A]):
    """A node's answer, whatever its verdict."""

    node_id: str
    answer: A


@dataclass(frozen=True, slots=True)
class Unheard:
    """No answer. ``sent``: the node may have got the call all the same."""

    node_id: str
    error: OmenDBError
    sent: bool


Make = Callable[[str, DataNode], Awaitable[A]]
"""Calls one node: gets its id and its client."""
Observe = Callable[[str, float, int], None]
"""Told of every answer's clock: node, our wall milliseconds when the call left, the node's stamp."""


class Fanout:
    """The calls of one router, the tasks that make them, and the health of the nodes they go to."""

    def __init__(
        self, nodes: NodePool, clock: Clock, settings: RouterSettings, dice: random.Random, observe: Observe
    ) -> None:
        self.nodes = nodes
        self.clock = clock
        self.settings = settings
        self.budget = RetryBudget(settings.retry_percent / 100.0)
        self._dice = dice
        self._observe = observe
        self._health: dict[str, NodeHealth] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.counts: Counter[str] = Counter()

    # -- tasks

    def own(self, task: asyncio.Task[Any]) -> None:
        """Keep a task until it ends; :meth:`close` ends what is left."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that an unread one is not reported when the task is collected

    async def shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end, whatever happens to the caller (P20).

        The caller awaits a future, in a task of its own: a cancel scope of the web framework cannot reach the work.
        """
        if self._closing:
            work.close()
            raise UnavailableError("this router is stopping", field="router", mend="send it to another one")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        task = loop.create_task(work, context=contextvars.copy_context())
        self.own(task)

        def hand_over(done: asyncio.Task[T]) -> None:
            if result.done():
                return
            if done.cancelled():
                error: BaseException = UnavailableError("this router stopped", field="router", outcome="unknown")
                result.set_exception(error)
            elif (failure := done.exception()) is not None:
                result.set_exception(failure)
            else:
                result.set_result(done.result())

        task.add_done_callback(hand_over)
        return await result

    async def close(self, deadline: Deadline) -> None:
        """Let the running work end until the deadline, then cancel what is left."""
        self._closing = True
        while self._tasks and not deadline.passed:
            await asyncio.wait(set(self._tasks), timeout=deadline.left_s)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    # -- nodes

    def health(self, node_id: str) -> NodeHealth:
        """What is known of a node."""
        known = self._health.get(node_id)
        if known is None:
            s = self.settings
            circuit = Circuit(s.circuit_failures, s.circuit_open_ms / 1e3, s.circuit_open_max_ms / 1e3)
            known = self._health[node_id] = NodeHealth(circuit)
        return known

    def follow(self, topology: Topology) -> None:
        """Take over a newer topology: forget nodes that left, leave alone those that were found down."""
        self._health = {n: h for n, h in self._health.items() if n in topology.members}
        now = self.clock.mono_s()
        for member in topology.members.values():
            if member.role == "datanode" and member.state == "down":
                self.health(member.node_id).circuit.trip(now)

    def by_promise(self, node_ids: Sequence[str]) -> list[str]:
        """The nodes, those that will probably answer soonest first."""
        now = self.clock.mono_s()

        def promise(node_id: str) -> tuple[bool, float, float]:
            health = self.health(node_id)
            # Below a millisecond nodes are alike, and share the reads by chance and by what they have to do.
            expected_s = max(health.expected_s(now), 0.001) * (1 + health.in_flight)
            return not health.circuit.allows(now), expected_s, self._dice.random()

        return sorted(node_ids, key=promise)

    async def call(
        self, node_id: str, kind: str, make: Make[A], deadline: Deadline, size_bytes: int = 0
    ) -> Heard[A] | Unheard:
        """One call to one node; ``size_bytes``: what it keeps in memory until it ends."""
        health = self.health(node_id)
        node = self.nodes.find(node_id)
        refusal = self.refusal(node_id, size_bytes)
        if refusal is None and deadline.passed:
            refusal = DeadlineExceededError("the deadline passed before the call", field="timeout", outcome="none")
        if node is None or refusal is not None:
            return Unheard(node_id, refusal or _unknown(node_id), sent=False)
        started_s, allowed_s, wall_ms = self.clock.mono_s(), deadline.left_s, self.clock.wall_ms()
        health.circuit.started()
        health.in_flight += 1
        health.in_flight_bytes += size_bytes
        try:
            async with asyncio.timeout(allowed_s):
                answer = await make(node_id, node)
        except (TimeoutError, DeadlineExceededError):
            self._timed_out(health, allowed_s)
            late = DeadlineExceededError(f"data node {node_id} did not answer in time", field="timeout")
            return Unheard(node_id, late, sent=True)
        except OmenDBError as error:
            health.circuit.failed(self.clock.mono_s(), self._dice.random())
            sent = not (isinstance(error, UnavailableError) and error.outcome == "none")
            return Unheard(node_id, error, sent)
        except asyncio.CancelledError:
            # Another was faster, or the caller went away: no failure, but a node that is asked less from now on.
            health.gave_up(self.clock.mono_s() - started_s, self.clock.mono_s())
            raise
        finally:
            health.in_flight -= 1
            health.in_flight_bytes -= size_bytes
        now_s = self.clock.mono_s()
        health.answered(kind, now_s - started_s, now_s)
        hlc = int(getattr(answer, "hlc", 0))
        if hlc:
            self._observe(node_id, wall_ms, hlc)
        return Heard(node_id, answer)

    def refusal(self, node_id: str, size_bytes: int = 0) -> OmenDBError | None:
        """Why a call to the node would not even be tried now, if it would not."""
        if self.nodes.find(node_id) is None:
            return _unknown(node_id)
        health = self.health(node_id)
        if not health.circuit.allows(self.clock.mono_s()):
            return UnavailableError(f"data node {node_id} does not answer", field=node_id)
        s = self.settings
        # One call always goes, however large.
        heavy = health.in_flight_bytes and health.in_flight_bytes + size_bytes > s.in_flight_bytes_per_node_max
        if health.in_flight >= s.in_flight_per_node_max or heavy:
            return ResourceExhaustedError(
                f"{health.in_flight} calls of {health.in_flight_bytes} bytes wait for data node {node_id}",
                field=node_id,
                bound=f"at most {s.in_flight_per_node_max} of {s.in_flight_bytes_per_node_max} bytes",
                mend="send fewer at a time",
            )
        return None

    def _timed_out(self, health: NodeHealth, allowed_s: float) -> None:
        # A caller in a great hurry says nothing about the node.
        if allowed_s * 1e3 >= self.settings.timeout_is_failure_ms:
            health.circuit.failed(self.clock.mono_s(), self._dice.random())
        else:
            health.circuit.left()

    def asking(self, kind: str, deadline: Deadline) -> Asking[Any]:
        """A question to several nodes."""
        return Asking(self, kind, deadline)

    async def ask(
        self, node_ids: Sequence[str], need: int, kind: str, make: Make[A], deadline: Deadline
    ) -> tuple[list[Heard[A]], list[Heard[A] | Unheard]]:
        """``need`` OK answers from any of ``node_ids``, the first of which are asked first: (them, the failures).

        Fewer come back when no node is left to ask. A node that fails is replaced by the next; so is one that is
        slower than most of its answers were, as long as there is a budget for it. For reads: what is not needed any
        more is cancelled.
        """
        waiting = deque(node_ids)
        good: list[Heard[A]] = []
        bad: list[Heard[A] | Unheard] = []
        asking: Asking[A] = self.asking(kind, deadline)
        self.budget.earn()
        try:
            for _ in range(min(need, len(waiting))):
                asking.start(waiting.popleft(), make)
            while asking.busy and len(good) < need:
                hedging = waiting and self.budget.full_enough
                reply = await asking.next(self._patience_s(asking.pending, kind) if hedging else None)
                if reply is None:
                    if self.budget.take():
                        self.counts["hedges"] += 1
                        asking.start(waiting.popleft(), make)
                elif isinstance(reply, Heard) and reply.answer.verdict is Verdict.OK:
                    good.append(reply)
                else:
                    bad.append(reply)
                    # What never left costs nobody anything; what did is asked again only within the budget.
                    if waiting and (_costs_nothing(reply) or self.budget.take()):
                        self.counts["failovers"] += 1
                        asking.start(waiting.popleft(), make)
        finally:
            asking.cancel()
        return good, bad

    def _patience_s(self, pending: Sequence[str], kind: str) -> float:
        otherwise_s = self.settings.hedge_ms / 1e3
        return max(self.health(node_id).hedge_s(kind, otherwise_s) for node_id in pending)


class Asking(Generic[A]):
    """Calls on their way, and their replies in the order in which they come."""

    def __init__(self, fanout: Fanout, kind: str, deadline: Deadline) -> None:
        self._fanout = fanout
        self._kind = kind
        self._deadline = deadline
        self._calls: dict[str, asyncio.Task[Heard[A] | Unheard]] = {}
        self._replies: deque[Heard[A] | Unheard] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a reply is there or may come."""
        return bool(self._calls or self._replies)

    @property
    def pending(self) -> list[str]:
        """Nodes whose reply was not handed out yet."""
        return [*self._calls, *[reply.node_id for reply in self._replies]]

    def start(self, node_id: str, make: Make[A], size_bytes: int = 0) -> None:
        """Call one more node."""
        call = self._fanout.call(node_id, self._kind, make, self._deadline, size_bytes)
        task = asyncio.get_running_loop().create_task(call)
        self._fanout.own(task)
        self._calls[node_id] = task
        task.add_done_callback(lambda done: self._arrived(node_id, done))

    def _arrived(self, node_id: str, task: asyncio.Task[Heard[A] | Unheard]) -> None:
        self._calls.pop(node_id, None)
        if task.cancelled():
            stopped = UnavailableError("the call was cancelled", field=node_id, outcome="unknown")
            self._replies.append(Unheard(node_id, stopped, sent=True))
        elif (failure := task.exception()) is not None:
            # A fault of the client's own code. The other replicas' answers still count; this one's is unknown.
            broken = UnavailableError(f"calling data node {node_id} failed: {failure!r}", field=node_id)
            self._replies.append(Unheard(node_id, broken, sent=True))
        else:
            self._replies.append(task.result())
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, patience_s: float | None = None) -> Heard[A] | Unheard | None:
        """The next reply; None when none came within ``patience_s`` seconds. Call it only with some ``pending``."""
        if not self._replies:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = None if patience_s is None else loop.call_later(patience_s, _wake, waiter)
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
        return self._replies.popleft() if self._replies else None

    def cancel(self) -> None:
        """Give up what is still on its way."""
        for task in list(self._calls.values()):
            task.cancel()


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, side by side; the first error ends the others."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(w) for w in work]
    except BaseExceptionGroup as failed:
        # One failure is told, as everywhere: the first.
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _unknown(node_id: str) -> UnavailableError:
    return UnavailableError(f"data node {node_id} is not known", field=node_id)


def _costs_nothing(reply: Heard[Any] | Unheard) -> bool:
    return isinstance(reply, Unheard) and not reply.sent


__all__ = ["Answer", "Asking", "Fanout", "Heard", "Make", "Unheard", "together"]

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
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

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


_COMPANY_MAX = 16
# A node that takes longer than this many times what its neighbour takes loses nothing when both are asked.
_PATIENCE_WITH_SLOWER = 2.0
_FAULTS = ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError
"""What a client raises by a fault of its own code or of the event loop's, instead of an error of ours."""

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class Heard(NamedTuple, Generic[A]):
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
        self._companies: dict[tuple[str, ...], _Company] = {}
        self.counts: Counter[str] = Counter()

    # -- tasks

    @property
    def closing(self) -> bool:
        """Whether the router is about to stop."""
        return self._closing

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

    def by_company(self, node_ids: tuple[str, ...]) -> list[str]:
        """As :meth:`by_promise`, but the same for what is asked at one moment, so that it can travel together.

        A call costs a data node as much as several small searches: spread over the replicas, those of one turn of the
        loop would cost all replicas a call. After ``_COMPANY_MAX`` the next replica has its turn.
        """
        company = self._companies.get(node_ids)
        if company is None or company.left == 0:
            if not self._companies:
                asyncio.get_running_loop().call_soon(self._companies.clear)
            company = self._companies[node_ids] = _Company(self.by_promise(node_ids))
        company.left -= 1
        return company.order

    async def call(
        self,
        node_id: str,
        kind: str,
        make: Make[A],
        deadline: Deadline,
        size_bytes: int = 0,
        *,
        late: Callable[[], bool] | None = None,
    ) -> Heard[A] | Unheard:
        """One call to one node.

        Args:
            size_bytes: what it keeps in memory until it ends.
            late: given by a caller that cancels the call at the deadline itself: whether that is why it was cancelled.
        """
        health = self.health(node_id)
        node = self.nodes.find(node_id)
        refusal = self.refusal(node_id, size_bytes)
        if refusal is None and deadline.passed:
            refusal = DeadlineExceededError("the deadline passed before the call", field="timeout", outcome="none")
        if node is None or refusal is not None:
            return Unheard(node_id, refusal or _unknown(node_id), sent=False)
        started_s, allowed_s = self.clock.mono_s(), deadline.left_s
        health.circuit.started()
        health.in_flight += 1
        health.in_flight_bytes += size_bytes
        try:
            if late is not None:
                answer = await make(node_id, node)
            else:
                async with asyncio.timeout(allowed_s):
                    answer = await make(node_id, node)
        except (TimeoutError, DeadlineExceededError):
            self._timed_out(health, allowed_s)
            return _too_late(node_id)
        except OmenDBError as error:
            health.circuit.failed(self.clock.mono_s(), self._dice.random())
            sent = not (isinstance(error, UnavailableError) and error.outcome == "none")
            return Unheard(node_id, error, sent)
        except asyncio.CancelledError:
            if late is not None and late():
                self._timed_out(health, allowed_s)
            else:
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
            self._observe(node_id, started_s, hlc)
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
            if need == 1 and waiting:
                reply = await _Alone(asking, waiting, make).answered()
                if reply is not None:
                    asking.put(reply)
            else:
                for _ in range(min(need, len(waiting))):
                    asking.start(waiting.popleft(), make)
            asked_s = self.clock.mono_s()
            while asking.busy and len(good) < need:
                left_s = None
                if waiting and self.budget.full_enough:
                    # Since they were asked: that another one answered meanwhile makes nobody less late.
                    patience_s = self.patience_s(asking.pending, kind, waiting[0])
                    left_s = max(0.0, asked_s + patience_s - self.clock.mono_s())
                reply = await asking.next(left_s)
                if reply is None:
                    if self.budget.take():
                        asked_s = self.clock.mono_s()
                        asking.hedge(waiting.popleft(), make)
                elif isinstance(reply, Heard) and reply.answer.verdict is Verdict.OK:
                    good.append(reply)
                else:
                    bad.append(reply)
                    # What never left costs nobody anything; what did is asked again only within the budget.
                    if waiting and (_costs_nothing(reply) or self.budget.take()):
                        self.counts["failovers"] += 1
                        asked_s = self.clock.mono_s()
                        asking.start(waiting.popleft(), make)
        finally:
            asking.cancel()
        return good, bad

    def patience_s(self, pending: Sequence[str], kind: str, spare: str) -> float:
        """Seconds after which the slowest of some nodes is late: by its own habits, or by those of who would help.

        A node that has been slow for long is used to it: by its own percentile alone it would never be late.
        """
        otherwise_s = self.settings.hedge_ms / 1e3
        own_s = max(self.health(node_id).hedge_s(kind, otherwise_s) for node_id in pending)
        return min(own_s, _PATIENCE_WITH_SLOWER * self.health(spare).hedge_s(kind, own_s))


class _Company:
    """The order in which replicas are asked by those who ask in one turn of the loop, and how many more may join."""

    __slots__ = ("left", "order")

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.left = _COMPANY_MAX


class Asking(Generic[A]):
    """Calls on their way, and their replies in the order in which they come."""

    def __init__(self, fanout: Fanout, kind: str, deadline: Deadline) -> None:
        self.fanout = fanout
        self.kind = kind
        self.deadline = deadline
        self.told: Callable[[Heard[A] | Unheard], None] | None = None
        """Called with every reply when it comes."""
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
        call = self.fanout.call(node_id, self.kind, make, self.deadline, size_bytes)
        task = asyncio.get_running_loop().create_task(call)
        self.fanout.own(task)
        self._calls[node_id] = task
        task.add_done_callback(lambda done: self._arrived(node_id, done))

    def hedge(self, node_id: str, make: Make[A]) -> None:
        """Call one more node because the others are late."""
        self.fanout.counts["hedges"] += 1
        self.start(node_id, make)

    def put(self, reply: Heard[A] | Unheard) -> None:
        """A reply that is to be handed out first."""
        self._replies.appendleft(reply)

    def _arrived(self, node_id: str, task: asyncio.Task[Heard[A] | Unheard]) -> None:
        self._calls.pop(node_id, None)
        reply: Heard[A] | Unheard
        if task.cancelled():
            stopped = UnavailableError("the call was cancelled", field=node_id, outcome="unknown")
            reply = Unheard(node_id, stopped, sent=True)
        elif (failure := task.exception()) is not None:
            reply = _broken(node_id, failure)
        else:
            reply = task.result()
        self._replies.append(reply)
        if self.told is not None:
            self.told(reply)
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


class _Alone(Generic[A]):
    """The only call of a question, made in the task of whoever asks.

    A task of its own and a timeout's scope cost as much as a small search. The call is ended by cancelling that task,
    as a timeout's scope does: at the deadline, or when a node that was asked later has a good answer.
    """

    __slots__ = ("_asking", "_cancelled", "_late", "_loop", "_make", "_node_id", "_over", "_task", "_timer", "_waiting")

    def __init__(self, asking: Asking[A], waiting: deque[str], make: Make[A]) -> None:
        self._asking = asking
        self._node_id = waiting.popleft()
        self._waiting = waiting
        self._make = make
        self._cancelled = False
        self._late = False
        self._over = False

    async def answered(self) -> Heard[A] | Unheard | None:
        """Its reply; None when another node's good answer came before."""
        asking = self._asking
        fanout, deadline = asking.fanout, asking.deadline
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        before = task.cancelling()
        self._set_timer()
        try:
            return await fanout.call(self._node_id, asking.kind, self._make, deadline, late=self._is_late)
        except asyncio.CancelledError:
            if not self._cancelled or task.cancelling() > before + 1:
                raise
            return _too_late(self._node_id) if self._late else None
        except _FAULTS as failure:
            return _broken(self._node_id, failure)
        finally:
            self._over = True
            asking.told = None
            self._timer.cancel()
            if self._cancelled:
                task.uncancel()

    def _is_late(self) -> bool:
        return self._late

    def _set_timer(self) -> None:
        """For the moment when another node is to be asked, or the deadline."""
        asking = self._asking
        fanout, left_s = asking.fanout, asking.deadline.left_s
        if self._waiting and fanout.budget.full_enough:
            patience_s = fanout.patience_s((self._node_id, *asking.pending), asking.kind, self._waiting[0])
            if patience_s < left_s:
                self._timer = self._loop.call_later(patience_s, self._hedge)
                return
        self._timer = self._loop.call_later(left_s, self._deadline)

    def _hedge(self) -> None:
        """Whoever was asked is late: ask another one as well."""
        asking = self._asking
        if asking.fanout.budget.take():
            asking.told = self._other
            asking.hedge(self._waiting.popleft(), self._make)
        self._set_timer()

    def _other(self, reply: Heard[A] | Unheard) -> None:
        if isinstance(reply, Heard) and reply.answer.verdict is Verdict.OK:
            self._end()

    def _deadline(self) -> None:
        self._late = not self._cancelled
        self._end()

    def _end(self) -> None:
        if not self._over and not self._cancelled:
            self._cancelled = True
            self._task.cancel()


def _too_late(node_id: str) -> Unheard:
    late = DeadlineExceededError(f"data node {node_id} did not answer in time", field="timeout")
    return Unheard(node_id, late, sent=True)


def _broken(node_id: str, failure: BaseException) -> Unheard:
    """A fault of the client's own code. The other replicas' answers still count; this one's is unknown."""
    broken = UnavailableError(f"calling data node {node_id} failed: {failure!r}", field=node_id)
    return Unheard(node_id, broken, sent=True)


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

"""The clients of a simulated cluster: few ids, all kinds of calls, and an exact note of what each was told."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np

from omendb_chaos.checkers.linearizability import UNKNOWN, Operation
from omendb_chaos.cluster.clocks import MachineClock
from omendb_chaos.cluster.judge import Acknowledged, Found, Judge
from omendb_chaos.cluster.network import Network, within
from omendb_chaos.cluster.processes import Process
from omendb_chaos.cluster.routers import RouterCall
from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, NotFoundError, OmenDBError, VersionConflictError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows, rows_from_columns
from omendb_router.face_calls import Question, Seen, Written

NAME = "points"
_KINDS = ("write",) * 6 + ("delete",) * 2 + ("extra",) * 2 + ("read",) * 7 + ("search",) * 2 + ("own search",)
_ON_CONDITION = ("create",) * 4 + ("swap",) * 5 + ("swap out",) * 2 + ("delete",) * 3
_SWAPS = frozenset({"create", "swap", "swap out"})
_DELETIONS = frozenset({"delete", "swap out"})
_AGAIN = 0.4
_FRESH = 0.7


class Version(NamedTuple):
    """A point as a majority showed it: the values of its two parts, None where there was no point, and its version."""

    state: tuple[int, int] | None
    stamp: int


@dataclass(slots=True)
class Load:
    """What clients do: ``operations`` in all, on ``ids``, with ``think_s`` between two calls of one client.

    ``conditions``: some of the writes are of points that must not be there yet, or be as the client saw them last.
    """

    ids: Sequence[int]
    operations: int
    think_s: float
    timeout_s: tuple[float, float] = (0.3, 2.0)
    conditions: bool = False
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.operations


@dataclass(slots=True)
class Client:
    """One client: one call at a time, to any router. ``reads_settle``: by default reads ask a majority."""

    number: int
    process: Process
    network: Network
    clock: MachineClock
    routers: Sequence[str]
    load: Load
    judge: Judge
    rng: random.Random
    note: Callable[..., None]
    write_quorum: int
    reads_settle: bool
    told: Counter[str] = field(default_factory=Counter)
    session: bytes = b""
    _own: Operation | None = None
    _value: int = 0
    _seen: dict[int, Version] = field(default_factory=dict)

    async def run(self) -> None:
        """Call until the load is done."""
        while self.load.left > 0:
            await asyncio.sleep(self.rng.expovariate(1 / self.load.think_s))
            if self.load.left <= 0:
                return
            self.load.left -= 1
            point_id = self.rng.choice(self.load.ids)
            kind = self.rng.choice(_KINDS + _ON_CONDITION if self.load.conditions else _KINDS)
            if kind == "extra" and point_id in self.judge.whole:
                kind = "write"
            await self.step(kind, point_id)

    async def step(self, kind: str, point_id: int) -> None:
        """One call and what became of it."""
        match kind:
            case "read":
                await self.read(point_id)
            case "search":
                await self.search(Seen("majority"))
            case "own search":
                await self.search(Seen("session", self.session))
            case "swap" | "swap out":
                if self.rng.random() < _FRESH:  # else what was seen some time ago is demanded, mostly in vain
                    await self.read(point_id)
                await self.change(kind, point_id)
            case _:
                await self.change(kind, point_id)

    # -- writes

    async def change(self, kind: str, point_id: int) -> None:
        """A write of whatever kind; sent again under its stamp if its outcome is unknown."""
        self._value += 1
        value = self.number * 10_000 + self._value
        seen = self._seen.get(point_id, Version(None, 0))
        if kind in _SWAPS and seen.state is None:
            kind = "create"  # nothing was seen that could be demanded
        call: tuple[Any, ...] = ("write", None if kind == "delete" else value)
        if kind == "extra":
            call = "extra", value
        elif kind in _SWAPS:
            state = None if kind == "create" else seen.state
            call = "swap", state, None if kind in _DELETIONS else value
        operation = Operation(self._name, point_id, call, UNKNOWN, self._now())
        demand = _demand(kind, seen)
        error = await self._write(kind, point_id, value, demand, operation)
        stamp = getattr(error, "stamp", None)
        if error is not None and stamp and self.rng.random() < _AGAIN:
            await self._write(kind, point_id, value, {**demand, "retry_stamp": stamp}, operation)

    async def _write(
        self, kind: str, point_id: int, value: int, demand: dict[str, Any], operation: Operation
    ) -> OmenDBError | None:
        """Send it, and put what is known of it into the history; the error if its outcome is unknown."""
        history, stamp = self.judge.history, demand.get("retry_stamp")
        try:
            written = await self._send(kind, point_id, value, demand)
        except AlreadyExistsError:
            self._refused(kind, value, stamp, replace(operation, result=False, ended=self._now()))
            return None
        except VersionConflictError as error:
            # The same content may have another version by now: what was refused tells nothing but what was found.
            there = Operation(self._name, point_id, ("exists",), bool(error.found[point_id]), operation.began)
            self._seen.pop(point_id, None)
            self._refused(kind, value, stamp, replace(there, ended=self._now()), operation)
            return None
        except NotFoundError:
            # An update: nothing was changed, and as many replicas as a read asks did not have the point.
            if stamp is None:
                self._told(kind, "absent")
                if self.reads_settle:
                    history.append(replace(operation, call=("read",), result=None, ended=self._now()))
            return None
        except OmenDBError as error:
            return self._failed(kind, value, stamp, operation, error)
        self._acknowledged(kind, point_id, stamp, operation, written)
        return None

    async def _send(self, kind: str, point_id: int, value: int, demand: dict[str, Any]) -> Written:
        ids = IdColumn.of([point_id])
        if kind in _DELETIONS:
            return cast(Written, await self.ask("delete", NAME, ids, **demand))
        if kind == "extra":
            return cast(Written, await self.ask("update", NAME, ids, None, columns_from_rows([{"u": value}]), **demand))
        if kind == "swap" and value % 2:
            payload = columns_from_rows([{"v": value, "u": 0}])
            return cast(Written, await self.ask("update", NAME, ids, {"": _vector(value)}, payload, **demand))
        payload = columns_from_rows([{"v": value}])
        return cast(Written, await self.ask("upsert", NAME, ids, {"": _vector(value)}, payload, 1, **demand))

    def _failed(
        self, kind: str, value: int, stamp: int | None, operation: Operation, error: OmenDBError
    ) -> OmenDBError | None:
        if stamp is not None:
            return None  # the first attempt stands in the history as open
        if getattr(error, "outcome", "none") == "none":
            self._told(kind, "none")
            self.judge.never.add(value)
            return None
        self._told(kind, "unknown")
        self.judge.history.append(operation)
        return error

    def _refused(
        self, kind: str, value: int, stamp: int | None, told: Operation, first: Operation | None = None
    ) -> None:
        """A point was not as demanded: nothing was written, whatever an earlier attempt was told.

        Args:
            told: what the refusal says, for the history.
            first: the write as it stands in the history, when that is another operation.
        """
        self._told(kind, "refused" if stamp is None else "refused again")
        if stamp is not None:
            self.judge.history.remove(replace(first or told, result=UNKNOWN, ended=math.inf))
        self.judge.never.add(value)
        self.judge.history.append(told)

    def _acknowledged(
        self, kind: str, point_id: int, stamp: int | None, operation: Operation, written: Written
    ) -> None:
        self._told(kind, "done" if stamp is None else "done again")
        if written.superseded:
            return  # whether it was ever seen is not known: it stays open
        if stamp is not None:
            self.judge.history.remove(operation)
        self.session = written.session or self.session
        done = replace(operation, result=True if kind in _SWAPS else None, ended=self._now())
        self.judge.history.append(done)
        # A token names the shards of its own write: only that one is promised to be seen with it.
        whole = kind in ("write", "delete") and point_id in self.judge.whole
        self._own = done if whole and written.session else None
        if kind != "extra":
            # An update of a point that was deleted meanwhile is done with: no replica need have its stamp.
            told = Acknowledged(point_id, written.stamp, self.write_quorum, deletion=kind in _DELETIONS)
            self.judge.acknowledged.append(told)

    # -- reads

    async def read(self, point_id: int) -> bool:
        """A point by id, at the majority; whether there was an answer."""
        operation = Operation(self._name, point_id, ("read",), UNKNOWN, self._now())
        ids = IdColumn.of([point_id])
        try:
            found = await self.ask("get", NAME, ids, payload=True, vectors=True, seen=Seen("majority"))
        except OmenDBError:
            self._told("read", "none")
            return False
        rows = rows_from_columns(found.payload, n=len(found.ids)) if len(found.ids) else []
        value = (int(rows[0]["v"]), int(rows[0].get("u", 0))) if rows else None
        if value is not None and int(found.vectors[""][0, 0]) != value[0]:
            self.judge.violated(f"V3: {point_id} has the vector of another version: {found.vectors[''][0]}, {value}")
        self.judge.history.append(replace(operation, result=value, ended=self._now()))
        self._seen[point_id] = Version(value, int(found.versions[0]) if value is not None else 0)
        self._told("read", "done")
        return True

    async def search(self, seen: Seen) -> bool:
        """All points, by a search; whether there was an answer."""
        called, own = self._now(), self._own if seen.session else None
        question = Question(_vector(0), len(self.load.ids) + 2, exact=True)
        try:
            hits = await self.ask("search", NAME, question, seen=seen)
        except OmenDBError:
            self._told("search", "none")
            return False
        values: dict[int, int | None] = dict.fromkeys(self.load.ids)
        ids = [int(i) for i in hits.ids.to_list()]
        values.update({i: round(float(d)) for i, d in zip(ids, hits.distances[0], strict=False)})
        twice = len(set(ids)) != len(ids)
        self.judge.searches.append(Found(self._name, called, values, twice, not hits.stale_possible, own))
        self._told("search", "done")
        return True

    # -- what they share

    async def ask(self, kind: str, *arguments: Any, **options: Any) -> Any:
        """One call of a router, whichever; raises what it ends with."""
        deadline = Deadline.after(self.clock, self.rng.uniform(*self.load.timeout_s))
        call = RouterCall(arguments, options)
        router = self.rng.choice(self.routers)
        return await within(deadline, self.network.call(self.process, router, kind, call, deadline, hang_up=True))

    def _told(self, kind: str, what: str) -> None:
        self.told[what] += 1
        self.note("client", self._name, kind, what)

    @property
    def _name(self) -> str:
        return self.process.name

    def _now(self) -> float:
        return self.clock.mono_s()


def _demand(kind: str, seen: Version) -> dict[str, Any]:
    """What a write demands of its point."""
    if kind == "create":
        return {"create_only": True}
    return {"versions": np.array([seen.stamp], np.uint64)} if kind in _SWAPS else {}


def _vector(number: int) -> Any:
    return np.array([[number, 0.0]], np.float32)


__all__ = ["NAME", "Client", "Load", "Version"]

"""A router whose every answer is scripted, in place of a channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omendb.remote.channels import CallFailed
from omendb_common.errors import OmenDBError


class HandClock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def mono_s(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@dataclass
class Asked:
    """One call that arrived."""

    method: str
    stamp: int
    timeout_s: float


@dataclass
class ScriptedChannel:
    """Answers each call with the next step: a reply, an error (the router's own), or a failed try."""

    clock: HandClock
    steps: list[Any] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    closed: bool = False

    def call(self, method: str, request: Any, timeout_s: float) -> Any:
        self.asked.append(Asked(method, getattr(request, "retry_stamp", 0), timeout_s))
        step: Any = self.steps.pop(0) if self.steps else "ok"
        if callable(step):
            step = step(timeout_s)
        if isinstance(step, OmenDBError):
            raise CallFailed(step, answered=True)
        if isinstance(step, CallFailed):
            raise step
        return step

    def close(self) -> None:
        self.closed = True

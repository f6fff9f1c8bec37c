"""Who is up: heartbeats in the leader's memory, and the transitions that follow from their absence.

Pure: it is told the time. Only transitions become commands, each comparing on the state before, so that what a leader
of yesterday still believes changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from omendb_common.topology import PROBLEM_CHARS_MAX, PROBLEMS_MAX, Member, MemberState


@dataclass(frozen=True, slots=True)
class Transition:
    """A member's state is to change from ``was`` to ``to``."""

    node_id: str
    incarnation: str
    was: MemberState
    to: MemberState


class Liveness:
    """Decides who is up, suspect or down from when they were last heard. All times are monotonic seconds."""

    def __init__(self, *, suspect_s: float, down_s: float, grace_s: float, stall_s: float, forget_s: float) -> None:
        self._forget_s = forget_s
        self._suspect_s = suspect_s
        self._down_s = down_s
        self._grace_s = grace_s
        self._stall_s = stall_s
        self._heard: dict[tuple[str, str], float] = {}
        self._problems: dict[tuple[str, str], tuple[str, ...]] = {}
        self._since = 0.0
        self._quiet_until = 0.0
        self._decided: float | None = None

    def elected(self, now_s: float) -> None:
        """A new leader knows nobody's heartbeats: nobody gets worse until they had time to find it."""
        self._heard.clear()
        self._problems.clear()
        self._since = now_s
        self._quiet_until = now_s + self._grace_s
        self._decided = None

    def heard(self, node_id: str, incarnation: str, now_s: float, problems: Sequence[str] = ()) -> None:
        """A heartbeat came, and with it what the member cannot do as it should; bounded, whoever sends it."""
        self._heard[(node_id, incarnation)] = now_s
        told = tuple(problem[:PROBLEM_CHARS_MAX] for problem in problems[:PROBLEMS_MAX])
        if told:
            self._problems[(node_id, incarnation)] = told
        else:
            self._problems.pop((node_id, incarnation), None)

    def left(self, node_id: str, incarnation: str) -> None:
        """A member said that it ends: what was heard of it before counts no more."""
        self._heard.pop((node_id, incarnation), None)
        self._problems.pop((node_id, incarnation), None)

    def silent_s(self, member: Member, now_s: float) -> float:
        """How long a member has been silent, counted from the election at the earliest."""
        return max(0.0, now_s - self._heard.get((member.node_id, member.incarnation), self._since))

    def problems(self, member: Member) -> tuple[str, ...]:
        """What a member told of itself with its last heartbeat."""
        return self._problems.get((member.node_id, member.incarnation), ())

    def decide(self, members: Iterable[Member], now_s: float) -> list[Transition]:
        """The transitions that are due, and forget who is no member any more. Call it about once a second."""
        present = list(members)
        self._forgive_own_stall(now_s)
        known = {(m.node_id, m.incarnation) for m in present}
        self._heard = {key: when for key, when in self._heard.items() if key in known}
        self._problems = {key: told for key, told in self._problems.items() if key in known}
        due = []
        for member in present:
            to = self._state(member, now_s)
            if to is not None and to != member.state:
                due.append(Transition(member.node_id, member.incarnation, member.state, to))
        return due

    def gone(self, members: Iterable[Member], now_s: float) -> list[Member]:
        """Routers that have been down for so long that nobody expects them back."""
        return [
            m for m in members if m.role == "router" and m.state == "down" and self.silent_s(m, now_s) >= self._forget_s
        ]

    def _forgive_own_stall(self, now_s: float) -> None:
        """Heartbeats that came while this process stood still were not heard: that is not the members' silence."""
        stall_s = 0.0 if self._decided is None else now_s - self._decided
        self._decided = now_s
        if stall_s > self._stall_s:
            self._heard = {key: min(now_s, when + stall_s) for key, when in self._heard.items()}
            self._quiet_until = max(self._quiet_until, now_s + self._suspect_s)

    def _state(self, member: Member, now_s: float) -> MemberState | None:
        """What a member's state should be; None: as it is."""
        if member.state == "left":
            return None
        silent_s = self.silent_s(member, now_s)
        if silent_s < self._suspect_s:
            alive = (member.node_id, member.incarnation) in self._heard
            return "up" if alive and member.state in ("suspect", "down") else None
        if now_s < self._quiet_until:
            return None
        if silent_s >= self._down_s:
            return "down"
        return None if member.state == "down" else "suspect"


__all__ = ["Liveness", "Transition"]

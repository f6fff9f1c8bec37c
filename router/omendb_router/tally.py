"""What the replies to a write amount to, row by row (P3, P4, P5). Decides only; sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from omendb_common.errors import OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.quorum import Quorums
from omendb_common.shard_calls import Applied, Verdict
from omendb_common.topology import Shard

Mask = npt.NDArray[np.bool_]
_WEAKEST_FIRST = ("os", "interval", "fsync")


@dataclass(frozen=True, slots=True)
class Ballot:
    """Who votes on a write to a shard, and how many votes it takes.

    ``old``: replicas whose acknowledgements count now. ``new``: those that will count when a move ends; None when
    nothing moves. Of the one it takes ``need`` votes, of the other ``need_new``. A write goes to ``targets``, which are
    all of them and those that only catch up. ``blocking``: this many of the old replicas that hold a newer version hide
    an older one from every quorum, of writers and of readers.
    """

    targets: tuple[str, ...]
    old: frozenset[str]
    new: frozenset[str] | None
    need: int
    blocking: int
    need_new: int

    @staticmethod
    def of(shard: Shard, quorums: Quorums, after: Quorums | None = None) -> Ballot:
        """The ballot of a shard as the map has it; ``after``: the quorums of the new members, where they are others."""
        old, new = shard.old, shard.new
        after = after or quorums
        blocking = max(1, len(old) - min(quorums.write, quorums.read) + 1)
        if new is not None and after != quorums:
            # Of readers to come too. All of the old ones that answered are as many as there can be.
            blocking = min(len(old), max(blocking, len(new) - min(after.write, after.read) + 1))
        targets = shard.nodes("active", "leaving", "joining", "behind")
        return Ballot(targets, old, new, quorums.write, max(1, blocking), after.write)

    @property
    def sides(self) -> tuple[tuple[bool, frozenset[str], int], ...]:
        """Who votes: whether they are the new ones, their names, and how many votes it takes."""
        old = False, self.old, self.need
        return (old,) if self.new is None else (old, (True, self.new, self.need_new))

    @property
    def required(self) -> int:
        """So many acknowledgements of one set or the other it takes at most."""
        return max(need for _, _, need in self.sides)


class Step(Enum):
    """What to do about the rows of a shard that are not settled."""

    DONE = "every row is settled"
    WAIT = "more replies may settle them"
    REFRESH = "the map is old: same stamp, new map"
    REPAIR = "replicas lack the points of an update"
    RESTAMP = "newer stamps are in the way of rows that may be stamped again"
    REFUSED = "nothing was applied anywhere"
    UNKNOWN = "some of it may have been applied"


@dataclass(slots=True)
class Tally:
    """Replies to one attempt to write ``rows`` rows under one stamp.

    ``echo``: the stamp is that of an earlier attempt, so a row that lost to a newer one is settled too: the state is
    already past it. ``may_exist``: an earlier attempt may have been applied, so this one cannot prove the contrary.
    """

    ballot: Ballot
    rows: int
    echo: bool = False
    may_exist: bool = False
    pending: set[str] = field(init=False)
    durability: str = ""
    lsn: int = 0
    existed: int = 0
    stale: bool = False
    sent: bool = False
    refusals: list[OmenDBError] = field(default_factory=list)
    losses: list[OmenDBError] = field(default_factory=list)
    missing: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    newer: npt.NDArray[np.uint64] = field(init=False)
    _ok: dict[bool, npt.NDArray[np.int16]] = field(init=False)
    _past: npt.NDArray[np.int16] = field(init=False)
    _barred: npt.NDArray[np.int16] = field(init=False)
    _lacking: dict[bool, npt.NDArray[np.int16]] = field(init=False)
    _all_ok: dict[bool, int] = field(init=False)
    _plain: bool = True

    def __post_init__(self) -> None:
        self.pending = set(self.ballot.targets)
        self.newer = np.zeros(self.rows, np.uint64)
        self._ok = {False: np.zeros(self.rows, np.int16), True: np.zeros(self.rows, np.int16)}
        self._past = np.zeros(self.rows, np.int16)
        self._barred = np.zeros(self.rows, np.int16)
        self._lacking = {False: np.zeros(self.rows, np.int16), True: np.zeros(self.rows, np.int16)}
        self._all_ok = {False: 0, True: 0}

    # -- replies

    def hear(self, node_id: str, answer: Applied) -> None:
        """A replica's answer."""
        self.pending.discard(node_id)
        if answer.verdict is Verdict.OK:
            self.existed = max(self.existed, answer.existed)
            self.lsn = max(self.lsn, answer.lsn)
            self.sent |= answer.partial
            self._count(node_id, answer)
        elif answer.verdict in (Verdict.STALE_EPOCH, Verdict.NOT_HERE):
            self.stale = True
            self.refusals.append(answer.error or _old_map(node_id))
        elif answer.verdict is Verdict.CLOCK_AHEAD:
            self.refusals.append(answer.error or _clock_ahead(node_id))
        else:
            error = answer.error or UnavailableError(f"data node {node_id} refused it", field=node_id)
            if getattr(error, "outcome", "none") == "unknown":
                self.sent = True
            self.refusals.append(error)

    def lose(self, node_id: str, error: OmenDBError, *, sent: bool) -> None:
        """No answer will come."""
        self.pending.discard(node_id)
        self.sent |= sent
        self.losses.append(error)

    def _count(self, node_id: str, answer: Applied) -> None:
        sides = [side for side, voters, _ in self.ballot.sides if node_id in voters]
        if not len(answer.superseded) and not len(answer.missing):
            for side in sides:
                self._all_ok[side] += 1
        else:
            self._plain = False
            applied = np.ones(self.rows, np.int16)
            applied[answer.superseded] = 0
            applied[answer.missing] = 0
            np.maximum.at(self.newer, answer.superseded, answer.newer)
            for side in sides:
                self._ok[side] += applied
                self._lacking[side][answer.missing] += 1
            if False in sides:
                self._past[answer.superseded] += 1
                # What a claim keeps out may have nothing newer that would hide it (P19).
                self._past[answer.barred] -= 1
                self._barred[answer.barred] += 1
            if len(answer.missing):
                self.missing[node_id] = answer.missing
        applied_rows = self.rows - len(answer.superseded) - len(answer.missing)
        if applied_rows and sides:
            self.durability = weakest(self.durability, answer.durability)

    # -- what they amount to

    def settled(self) -> Mask:
        """Rows that are committed, or, of an echo, overtaken."""
        return self._reached()

    def overtaken(self) -> int:
        """Settled rows that are not committed under this stamp."""
        if not self.echo or self._plain:
            return 0
        return int(np.count_nonzero(self.settled() & (self._votes(False) < self.ballot.need)))

    def _votes(self, new: bool) -> npt.NDArray[np.int16]:
        votes: npt.NDArray[np.int16] = self._ok[new] + np.int16(self._all_ok[new])
        return votes

    def _reached(self, outstanding: bool = False) -> Mask:
        """Rows with enough votes on every side, counting those that may still come if ``outstanding``."""
        out = np.ones(self.rows, np.bool_)
        for new, voters, need in self.ballot.sides:
            votes = self._votes(new)
            if self.echo:
                votes = votes + self._past
            coming = len(self.pending & voters) if outstanding else 0
            out &= votes + np.int16(coming) >= need
        return out

    def acked(self) -> int:
        """Acknowledgements of the row that has the fewest."""
        most = len(self.ballot.targets)
        return min((int(self._votes(side).min(initial=most)) for side, _, _ in self.ballot.sides), default=0)

    def open_rows(self) -> npt.NDArray[np.int64]:
        """Rows that are not settled."""
        return np.flatnonzero(~self.settled())

    def step(self) -> Step:
        """What to do now."""
        # The usual case without an array in it.
        if self._plain and all(self._all_ok[side] >= need for side, _, need in self.ballot.sides):
            return Step.DONE
        settled = self.settled()
        if settled.all():
            return Step.DONE
        hopeful = self._reached(outstanding=True)
        if bool((hopeful & ~settled).any()):
            return Step.WAIT
        return self._after_all(settled)

    def _after_all(self, settled: Mask) -> Step:
        if self.stale:
            return Step.REFRESH
        lacking = ~settled & self._would_do()
        # A version that few replicas hide might be read, and then come back after what was written in between.
        hidden = ~settled & (self._past >= self.ballot.blocking) & (not self.echo)
        # A claim kept it out, and whoever was asked has said that it has nothing of it.
        if self._barred.any() and not (self.echo or self.sent or self.may_exist or self.pending):
            hidden |= ~settled & (self._barred > 0) & (self._votes(False) == 0) & (self._votes(True) == 0)
        if bool((settled | lacking | hidden).all()):
            return Step.REPAIR if lacking.any() else Step.RESTAMP
        if self.pending:
            return Step.WAIT
        return Step.REFUSED if self.untouched() else Step.UNKNOWN

    def _would_do(self) -> Mask:
        """Rows that would be settled if the replicas that lack their points had them."""
        out, some = np.ones(self.rows, np.bool_), np.zeros(self.rows, np.bool_)
        for new, _, need in self.ballot.sides:
            out &= self._votes(new) + self._lacking[new] >= need
            some |= self._lacking[new] > 0
        return out & some

    def untouched(self) -> bool:
        """Whether certainly nothing was applied, by this attempt or an earlier one."""
        return not (self.sent or self.may_exist or self.applied_somewhere() or self.pending)

    def applied_somewhere(self) -> bool:
        """Whether a replica has applied a row."""
        return any(self._all_ok.values()) or any(bool(votes.any()) for votes in self._ok.values())

    def cause(self) -> OmenDBError:
        """The error that says most about why it did not succeed."""
        for error in self.refusals:
            if not isinstance(error, (UnavailableError, ResourceExhaustedError)):
                return error
        return next(iter((*self.refusals, *self.losses)), UnavailableError("no replica of the shard is known"))


def weakest(first: str, second: str) -> str:
    """The weaker of two durabilities; an empty one says nothing."""
    known: Sequence[str] = [d for d in (first, second) if d]
    return min(known, key=_rank, default="")


def _rank(durability: str) -> int:
    return _WEAKEST_FIRST.index(durability) if durability in _WEAKEST_FIRST else 0


def _old_map(node_id: str) -> UnavailableError:
    return UnavailableError(
        f"data node {node_id} does not serve the shard under this map", field=node_id, mend="send it again"
    )


def _clock_ahead(node_id: str) -> UnavailableError:
    return UnavailableError(
        f"the stamp is too far ahead of the clock of data node {node_id}", field="clock", mend="synchronise the clocks"
    )


__all__ = ["Ballot", "Mask", "Step", "Tally", "weakest"]

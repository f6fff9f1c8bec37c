"""One shard as a read asks it: which replicas count, how many are needed, and what to say when too few answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.quorum import Quorums, majority
from omendb_common.shard_calls import ShardRef, Verdict
from omendb_common.topology import CollectionInfo, Shard
from omendb_router.fanout import Answer, Fanout, Heard, Make, Unheard

A = TypeVar("A", bound=Answer)


Level = Callable[[Quorums], int]
"""How many replicas a read takes, of a shard with such quorums."""


def one(_: Quorums) -> int:
    """Whoever answers first."""
    return 1


def reading(quorums: Quorums) -> int:
    """What the collection says."""
    return quorums.read


def covering(quorums: Quorums) -> int:
    """So many that the read meets every committed write, and is settled for later reads."""
    return max(quorums.read, quorums.covering)


def settling(quorums: Quorums) -> int:
    """A majority, and one that meets every committed write."""
    return max(quorums.majority, quorums.covering)


class StaleMapError(UnavailableError):
    """Replicas refused the map under which they were asked; the request is to be made again under a newer one."""


class Asked(NamedTuple):
    """A shard, the number of replicas that a read of it takes, and the origin that asks.

    ``verified``: of a search, only one replica is to search, the others verify what it found.
    ``later``: what it takes of the new members, where they have other quorums; 0: as many. ``alone``: it asks one
    replica about itself.

    While a move switches, a read that promises anything takes ``need`` of the old members and ``later`` of the new
    (P14): what was acknowledged by either is seen, and what it shows, or finds to be newest and spreads, is then seen
    by reads of either.
    """

    info: CollectionInfo
    shard: Shard
    need: int
    origin: int
    verified: bool = False
    later: int = 0
    alone: bool = False

    @staticmethod
    def at(level: Level, info: CollectionInfo, shard: Shard, origin: int, *, verified: bool = False) -> Asked:
        """A shard as a read of some level asks it."""
        after = info.quorums_after(shard)
        return Asked(info, shard, level(info.quorums(shard)), origin, verified, 0 if after is None else level(after))

    @property
    def single(self) -> Asked:
        """The shard as somebody asks it who wants one replica's word and no more."""
        return self._replace(need=1, later=1, alone=True)

    @property
    def ref(self) -> ShardRef:
        """How calls name the shard."""
        return ShardRef(self.info.schema.uuid, self.shard.shard_id, self.shard.epoch, self.origin)

    @property
    def readers(self) -> tuple[str, ...]:
        """The replicas whose answers count."""
        if self._joint:
            return self.shard.nodes("active", "leaving", "joining")
        return self.shard.nodes("active", "leaving")

    @property
    def writers(self) -> tuple[str, ...]:
        """The replicas that take writes and repairs."""
        return self.shard.nodes("active", "leaving", "joining", "behind")

    @property
    def takes(self) -> int:
        """So many of the readers, whichever they are, are ``need`` of every set of members that counts."""
        readers = frozenset(self.readers)
        return max(need + len(readers - members) for members, need, _ in self._sides)

    @property
    def settles_on(self) -> int:
        """So many replicas with a version show it to every later read of as many replicas.

        Fewer than a majority promise no such thing: then one is enough.
        """
        readers = frozenset(self.readers)
        return max(
            1
            if need < majority(max(len(members), quorums.replication))
            else len(members) - need + 1 + len(readers - members)
            for members, need, quorums in self._sides
        )

    @property
    def covers(self) -> bool:
        """Whether the read meets every committed write; what one replica did not find, the others cannot verify."""
        if self.verified and self.takes > 1:
            return False
        return all(
            need + quorums.write > max(quorums.replication, len(members)) for members, need, quorums in self._sides
        )

    @property
    def _sides(self) -> tuple[tuple[frozenset[str], int, Quorums], ...]:
        """The sets of members of which the read counts answers, and how many of each."""
        old = self.shard.old, self.need, self.info.quorums(self.shard)
        new, after = self.shard.new, self.info.quorums_after(self.shard)
        if not self._joint or new is None or after is None:
            return (old,)
        return old, (new, self.later or self.need, after)

    @property
    def _joint(self) -> bool:
        """Whether the read promises something, before or after, while a move switches.

        One that meets every committed write does, and one of a majority, whose like sees what it showed.
        """
        after = self.info.quorums_after(self.shard)
        if self.alone or after is None or not self.shard.switching:
            return False
        return _promises(self.info.quorums(self.shard), self.need) or _promises(after, self.later or self.need)


def _promises(quorums: Quorums, need: int) -> bool:
    return need >= min(quorums.majority, quorums.covering)


async def hear(
    fanout: Fanout, asked: Asked, kind: str, make: Make[A], deadline: Deadline, *, only: str | None = None
) -> list[Heard[A]]:
    """The answers of as many replicas as the read takes, or of the one named ``only``; an error when too few come."""
    if only is not None:
        asked = asked.single
        nodes = [only]
    elif kind == "search" and asked.takes == 1:
        nodes = fanout.by_company(asked.readers)
    else:
        nodes = fanout.by_promise(asked.readers)
    good, bad = await fanout.ask(nodes, asked.takes, kind, make, deadline)
    check_enough(asked, good, bad, deadline)
    return good


def check_enough(
    asked: Asked,
    good: Sequence[Heard[Any]],
    bad: Sequence[Heard[Any] | Unheard],
    deadline: Deadline,
    *,
    need: int | None = None,
) -> None:
    """Raise the error that says most, unless as many replicas answered as were needed, or ``need``."""
    need = asked.takes if need is None else need
    if len(good) >= need:
        return
    errors: list[OmenDBError] = []
    for reply in bad:
        if isinstance(reply, Unheard):
            errors.append(reply.error)
        elif reply.answer.verdict in (Verdict.STALE_EPOCH, Verdict.NOT_HERE):
            raise StaleMapError(
                f"data node {reply.node_id} does not serve shard {asked.shard.shard_id} under this map",
                field=asked.info.name,
                mend="send it again",
            )
        elif reply.answer.error is not None:
            errors.append(reply.answer.error)
    told = next((e for e in errors if not isinstance(e, (UnavailableError, DeadlineExceededError))), None)
    if told is not None and (not isinstance(told, ResourceExhaustedError) or not good):
        raise told
    text = f"{len(good)} of {len(asked.readers)} replicas of shard {asked.shard.shard_id} answered"
    if errors:
        text += f": {errors[0]}"
    bound = f"at least {need}"
    if deadline.passed or (errors and all(isinstance(e, DeadlineExceededError) for e in errors)):
        raise DeadlineExceededError(text, field=asked.info.name, bound=bound, mend="allow more time", outcome="none")
    raise UnavailableError(text, field=asked.info.name, bound=bound, mend="send it again")


__all__ = ["Asked", "Level", "StaleMapError", "check_enough", "covering", "hear", "one", "reading", "settling"]

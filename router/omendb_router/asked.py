"""One shard as a read asks it: which replicas count, how many are needed, and what to say when too few answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.quorum import majority
from omendb_common.shard_calls import ShardRef, Verdict
from omendb_common.topology import CollectionInfo, Shard
from omendb_router.fanout import Answer, Fanout, Heard, Make, Unheard

A = TypeVar("A", bound=Answer)


class StaleMapError(UnavailableError):
    """Replicas refused the map under which they were asked; the request is to be made again under a newer one."""


class Asked(NamedTuple):
    """A shard, the number of replicas that a read of it takes, and the origin that asks.

    ``verified``: of a search, only one replica is to search, the others verify what it found.
    While a move switches, a read of a majority takes ``need`` of the old members and ``need`` of the new (P14): what it
    shows, or finds to be newest and spreads, is then seen by reads of either.
    """

    info: CollectionInfo
    shard: Shard
    need: int
    origin: int
    verified: bool = False

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
        if not self._joint:
            return self.need
        readers = frozenset(self.readers)
        return max(self.need + len(readers - members) for members in self._members)

    @property
    def settles_on(self) -> int:
        """So many replicas with a version show it to every later read of as many replicas.

        Fewer than a majority promise no such thing: then one is enough.
        """
        if self.need < majority(max(len(self.shard.old), self.info.replication)):
            return 1
        readers = frozenset(self.readers)
        return max(len(members) - self.need + 1 + len(readers - members) for members in self._members)

    @property
    def covers(self) -> bool:
        """Whether the read meets every committed write; what one replica did not find, the others cannot verify."""
        if self.verified and self.takes > 1:
            return False
        most = max(self.info.replication, *(len(members) for members in self._members))
        return self.need + self.info.write_quorum > most

    @property
    def _members(self) -> tuple[frozenset[str], ...]:
        """The sets of members of each of which a read takes ``need``."""
        old, new = self.shard.old, self.shard.new
        return (old, new) if self._joint and new is not None else (old,)

    @property
    def _joint(self) -> bool:
        """Whether the read is one of a quorum while a move switches."""
        return self.shard.switching and self.need >= majority(self.info.replication)


async def hear(
    fanout: Fanout, asked: Asked, kind: str, make: Make[A], deadline: Deadline, *, only: str | None = None
) -> list[Heard[A]]:
    """The answers of as many replicas as the read takes, or of the one named ``only``; an error when too few come."""
    if only is not None:
        asked = asked._replace(need=1)
    if only is not None:
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


__all__ = ["Asked", "StaleMapError", "check_enough", "hear"]

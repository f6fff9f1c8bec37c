"""Filters resolved to ids, and points counted (P7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import Select
from omendb_router.asked import Asked, hear
from omendb_router.fanout import Fanout, together
from omendb_router.lookups import Lookups, Wanted
from omendb_router.versions import Census


class Chosen(NamedTuple):
    """Ids that match, with the stamps of the versions that do."""

    ids: IdColumn
    stamps: U64Array


class Selections:
    """Finds and counts what matches a filter."""

    def __init__(self, fanout: Fanout, lookups: Lookups) -> None:
        self._fanout = fanout
        self._lookups = lookups

    async def count(self, asked: Asked, condition: Filter | None, deadline: Deadline) -> int:
        """How many points of the shard match; on one replica its own count, on a quorum the newest versions'."""
        if asked.takes > 1:
            return len((await self.resolve(asked, condition, deadline)).ids)
        call = Select(asked.ref, condition, True)
        good = await hear(self._fanout, asked, "count", lambda _, node: node.select(call, deadline), deadline)
        return good[0].answer.count

    async def resolve(self, asked: Asked, condition: Filter | None, deadline: Deadline) -> Chosen:
        """The ids whose newest version matches, as the filter was answered by as many replicas as needed."""
        call = Select(asked.ref, condition)
        good = await hear(self._fanout, asked, "select", lambda _, node: node.select(call, deadline), deadline)
        if len(good) == 1:
            return Chosen(good[0].answer.ids, good[0].answer.stamps)
        census = Census.of([h.answer.ids for h in good], [h.answer.stamps for h in good])
        await ask_the_silent(self._lookups, asked, census, [h.node_id for h in good], deadline)
        places = np.flatnonzero(census.current())
        return Chosen(census.ids.take(places), census.offered.max(axis=0)[places])


async def ask_the_silent(
    lookups: Lookups, asked: Asked, census: Census, nodes: Sequence[str], deadline: Deadline
) -> None:
    """Let every replica say what it has of the ids that others offered and it did not."""

    async def one(replica: int) -> None:
        places = census.silent(replica)
        if len(places):
            ids = census.ids.take(places)
            census.heard(replica, places, await lookups.look(asked, nodes[replica], ids, Wanted(), deadline))

    await together([one(replica) for replica in range(len(nodes))])


__all__ = ["Chosen", "Selections", "ask_the_silent"]

"""Filters resolved to ids, and points counted (P7)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import DataNode, Score, Scored, Select
from omendb_router.asked import Asked, hear
from omendb_router.census import Census
from omendb_router.fanout import Fanout, together
from omendb_router.lookups import Lookups, Wanted
from omendb_router.standing import Editions, Mask


class Chosen(NamedTuple):
    """Ids that match, with the newest stamps that were seen of them."""

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
        """The ids whose version that counts matches, as the filter was answered by as many replicas as needed."""
        call = Select(asked.ref, condition)
        good = await hear(self._fanout, asked, "select", lambda _, node: node.select(call, deadline), deadline)
        if len(good) == 1:
            return Chosen(good[0].answer.ids, good[0].answer.stamps)
        offers = [h.answer for h in good]
        census = Census.of([a.ids for a in offers], [Editions.of(a.stamps, a.overlays) for a in offers])
        homes = await counted(self._lookups, asked, census, [h.node_id for h in good], deadline)
        keep = census.current()
        for node_id in dict.fromkeys(homes.values()):
            mine = np.array([place for place, home in homes.items() if home == node_id], np.int64)
            keep[mine] = await self._matches(asked, node_id, census.ids.take(mine), condition, deadline)
        places = np.flatnonzero(keep)
        return Chosen(census.ids.take(places), census.stamps()[places])

    async def _matches(
        self, asked: Asked, node_id: str, ids: IdColumn, condition: Filter | None, deadline: Deadline
    ) -> Mask:
        """Whether one replica's versions match: it scores them, against any query."""
        spec = asked.info.schema.vectors[0]
        query = np.ones(spec.dimension, np.float32)
        out = np.zeros(len(ids), np.bool_)
        step = self._fanout.settings.lookup_ids_max
        for start in range(0, len(ids), step):
            call = Score(asked.ref, query, ids.slice(start, start + step), spec.name, condition)
            good = await hear(self._fanout, asked, "score", partial(_score, call, deadline), deadline, only=node_id)
            out[start : start + step] = good[0].answer.matches
        return out


def _score(call: Score, deadline: Deadline, _: str, node: DataNode) -> Awaitable[Scored]:
    return node.score(call, deadline)


async def counted(
    lookups: Lookups, asked: Asked, census: Census, nodes: Sequence[str], deadline: Deadline
) -> dict[int, str]:
    """Let every replica say what it has of the ids that others offered and it did not.

    Returns:
        By place, the ids of which the version that counts was not offered, and a node that has it: some were written
        since, some do not match any more, and of some no replica had all, until now.
    """

    async def one(replica: int) -> None:
        places = census.silent(replica)
        if len(places):
            ids = census.ids.take(places)
            census.heard(replica, places, await lookups.look(asked, nodes[replica], ids, Wanted(), deadline))

    await together([one(replica) for replica in range(len(nodes))])
    homes = {place: nodes[replica] for replica, place in census.unseen()}
    torn = census.torn()
    if len(torn):
        settled = await lookups.settle(asked, census.ids.take(torn), deadline)
        homes |= dict(zip(torn.tolist(), settled.nodes, strict=True))
    return dict(sorted(homes.items()))


__all__ = ["Chosen", "Selections", "counted"]

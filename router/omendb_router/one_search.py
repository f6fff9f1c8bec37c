"""A quorum's search at the price of one: one replica searches, the others only what it is not proven to have (P23).

The others answer at the same time, with the hits among what they hold unproven and with the names of all ids that are.
Where nothing of that bears on what the first one found, its answer is the quorum's, and nobody is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.shard_calls import Search, ShardHits, Shared
from omendb_router.asked import Asked
from omendb_router.contest import Contest
from omendb_router.face_calls import Question
from omendb_router.fanout import Fanout, Heard, together

AGAIN_S = 1.0
"""After a replica could not tell what is unproven, all of its shard are searched as a whole for so long."""
# Two replicas' distances of one point agree to about this.
_ROUNDING = np.float32(1e-5)


@dataclass(frozen=True, slots=True)
class Found:
    """What the replicas of a quorum said. ``whole``: the one that searched. ``others``: what the others found.

    ``shared``: of each other, for what it vouches; None: it was searched as a whole as well.
    """

    whole: Heard[ShardHits]
    others: Sequence[Heard[ShardHits]]
    shared: Sequence[Shared | None]

    @property
    def heard(self) -> list[Heard[ShardHits]]:
        """All of them, the one that searched first."""
        return [self.whole, *self.others]

    def settled(self, k: int) -> bool:
        """Whether nothing that the others said bears on the hits of the first."""
        hits = self.whole.answer
        lo = None
        for heard, shared in zip(self.others, self.shared, strict=True):
            if shared is None or _comes_near(heard.answer, hits, k):
                return False
            if len(shared.names) and len(hits.ids):
                lo = hits.ids.hashes()[1] if lo is None else lo
                if shared.named(lo).any():
                    return False
        return True

    def contest(self, k: int) -> Contest:
        """The hits of all as one list, of which those that the others vouch for need not be asked of them."""
        contest = Contest.of([heard.answer for heard in self.heard], k, k)
        for replica, shared in enumerate(self.shared, 1):
            if shared is not None:
                contest.vouched(replica, shared)
        return contest


class OneSearch:
    """Asks the replicas of a quorum so. Belongs to one event loop."""

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self._not_before: dict[tuple[str, int], float] = {}

    async def ask(self, asked: Asked, question: Question, deadline: Deadline) -> Found | None:
        """What the replicas say; None where the quorum is to be asked in the usual way, which tells errors as well."""
        key = asked.ref[:2]
        if not self._fanout.settings.search_once or self._fanout.clock.mono_s() < self._not_before.get(key, 0.0):
            return None
        order, takes = self._fanout.by_company(asked.readers), asked.takes
        spares = order[takes:]
        searched, told = await together(
            [
                self._ask([order[0], *spares], 1, search_call(asked, question, question.k, content=True), deadline),
                self._ask([*order[1:takes], *spares], takes - 1, _unproven_call(asked, question), deadline),
            ]
        )
        if len({heard.node_id for heard in (*searched, *told)}) < takes:
            return None  # too few answered, or one was asked for both as another was late
        return await self._covered(asked, searched[0], told, question, deadline)

    async def _ask(self, nodes: Sequence[str], need: int, call: Search, deadline: Deadline) -> list[Heard[ShardHits]]:
        kind = "unproven" if call.unproven else "search"
        return (await self._fanout.ask(nodes, need, kind, lambda _, node: node.search(call, deadline), deadline))[0]

    async def _covered(
        self,
        asked: Asked,
        whole: Heard[ShardHits],
        told: Sequence[Heard[ShardHits]],
        question: Question,
        deadline: Deadline,
    ) -> Found | None:
        """Have those searched that do not vouch for the rest of what they hold."""
        place = whole.answer.opening, whole.answer.lsn
        shared = [
            said if (said := heard.answer.shared) is not None and said.vouches_for(*place) else None for heard in told
        ]
        if None not in shared:
            self._fanout.counts["searches_once"] += 1
            return Found(whole, told, shared)
        self._fanout.counts["searches_not_covered"] += 1
        if len(self._not_before) > _SHARDS_KNOWN_MAX:
            self._not_before.clear()
        self._not_before[asked.ref[:2]] = self._fanout.clock.mono_s() + AGAIN_S
        call = search_call(asked, question, question.k, content=False)
        again = [heard.node_id for heard, said in zip(told, shared, strict=True) if said is None]
        searched = await together([self._ask([node_id], 1, call, deadline) for node_id in again])
        answers = {heard.node_id: heard for found in searched for heard in found}
        if len(answers) < len(again):
            return None
        return Found(whole, [answers.get(heard.node_id, heard) for heard in told], shared)


_SHARDS_KNOWN_MAX = 10_000


def search_call(asked: Asked, q: Question, k: int, *, content: bool) -> Search:
    """A whole search of one replica."""
    return Search(
        asked.ref,
        q.queries,
        k,
        q.field,
        q.condition,
        q.exact,
        q.ef,
        q.recall_target,
        q.score_threshold,
        q.payload and content,
        q.vectors and content,
    )


def _unproven_call(asked: Asked, q: Question) -> Search:
    return Search(asked.ref, q.queries, q.k, q.field, q.condition, score_threshold=q.score_threshold, unproven=True)


def _comes_near(other: ShardHits, hits: ShardHits, k: int) -> bool:
    """Whether a hit of another replica may be among the k nearest."""
    if not len(other.ids):
        return False
    horizon = np.full(len(hits.counts), np.inf, np.float32)
    if hits.distances.shape[1] >= k:
        full = hits.counts >= k
        horizon[full] = hits.distances[full, k - 1]
        horizon[full] += _ROUNDING * np.abs(horizon[full])
    some = other.counts > 0
    return bool((other.distances[some, 0] <= horizon[some]).any())


__all__ = ["AGAIN_S", "Found", "OneSearch", "search_call"]

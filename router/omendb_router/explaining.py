"""How a search is made, as one replica of each shard tells it; and whether it finds what an exact one finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.errors import UnavailableError
from omendb_common.explanation import Explanation, recall_of
from omendb_common.shard_calls import Search, ShardHits
from omendb_router.asked import Asked, hear
from omendb_router.face_calls import Question
from omendb_router.fanout import Fanout, Heard, together
from omendb_router.one_search import search_call


class _Told(NamedTuple):
    """What one replica said. ``exact``: its exact answer to the same question, where that was asked for."""

    shard: int
    node: str
    explanation: Explanation
    hits: ShardHits
    exact: ShardHits | None


async def explain(
    fanout: Fanout, shards: Sequence[Asked], question: Question, deadline: Deadline, *, measure: bool
) -> Explanation:
    """How the shards are searched: whatever level a search asks for, one replica of each searches as is told here.

    Raises:
        UnavailableError: too few replicas answered, or one of an older release did, which cannot tell.
    """
    told = await together([_one(fanout, asked.single, question, deadline, measure) for asked in shards])
    joined = Explanation.joined([(one.shard, one.node, one.explanation) for one in told], question.k)
    if not measure:
        return joined
    exact = [one.exact for one in told if one.exact is not None]
    return joined.measured(recall_of(_ids([one.hits for one in told], question.k), _ids(exact, question.k)))


async def _one(fanout: Fanout, asked: Asked, question: Question, deadline: Deadline, measure: bool) -> _Told:
    question = question._replace(payload=False, vectors=False, score_threshold=None)
    call = search_call(asked, question, question.k, content=False)._replace(explain=True)
    heard = await _heard(fanout, asked, call, deadline)
    explanation = heard.answer.explanation
    if explanation is None:
        raise UnavailableError(
            f"data node {heard.node_id} is of a release that does not tell how it searches",
            field=asked.info.name,
            mend="upgrade it",
        )
    exact = None
    if measure:
        # The same replica: another one may hold other points at this moment.
        again = call._replace(explain=False, exact=True, ef=None, recall_target=None)
        exact = (await _heard(fanout, asked, again, deadline, heard.node_id)).answer
    return _Told(asked.shard.shard_id, heard.node_id, explanation, heard.answer, exact)


async def _heard(
    fanout: Fanout, asked: Asked, call: Search, deadline: Deadline, only: str | None = None
) -> Heard[ShardHits]:
    good = await hear(fanout, asked, "search", lambda _, node: node.search(call, deadline), deadline, only=only)
    return good[0]


def _ids(answers: Sequence[ShardHits], k: int) -> list[list[Any]]:
    """The ids of the ``k`` nearest of every query over all shards."""
    queries = len(answers[0].counts) if answers else 0
    found: list[list[tuple[float, Any]]] = [[] for _ in range(queries)]
    for hits in answers:
        ids, at = hits.ids.to_list(), 0
        for query, count in enumerate(hits.counts.tolist()):
            found[query] += zip(np.asarray(hits.distances[query, :count]).tolist(), ids[at : at + count], strict=True)
            at += count
    return [[point for _, point in sorted(hits, key=lambda hit: hit[0])[:k]] for hits in found]


__all__ = ["explain"]

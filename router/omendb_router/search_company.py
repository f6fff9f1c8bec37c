"""Searches that say the same and come in one turn of the event loop are asked as one, and answered apart.

All that a router does for a search but reading its message and writing its answer it does then once for all of them.
The first of them asks for the others, in its own task; one that comes alone waits for nobody.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable, Sequence

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.shard_calls import Work
from omendb_common.wire import status
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.face_calls import Hits

TOGETHER_MAX = 16
"""Searches that are asked as one, of one replica; the next one begins another company, which may go to another."""
K_MAX = 1024
"""Deeper ones go alone: there is little to be saved of what they cost."""
_STEPS = 16
# Time left is alike when it differs by less than a sixteenth: no search is cut short by more for another's haste.

Ask = Callable[[Sequence[pb.SearchRequest], Deadline], Awaitable[Sequence[pb.SearchReply]]]
"""Asks searches that differ in their queries alone; the answer to each."""


class _Group:
    """Searches of one turn: the first one's, which leads, and the others, each with the future of its answer."""

    __slots__ = ("deadline", "others")

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.others: list[tuple[pb.SearchRequest, asyncio.Future[pb.SearchReply | None]]] = []


class SearchCompany:
    """Joins searches for one face. Used from one event loop."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._groups: dict[Hashable, _Group] = {}

    async def search(self, asked: pb.SearchRequest, deadline: Deadline) -> pb.SearchReply:
        """The answer to one search; raises what asking for it raises."""
        key = _key(asked, deadline)
        if key is None:
            return await self._alone(asked, deadline)
        group = self._groups.get(key)
        if group is None or len(group.others) >= TOGETHER_MAX - 1:
            return await self._lead(key, asked, deadline)
        if deadline.at_s < group.deadline.at_s:
            group.deadline = deadline
        answer: asyncio.Future[pb.SearchReply | None] = asyncio.get_running_loop().create_future()
        group.others.append((asked, answer))
        reply = await answer
        # None: the one that led was given up, or one of us asked for what cannot be: each for itself.
        return await self._alone(asked, deadline) if reply is None else reply

    async def _alone(self, asked: pb.SearchRequest, deadline: Deadline) -> pb.SearchReply:
        return (await self._ask([asked], deadline))[0]

    async def _lead(self, key: Hashable, asked: pb.SearchRequest, deadline: Deadline) -> pb.SearchReply:
        """Wait for the end of the turn, and ask for all that came in it."""
        group = self._groups[key] = _Group(deadline)
        try:
            # The others' first steps come before this task's next one.
            await asyncio.sleep(0)
            self._close(key, group)
            if not group.others:
                return await self._alone(asked, deadline)
            mine, *rest = await self._ask([asked, *(other for other, _ in group.others)], group.deadline)
        except InvalidArgumentError:
            if not group.others:
                raise
            _release(group)
            return await self._alone(asked, deadline)
        except OmenDBError as error:
            for _, answer in group.others:
                if not answer.done():
                    # Each its own: an exception that is raised twice collects the frames of both.
                    answer.set_exception(status.from_proto(status.to_proto(error)))
            raise
        except BaseException:
            self._close(key, group)
            _release(group)
            raise
        for (_, answer), reply in zip(group.others, rest, strict=True):
            if not answer.done():
                answer.set_result(reply)
        return mine

    def _close(self, key: Hashable, group: _Group) -> None:
        """Nobody joins any more."""
        if self._groups.get(key) is group:
            del self._groups[key]


def _release(group: _Group) -> None:
    for _, answer in group.others:
        if not answer.done():
            answer.set_result(None)


def _key(asked: pb.SearchRequest, deadline: Deadline) -> Hashable | None:
    """Equal for searches that can be asked as one; None for one that goes alone."""
    left_s = deadline.left_s
    if not asked.dimension or len(asked.queries) != 4 * asked.dimension or asked.k > K_MAX or left_s <= 0.0:
        return None
    return (
        asked.collection,
        asked.dimension,
        asked.k,
        asked.field,
        asked.filter,
        asked.exact,
        asked.ef if asked.HasField("ef") else None,
        asked.recall_target if asked.HasField("recall_target") else None,
        asked.score_threshold if asked.HasField("score_threshold") else None,
        asked.with_payload,
        asked.with_vectors,
        asked.consistency,
        asked.session,
        math.floor(math.log(left_s) * _STEPS),
    )


def split(hits: Hits) -> list[Hits]:
    """The hits of each query, as if it had come alone."""
    m = len(hits.counts)
    ends = np.cumsum(hits.counts).tolist()
    work = _share(hits.work, m)
    parts, first = [], 0
    for query, last in enumerate(ends):
        payload = hits.payload
        if payload is not None and payload.num_columns:
            payload = payload.slice(first, last - first)
        parts.append(
            hits._replace(
                distances=hits.distances[query : query + 1],
                counts=hits.counts[query : query + 1],
                ids=hits.ids.slice(first, last),
                payload=payload,
                vectors=None if hits.vectors is None else hits.vectors[first:last],
                work=work,
            )
        )
        first = last
    return parts


def _share(work: Work, m: int) -> Work:
    return work._replace(vectors_scanned=work.vectors_scanned // m, cost_estimate=work.cost_estimate / m)


__all__ = ["K_MAX", "TOGETHER_MAX", "Ask", "SearchCompany", "split"]

"""Searches: one replica of each shard, or a quorum whose answers are verified against each other (P9, P10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.deadline import Deadline
from omendb_common.errors import UnavailableError
from omendb_common.ids import IdColumn
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_common.schema import K_MAX
from omendb_common.scores import distance_to_score
from omendb_common.shard_calls import Float32, Int64, Lookup, Score, ShardHits, State, Work
from omendb_router.asked import Asked, check_enough, hear
from omendb_router.contest import Contest
from omendb_router.face_calls import Question
from omendb_router.fanout import Fanout, Heard, together
from omendb_router.lookups import Lookups, Wanted
from omendb_router.one_search import OneSearch, search_call
from omendb_router.points import Piece, assemble, join_payloads, no_payload, take_payload
from omendb_router.ranking import (
    Ranked,
    candidates_for,
    flat_distances,
    flat_queries,
    matrix,
    merged,
    verified_at_once,
)
from omendb_router.standing import Editions

_SEARCHES_MAX = 3


@dataclass(slots=True)
class ShardAnswer:
    """The hits of one shard, ordered by query.

    ``nodes`` and ``holders``: who has each hit as it is shown, in this ``edition``; None where the content came along.
    """

    asked: Asked
    ranked: Ranked
    work: Work
    payload: pa.RecordBatch | None = None
    vectors: npt.NDArray[Any] | None = None
    nodes: tuple[str, ...] = ()
    holders: Int64 | None = None
    edition: Editions | None = None


class Merged(NamedTuple):
    """The hits of m queries over all shards; the flat columns are ordered by query."""

    distances: Float32
    counts: Int64
    ids: IdColumn
    payload: pa.RecordBatch | None
    vectors: npt.NDArray[Any] | None
    work: Work


class Searches:
    """Searches the shards of a collection."""

    def __init__(self, fanout: Fanout, lookups: Lookups) -> None:
        self._fanout = fanout
        self._lookups = lookups
        self._one_search = OneSearch(fanout)

    async def search(self, shards: Sequence[Asked], question: Question, deadline: Deadline) -> Merged:
        """The k nearest of every query over these shards."""
        if len(shards) == 1 and shards[0].takes == 1:
            return _as_it_came(await self._hits(shards[0], question, question.k, deadline, content=True), question)
        for attempt in range(_SEARCHES_MAX):
            answers = await together([self._shard(asked, question, deadline) for asked in shards])
            final = _final(answers, question.k)
            content = await self._content(answers, final, question, deadline)
            if content.unchanged or attempt == _SEARCHES_MAX - 1:
                return _merged(answers, final, content, question)
        raise AssertionError("unreachable")

    async def _shard(self, asked: Asked, question: Question, deadline: Deadline) -> ShardAnswer:
        if asked.takes == 1:
            return await self._one(asked, question, deadline)
        return await self._quorum(asked, question, deadline)

    # -- one replica

    async def _one(self, asked: Asked, question: Question, deadline: Deadline) -> ShardAnswer:
        return _of_one(asked, (await self._hits(asked, question, question.k, deadline, content=True))[0].answer)

    # -- a quorum

    async def _quorum(self, asked: Asked, question: Question, deadline: Deadline) -> ShardAnswer:
        """Search, verify, and search deeper for the queries that came out short (P9 a to c).

        ``verified``: one replica searches, and its hits come with their content, which nearly always stays as it is.
        """
        if not asked.verified:
            answer = await self._at_the_price_of_one(asked, question, deadline)
            if answer is not None:
                return answer
        searching = asked.single if asked.verified else asked
        rows = np.arange(len(question.queries), dtype=np.int64)
        wanted = question.k if asked.verified else candidates_for(question.k, K_MAX)
        done: list[tuple[Int64, Contest, list[str]]] = []
        works: list[Work] = []
        while True:
            part = question._replace(queries=question.queries[rows])
            heard = await self._hits(searching, part, wanted, deadline, content=asked.verified and not done)
            works += [h.answer.work for h in heard]
            contest = Contest.of([h.answer for h in heard], question.k, wanted, silent=asked.takes - len(heard))
            nodes = [h.node_id for h in heard]
            nodes += await self._others(asked, contest, nodes, deadline)
            proven = await self._verify(asked, contest, nodes, part, len(done), deadline)
            if asked.verified and proven and not done and not contest.touched:
                return _of_one(asked, heard[0].answer)
            short = contest.short() if proven else np.arange(len(rows))
            if not len(short) or wanted >= K_MAX:
                if not proven:
                    raise UnavailableError(
                        "the points found change faster than they can be read",
                        field=asked.info.name,
                        mend="search again",
                    )
                done.append((rows, contest, nodes))
                return _joined_contests(asked, done, works)
            done.append((rows, contest, nodes))
            rows, wanted = rows[short], min(2 * wanted, K_MAX)
            deadline.check("searching deeper")

    async def _at_the_price_of_one(self, asked: Asked, question: Question, deadline: Deadline) -> ShardAnswer | None:
        """The quorum's answer where one replica searched (P23); None where that is not enough to tell it."""
        found = await self._one_search.ask(asked, question, deadline)
        if found is None:
            return None
        if found.settled(question.k):
            self._fanout.counts["searches_settled"] += 1
            return _of_one(asked, found.whole.answer)
        contest, nodes = found.contest(question.k), [heard.node_id for heard in found.heard]
        if not await self._verify(asked, contest, nodes, question, 0, deadline) or len(contest.short()):
            return None
        if not contest.touched and contest.as_offered(found.whole.answer):
            return _of_one(asked, found.whole.answer)
        rows = np.arange(len(question.queries), dtype=np.int64)
        return _joined_contests(asked, [(rows, contest, nodes)], [heard.answer.work for heard in found.heard])

    async def _hits(
        self, asked: Asked, question: Question, wanted: int, deadline: Deadline, *, content: bool = False
    ) -> list[Heard[ShardHits]]:
        call = search_call(asked, question, wanted, content=content)
        return await hear(self._fanout, asked, "search", lambda _, node: node.search(call, deadline), deadline)

    async def _others(self, asked: Asked, contest: Contest, nodes: Sequence[str], deadline: Deadline) -> list[str]:
        """As many replicas as are still to be asked, which have said what they have of the first of the hits."""
        need = asked.takes - len(nodes)
        if need <= 0:
            return []
        uids = contest.unasked(len(nodes))[: self._fanout.settings.lookup_ids_max]
        call = Lookup(asked.ref, contest.ids.take(uids), brief=True)
        order = [node_id for node_id in self._fanout.by_promise(asked.readers) if node_id not in nodes]
        if not len(uids):
            return order[:need]
        good, bad = await self._fanout.ask(order, need, "lookup", lambda _, node: node.lookup(call, deadline), deadline)
        check_enough(asked, good, bad, deadline, need=need)
        for number, heard in enumerate(good, len(nodes)):
            contest.heard(number, uids, heard.answer)
        return [heard.node_id for heard in good]

    async def _verify(
        self,
        asked: Asked,
        contest: Contest,
        nodes: list[str],
        question: Question,
        deeper: int,
        deadline: Deadline,
    ) -> bool:
        """Ask every replica for the hits it is silent about, until nothing that is shown is old or deleted.

        ``nodes``: the replicas, to which the homes of those points are added whose records had to be put together.
        ``deeper``: how many searches came before this one.
        """
        replicas = len(nodes)
        for number in range(self._fanout.settings.verify_rounds_max):
            reach = verified_at_once(contest.k, number + deeper)
            silent = [(r, contest.unasked(r, reach)) for r in range(replicas)]
            silent = [(r, uids) for r, uids in silent if len(uids)]
            looked = await together(
                [self._lookups.look(asked, nodes[r], contest.ids.take(uids), Wanted(), deadline) for r, uids in silent]
            )
            for (r, uids), answer in zip(silent, looked, strict=True):
                contest.heard(r, uids, answer)
            torn = contest.judge()
            if len(torn):
                settled = await self._lookups.settle(asked, contest.ids.take(torn), deadline)
                homes = len(nodes) + np.arange(len(torn))
                nodes += settled.nodes
                contest.settled(torn, homes, settled.states == State.LIVE)
            outdated = contest.outdated()
            await together([self._rescore(asked, contest, nodes, *item, question, deadline) for item in outdated])
            if outdated:
                contest.resort()
            if contest.done():
                return True
        return False

    async def _rescore(
        self,
        asked: Asked,
        contest: Contest,
        nodes: Sequence[str],
        home: int,
        query: int,
        entries: Int64,
        question: Question,
        deadline: Deadline,
    ) -> None:
        """Let the node that has the version that counts of some hits say whether and how near that one is."""
        ids = contest.ids.take(contest.uid[entries])
        call = Score(asked.ref, question.queries[query], ids, question.field, question.condition)
        good = await hear(
            self._fanout, asked, "score", lambda _, node: node.score(call, deadline), deadline, only=nodes[home]
        )
        scored = good[0].answer
        keep = scored.matches
        if question.score_threshold is not None:
            metric = asked.info.schema.vector(question.field).metric
            keep = keep & (distance_to_score(scored.distances, metric) >= question.score_threshold)
        contest.rescored(entries, scored, keep, scored.distances)

    # -- content

    async def _content(
        self, answers: Sequence[ShardAnswer], final: _Final, question: Question, deadline: Deadline
    ) -> _Content:
        """Payload and vectors of the final hits, in their order (P9 e)."""
        n = len(final.query)
        if not question.payload and not question.vectors:
            return _Content(None, None, np.ones(n, np.bool_), True)
        chosen = [np.flatnonzero(final.shard == number) for number in range(len(answers))]
        parts = await together(
            [
                self._content_of(answer, final.row[places], question, deadline)
                for answer, places in zip(answers, chosen, strict=True)
            ]
        )
        order = np.argsort(np.concatenate(chosen), kind="stable")
        there = np.concatenate([p.there for p in parts])[order]
        payload = vectors = None
        if question.payload:
            payload = take_payload(join_payloads([p.payload for p in parts], [len(c) for c in chosen]), order)
        if question.vectors:
            vectors = np.concatenate([p.vectors for p in parts if p.vectors is not None])[order]
        return _Content(payload, vectors, there, all(p.unchanged for p in parts))

    async def _content_of(self, answer: ShardAnswer, rows: Int64, question: Question, deadline: Deadline) -> _Content:
        n = len(rows)
        if answer.holders is None or answer.edition is None:
            payload = take_payload(answer.payload, rows) if question.payload else None
            vectors = answer.vectors[rows] if question.vectors and answer.vectors is not None else None
            return _Content(payload, vectors, np.ones(n, np.bool_), True)
        names = (question.field,) if question.vectors else ()
        wanted = Wanted(question.payload, names)
        held = [np.flatnonzero(answer.holders[rows] == number) for number in range(len(answer.nodes))]
        ids = answer.ranked.ids.take(rows)
        looked = await together(
            [
                self._lookups.look(answer.asked, node_id, ids.take(mine), wanted, deadline)
                for node_id, mine in zip(answer.nodes, held, strict=True)
                if len(mine)
            ]
        )
        places = [mine for mine in held if len(mine)]
        pieces = [Piece(mine, a, np.arange(len(mine))) for mine, a in zip(places, looked, strict=True)]
        unchanged = all(
            bool(answer.edition.take(rows[mine]).same(Editions.of(a.stamps, a.overlays)).all())
            for mine, a in zip(places, looked, strict=True)
        )
        content = assemble(pieces, question.payload, names)
        # Where a point is gone by now the columns have a hole, so that they stay parallel to the hits.
        at = np.full(n, -1, np.int64)
        at[content.positions] = np.arange(len(content.positions))
        payload = content.payload
        if payload is not None and payload.num_columns:
            payload = payload.take(arrow_of_numpy(at, at < 0))
        vectors = None
        if names:
            spec = answer.asked.info.schema.vector(question.field)
            vectors = np.zeros((n, spec.dimension), spec.numpy_dtype)
            vectors[content.positions] = content.vectors.get(question.field, vectors[:0])
        return _Content(payload, vectors, at >= 0, unchanged)


class _Final(NamedTuple):
    """The hits that are shown, ordered by query: the shard each comes from and its row there."""

    shard: Int64
    row: Int64
    query: Int64
    distance: Float32
    ids: IdColumn


class _Content(NamedTuple):
    """What is shown of hits beside id and distance. ``there``: which still live; ``unchanged``: all as they were."""

    payload: pa.RecordBatch | None
    vectors: npt.NDArray[Any] | None
    there: npt.NDArray[np.bool_]
    unchanged: bool


def _of_one(asked: Asked, hits: ShardHits) -> ShardAnswer:
    """One replica's hits are the shard's."""
    ranked = Ranked(flat_queries(hits.counts), flat_distances(hits), hits.ids, hits.stamps)
    return ShardAnswer(asked, ranked, hits.work, hits.payload, hits.vectors)


def _as_it_came(heard: Sequence[Heard[ShardHits]], question: Question) -> Merged:
    """One replica's answer is the answer."""
    hits = heard[0].answer
    payload = (hits.payload if hits.payload is not None else no_payload()) if question.payload else None
    return Merged(hits.distances, hits.counts, hits.ids, payload, hits.vectors, hits.work)


def _final(answers: Sequence[ShardAnswer], k: int) -> _Final:
    parts = [a.ranked for a in answers]
    if len(parts) == 1:
        only = parts[0]
        return _Final(np.zeros_like(only.query), np.arange(len(only.query)), only.query, only.distance, only.ids)
    shard, row = merged(parts, k, same_id_in_many=answers[0].asked.info.partition_key is not None)
    place = np.cumsum([0, *(len(p.query) for p in parts)])[shard] + row
    return _Final(
        shard,
        row,
        np.concatenate([p.query for p in parts])[place],
        np.concatenate([p.distance for p in parts])[place],
        IdColumn.concat([p.ids for p in parts]).take(place),
    )


def _merged(answers: Sequence[ShardAnswer], final: _Final, content: _Content, question: Question) -> Merged:
    query, distance, ids, payload, vectors = final.query, final.distance, final.ids, content.payload, content.vectors
    if not content.there.all():
        kept = np.flatnonzero(content.there)
        query, distance, ids = query[kept], distance[kept], ids.take(kept)
        payload = None if payload is None else take_payload(payload, kept)
        vectors = None if vectors is None else vectors[kept]
    distances, counts = matrix(distance, query, len(question.queries), question.k)
    return Merged(distances, counts, ids, payload, vectors, _sum([a.work for a in answers]))


def _joined_contests(
    asked: Asked, done: Sequence[tuple[Int64, Contest, list[str]]], works: Sequence[Work]
) -> ShardAnswer:
    """The answer of a shard from its rounds: each query from the last round it was part of."""
    m = 1 + max(int(rows.max()) for rows, _, _ in done)
    last = np.zeros(m, np.int64)
    for number, (rows, _, _) in enumerate(done):
        last[rows] = number
    nodes: list[str] = []
    columns: list[tuple[Int64, Float32, Int64]] = []
    editions: list[Editions] = []
    ids: list[IdColumn] = []
    for number, (rows, contest, names) in enumerate(done):
        top = contest.top()
        top = top[last[rows[contest.query[top]]] == number]
        uids = contest.uid[top]
        columns.append((rows[contest.query[top]], contest.distance[top], contest.home[uids] + len(nodes)))
        editions.append(contest.edition.take(top))
        nodes += names
        ids.append(contest.ids.take(uids))
    query = np.concatenate([c[0] for c in columns])
    order = np.argsort(query, kind="stable")
    edition = Editions.joined(editions).take(order)
    distance = np.concatenate([c[1] for c in columns])[order]
    ranked = Ranked(query[order], distance, IdColumn.concat(ids).take(order), edition.stamps)
    holders = np.concatenate([c[2] for c in columns])[order]
    return ShardAnswer(asked, ranked, _sum(works), nodes=tuple(nodes), holders=holders, edition=edition)


def _sum(works: Sequence[Work]) -> Work:
    return Work(
        sum(w.vectors_scanned for w in works),
        sum(w.segments_searched for w in works),
        sum(w.segments_skipped for w in works),
        sum(w.cache_hit_rate for w in works) / max(len(works), 1),
        sum(w.cost_estimate for w in works),
    )


__all__ = ["Merged", "Searches", "ShardAnswer"]

"""Versions and hits of several replicas merged in columns, against the same rules over dictionaries."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_chaos.sim.memory_node import overlays_of
from omendb_chaos.sim.memory_record import Record
from omendb_common.ids import IdColumn
from omendb_common.shard_calls import Looked, ShardHits, State, Verdict
from omendb_router.census import Census
from omendb_router.contest import Contest
from omendb_router.ranking import Ranked, candidates_for, matrix, merged
from omendb_router.standing import Editions
from omendb_router.versions import newest, place_of

IDS = range(12)
HIT = st.tuples(st.integers(0, 2), st.integers(0, 5))


@dataclass(frozen=True)
class Version:
    stamp: int
    live: bool
    distances: tuple[float, ...]


Replica = dict[int, Version]
"""What a replica has; every stamp means the same version everywhere."""


@st.composite
def replicas(draw: st.DrawFn) -> tuple[list[Replica], int]:
    """Two or three replicas, each with one of a few versions of every id, or none; and the number of queries."""
    queries = draw(st.integers(1, 3))
    near = st.integers(0, 6).map(float)
    versions = {
        i: [
            Version(10 * i + n + 1, draw(st.integers(0, 3)) > 0, tuple(draw(near) for _ in range(queries)))
            for n in range(draw(st.integers(1, 3)))
        ]
        for i in IDS
    }
    out: list[Replica] = []
    for _ in range(draw(st.integers(2, 3))):
        has = {i: draw(st.sampled_from([None, *known])) for i, known in versions.items()}
        out.append({i: v for i, v in has.items() if v is not None})
    return out, queries


def look(replica: Replica, ids: list[int]) -> Looked:
    has = [replica.get(i) for i in ids]
    states = [State.ABSENT if v is None else State.LIVE if v.live else State.DELETED for v in has]
    stamps = np.array([0 if v is None else v.stamp for v in has], np.uint64)
    return Looked(Verdict.OK, np.array(states, np.uint8), stamps, stamps * np.uint64(7))


def truth(replicas: list[Replica]) -> Replica:
    """The newest version of every id."""
    out: Replica = {}
    for replica in replicas:
        for i, version in replica.items():
            if i not in out or out[i].stamp < version.stamp:
                out[i] = version
    return out


def as_ints(column: IdColumn) -> list[int]:
    return [int(i) for i in column.to_list()]


# -- versions that lie over each other: records as replicas have them, of which each missed some writes

Records = dict[int, Record]


def records(seed: int) -> tuple[list[Records], int]:
    """Two or three replicas that took some of the upserts, deletions and updates of every id; the number of queries."""
    rng = random.Random(seed)
    queries = rng.randint(1, 3)
    everybody: list[Records] = [{} for _ in range(rng.randint(2, 3))]
    for i in IDS:
        stamps = list(range(10 * i + 1, 10 * i + 1 + rng.randint(1, 4)))
        rng.shuffle(stamps)
        for stamp in stamps:
            kind = rng.choice(["upsert", "upsert", "delete", "update", "update"])
            content = np.array([float(rng.randint(0, 6)) for _ in range(queries)])
            for replica in everybody:
                stored = replica.get(i, Record())
                if rng.random() < 0.5 and (kind != "update" or stored.live):
                    replica[i] = stored.joined(change(kind, stamp, content))
    return everybody, queries


def change(kind: str, stamp: int, content: Any) -> Record:
    if kind == "upsert":
        return Record(stamp, 0, {"": content})
    return Record(deleted=stamp) if kind == "delete" else Record(fields={("vector", ""): (stamp, content)})


SEEDS = st.integers(0, 1 << 40)


def hits_of(replica: Records, queries: int, k: int) -> ShardHits:
    distances = np.full((queries, k), np.inf, np.float32)
    counts = np.zeros(queries, np.int64)
    ids: list[int] = []
    for q in range(queries):
        hits = sorted((r.vector("")[q], i) for i, r in replica.items() if r.live)[:k]
        distances[q, : len(hits)] = [d for d, _ in hits]
        counts[q] = len(hits)
        ids += [i for _, i in hits]
    found = looked_up(replica, ids)
    column = IdColumn.of(np.array(ids, np.uint64))
    return ShardHits(Verdict.OK, distances, counts, column, found.stamps, overlays=found.overlays)


def looked_up(replica: Records, ids: list[int]) -> Looked:
    has = [replica.get(i, Record()) for i in ids]
    states = [State.LIVE if r.live else State.DELETED if r.deleted else State.ABSENT for r in has]
    stamps = np.array([r.newest for r in has], np.uint64)
    return Looked(Verdict.OK, np.array(states, np.uint8), stamps, overlays=overlays_of(has))


def whole(everybody: list[Records]) -> Records:
    """All that any replica has of every id."""
    return {i: functools.reduce(Record.joined, [r.get(i, Record()) for r in everybody], Record()) for i in IDS}


def settle(everybody: list[Records], contest: Contest, nodes: list[Records]) -> None:
    """Judge; and let the records that none has whole be put together on a node of their own."""
    torn = contest.judge()
    if len(torn):
        best = whole(everybody)
        ids = as_ints(contest.ids.take(torn))
        contest.settled(torn, len(nodes) + np.arange(len(torn)), np.array([best[i].live for i in ids], np.bool_))
        nodes += [{i: best[i]} for i in ids]


def verified(everybody: list[Records], contest: Contest, nodes: list[Records]) -> None:
    """What a router does until all that is shown is whole."""
    while not contest.done():
        for number, replica in enumerate(everybody):
            uids = contest.unasked(number)
            contest.heard(number, uids, looked_up(replica, as_ints(contest.ids.take(uids))))
        settle(everybody, contest, nodes)
        for home, query, entries in contest.outdated():
            ids = as_ints(contest.ids.take(contest.uid[entries]))
            has = [nodes[home][i] for i in ids]
            distances = np.array([r.vector("")[query] if r.live else np.inf for r in has], np.float32)
            contest.rescored(entries, looked_up(nodes[home], ids), np.array([r.live for r in has]), distances)
        contest.resort()


def check(contest: Contest, nodes: list[Records], best: Records) -> None:
    """Whatever is shown is the whole point, in its place, and its home has it."""
    for at in contest.top().tolist():
        (i,) = as_ints(contest.ids.take(contest.uid[at : at + 1]))
        assert best[i].live
        assert contest.distance[at] == best[i].vector("")[contest.query[at]]
        assert nodes[int(contest.home[contest.uid[at]])][i] == best[i]


@settings(deadline=None, max_examples=400)
@given(SEEDS, st.integers(1, 6))
def test_a_verified_contest_shows_the_nearest_of_what_counts(seed: int, k: int) -> None:
    everybody, queries = records(seed)
    best, wanted = whole(everybody), 2 * k
    while True:
        nodes = list(everybody)
        contest = Contest.of([hits_of(r, queries, wanted) for r in everybody], k, wanted)
        verified(everybody, contest, nodes)
        if not len(contest.short()):
            break
        wanted *= 2
    check(contest, nodes, best)
    for q in range(queries):
        expected = sorted(r.vector("")[q] for r in best.values() if r.live)[:k]
        assert contest.distance[contest.top()][contest.query[contest.top()] == q].tolist() == expected


@settings(deadline=None, max_examples=200)
@given(SEEDS, st.integers(1, 6))
def test_what_one_replica_found_is_verified_by_the_others(seed: int, k: int) -> None:
    everybody, queries = records(seed)
    best, wanted = whole(everybody), k
    while True:
        nodes = list(everybody)
        contest = Contest.of([hits_of(everybody[0], queries, wanted)], k, wanted, silent=len(everybody) - 1)
        verified(everybody, contest, nodes)
        if not len(contest.short()):
            break
        wanted *= 2
    check(contest, nodes, best)
    known = {i for i, r in everybody[0].items() if r.live and best[i].live}
    for q in range(queries):
        assert int((contest.query[contest.top()] == q).sum()) == min(k, len(known))


@settings(deadline=None)
@given(replicas())
def test_the_newest_version_wins_and_absence_is_no_version(drawn: tuple[list[Replica], int]) -> None:
    everybody, _ = drawn
    ids = list(IDS)
    versions = newest([look(r, ids) for r in everybody])
    best = truth(everybody)
    for at, i in enumerate(ids):
        version = best.get(i)
        expected = State.ABSENT if version is None else State.LIVE if version.live else State.DELETED
        assert versions.states[at] == expected
        assert versions.holds[:, at].tolist() == [r.get(i) == version for r in everybody]
        assert everybody[int(versions.holder[at])].get(i) == version
        assert versions.agreed[at] == all(r.get(i) == version for r in everybody)
    assert not versions.torn.any()


def test_of_one_stamp_a_deletion_wins_and_different_contents_are_torn() -> None:
    def one(state: State, stamp: int, digest: int) -> Looked:
        return Looked(
            Verdict.OK, np.array([state], np.uint8), np.array([stamp], np.uint64), np.array([digest], np.uint64)
        )

    versions = newest([one(State.LIVE, 5, 1), one(State.DELETED, 5, 2), one(State.LIVE, 4, 3)])
    assert (versions.states[0], versions.holder[0], versions.torn[0]) == (State.DELETED, 1, True)
    versions = newest([one(State.LIVE, 5, 1), one(State.LIVE, 5, 2)])
    assert versions.torn[0]
    assert not newest([one(State.ABSENT, 0, 0), one(State.ABSENT, 0, 0)]).torn[0]


@settings(deadline=None, max_examples=300)
@given(SEEDS)
def test_a_census_keeps_what_counts_and_says_what_to_look_at_again(seed: int) -> None:
    everybody, _ = records(seed)

    def matches(record: Record) -> bool:
        return record.live and bool(record.vector("")[0] < 4)

    offers = [[i for i, record in r.items() if matches(record)] for r in everybody]
    said = [looked_up(r, offer) for r, offer in zip(everybody, offers, strict=True)]
    columns = [IdColumn.of(np.array(o, np.uint64)) for o in offers]
    census = Census.of(columns, [Editions.of(a.stamps, a.overlays) for a in said])
    for number, replica in enumerate(everybody):
        places = census.silent(number)
        census.heard(number, places, looked_up(replica, as_ints(census.ids.take(places))))
    best, ids = whole(everybody), as_ints(census.ids)
    kept = {i for i, keep in zip(ids, census.current().tolist(), strict=True) if keep}
    torn = {ids[place] for place in census.torn().tolist()}
    unseen = {ids[place]: everybody[replica] for replica, place in census.unseen()}
    assert not kept & torn and not torn & set(unseen) and not kept & set(unseen)
    assert {i for i in ids if best[i].live} == kept | torn | set(unseen)
    for i in kept:
        assert everybody[int(census.holder()[ids.index(i)])][i] == best[i] and matches(best[i])
    for i, replica in unseen.items():
        assert replica[i] == best[i] and not matches(best[i])
    assert all(census.stamps()[place] >= best[i].newest for place, i in enumerate(ids))


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=8, unique=True), min_size=1, max_size=3
    ),
    st.integers(1, 4),
    st.booleans(),
)
def test_shards_are_merged_nearest_first(shards: list[list[tuple[int, int]]], k: int, shared: bool) -> None:
    parts, everything = [], []
    for number, hits in enumerate(shards):
        hits = sorted(hits)
        ids = [i if shared else 100 * number + i for _, i in hits]
        stamps = [1000 * (number + 1) + i for i in ids]
        distances = [float((i * 7 + number) % 5) for i in ids]
        parts.append(
            Ranked(
                np.array([q for q, _ in hits], np.int64),
                np.array(distances, np.float32),
                IdColumn.of(np.array(ids, np.uint64)),
                np.array(stamps, np.uint64),
            )
        )
        everything += [(q, d, i, number) for (q, _), d, i in zip(hits, distances, ids, strict=True)]
    shard, row = merged(parts, k, same_id_in_many=shared)
    found = [
        (int(parts[s].query[r]), float(parts[s].distance[r]), as_ints(parts[s].ids)[r], s)
        for s, r in zip(shard.tolist(), row.tolist(), strict=True)
    ]
    last = {i: max(n for _, _, j, n in everything if j == i) for _, _, i, _ in everything}
    for q in range(3):
        mine = [f for f in found if f[0] == q]
        allowed = [e for e in everything if e[0] == q and (not shared or e[3] == last[e[2]])]
        assert [f[1] for f in mine] == sorted(e[1] for e in allowed)[:k]
        assert len({f[2] for f in mine}) == len(mine)
        assert set(mine) <= set(allowed)


def test_flat_hits_become_rows_and_places_are_found_again() -> None:
    distances, counts = matrix(np.array([1, 2, 3], np.float32), np.array([0, 2, 2], np.int64), 3, 2)
    assert counts.tolist() == [1, 0, 2]
    assert distances.tolist() == [[1, np.inf], [np.inf, np.inf], [2, 3]]
    assert [candidates_for(k, 100) for k in (1, 40, 99, 100)] == [9, 50, 100, 100]
    assert place_of(IdColumn.of([5, "a", 7]), IdColumn.of([7, 5, 7, "a"])).tolist() == [2, 0, 2, 1]

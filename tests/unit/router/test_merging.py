"""Versions and hits of several replicas merged in columns, against the same rules over dictionaries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.ids import IdColumn
from omendb_common.shard_calls import Looked, ShardHits, State, Verdict
from omendb_router.ranking import Contest, Ranked, candidates_for, matrix, merged
from omendb_router.versions import Census, newest, place_of

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


def search(replica: Replica, queries: int, k: int) -> ShardHits:
    distances = np.full((queries, k), np.inf, np.float32)
    counts = np.zeros(queries, np.int64)
    ids: list[int] = []
    for q in range(queries):
        hits = sorted((v.distances[q], i) for i, v in replica.items() if v.live)[:k]
        distances[q, : len(hits)] = [d for d, _ in hits]
        counts[q] = len(hits)
        ids += [i for _, i in hits]
    stamps = np.array([replica[i].stamp for i in ids], np.uint64)
    return ShardHits(Verdict.OK, distances, counts, IdColumn.of(np.array(ids, np.uint64)), stamps)


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


@settings(deadline=None)
@given(replicas(), st.integers(1, 6))
def test_a_verified_contest_shows_the_nearest_of_the_newest(drawn: tuple[list[Replica], int], k: int) -> None:
    everybody, queries = drawn
    wanted = 2 * k
    while True:
        contest = Contest.of([search(r, queries, wanted) for r in everybody], k, wanted)
        while True:
            asked = False
            for number, replica in enumerate(everybody):
                uids = contest.unasked(number)
                if len(uids):
                    asked = True
                    contest.heard(number, uids, look(replica, as_ints(contest.ids.take(uids))))
            contest.drop_deleted()
            outdated = contest.outdated()
            for number, query, entries in outdated:
                has = [everybody[number][i] for i in as_ints(contest.ids.take(contest.uid[entries]))]
                contest.rescored(
                    number,
                    entries,
                    np.array([v.stamp for v in has], np.uint64),
                    np.array([State.LIVE] * len(has), np.uint8),
                    np.array([v.live for v in has], np.bool_),
                    np.array([v.distances[query] for v in has], np.float32),
                )
            contest.resort()
            if not asked and not outdated:
                break
        if not len(contest.short()):
            break
        wanted *= 2
    best = truth(everybody)
    top = contest.top()
    holders = contest.holders(contest.uid[top], contest.stamp[top])
    shown = as_ints(contest.ids.take(contest.uid[top]))
    for at, i in enumerate(shown):
        assert best[i].live
        assert int(contest.stamp[top][at]) == best[i].stamp
        assert everybody[int(holders[at])][i] == best[i]
        assert contest.distance[top][at] == best[i].distances[int(contest.query[top][at])]
    for q in range(queries):
        expected = sorted(v.distances[q] for v in best.values() if v.live)[:k]
        assert contest.distance[top][contest.query[top] == q].tolist() == expected


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


@settings(deadline=None)
@given(replicas())
def test_a_census_keeps_what_the_newest_versions_offer(drawn: tuple[list[Replica], int]) -> None:
    everybody, _ = drawn
    offers = [[i for i, v in r.items() if v.live and v.distances[0] < 4] for r in everybody]
    stamps = [np.array([r[i].stamp for i in offer], np.uint64) for r, offer in zip(everybody, offers, strict=True)]
    census = Census.of([IdColumn.of(np.array(o, np.uint64)) for o in offers], stamps)
    for number, replica in enumerate(everybody):
        places = census.silent(number)
        census.heard(number, places, look(replica, as_ints(census.ids.take(places))))
    best = truth(everybody)
    ids = as_ints(census.ids)
    kept = {i for i, keep in zip(ids, census.current().tolist(), strict=True) if keep}
    assert kept == {i for i in ids if best[i].live and best[i].distances[0] < 4}
    left = {ids[place] for _, place in census.newer_alive()}
    assert left == {i for i in ids if best[i].live and best[i].distances[0] >= 4}


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

"""Which shard gets which rows, and which shards a filter leaves: by columns, against one row at a time."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError
from omendb_common.filters import Filter
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn, PointId
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.ring import even_bounds, key_hashes
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.shard_calls import DataNode
from omendb_common.topology import CollectionInfo, Member, Shard, Topology
from omendb_engine.payload.columns import BatchColumns
from omendb_engine.query.filter import evaluate
from omendb_router.nodes import NodePool
from omendb_router.routing import last_rows, routing_hashes, shards_left, shares, take_rows
from omendb_router.scrolls import Cursor
from omendb_router.sessions import EVERY_SHARD, TOKEN_BYTES_MAX, decode_token, encode_token
from omendb_router.settings import RouterSettings

SCHEMA = CollectionSchema("u", (VectorField(2),))


def info(shards: int, partition_key: str | None = None) -> CollectionInfo:
    parts = tuple(Shard(n, low, high, 1, ()) for n, (low, high) in enumerate(even_bounds(shards)))
    return CollectionInfo("c", SCHEMA, parts, 1, 1, 1, partition_key)


POINT_IDS = st.lists(st.one_of(st.integers(0, 30), st.sampled_from(["a", "b", "ccc", "0", "7"])), max_size=30)


@settings(deadline=None)
@given(POINT_IDS, st.integers(1, 9))
def test_rows_go_where_their_hash_lies_and_the_last_of_an_id_stays(ids: list[PointId], shards: int) -> None:
    column = IdColumn.of(ids)
    rows = last_rows(column)
    kept = column if rows is None else column.take(rows)
    assert kept.to_list() == [i for n, i in enumerate(ids) if i not in ids[n + 1 :]]
    parts = info(shards).shards
    hashes = key_hashes(kept)
    seen: list[int] = []
    for shard, mine in shares(parts, hashes):
        places = range(len(kept)) if mine is None else mine.tolist()
        assert list(places) == sorted(places)
        assert shards == 1 or len(places)
        assert all(shard.low <= int(hashes[at]) < shard.high for at in places)
        seen += places
    assert sorted(seen) == list(range(len(kept)))


def test_a_batch_is_cut_in_columns() -> None:
    batch = WriteBatch(
        Op.UPDATE,
        IdColumn.of([1, "x", 3]),
        {"": np.arange(6, dtype=np.float32).reshape(3, 2)},
        columns_from_rows([{"a": 1}, {"a": 2}, {"b": 3}]),
        np.array([7, 8, 9], np.uint64),
        ("k",),
    )
    part = take_rows(batch, np.array([1, 2]))
    assert part.ids.to_list() == ["x", 3]
    assert part.vectors[""].tolist() == [[2, 3], [4, 5]]
    assert part.payload is not None
    assert part.payload.to_pydict() == {"a#i": [2, None], "b#i": [None, 3]}
    assert part.stamps is not None and part.stamps.tolist() == [8, 9]
    assert part.keys == ("k",)
    assert take_rows(batch, None) is batch
    assert take_rows(replace(batch, payload=pa.RecordBatch.from_arrays([], names=[])), np.array([0])).payload is None


KEYS = st.one_of(st.integers(-3, 3), st.sampled_from(["a", "b", "1"]))
VALUES = st.one_of(KEYS, st.sampled_from([1.0, 1.5, -2.0, 1e300, True]))
LEAVES = st.one_of(
    st.builds(F.eq, st.just("t"), VALUES),
    st.builds(F.ne, st.just("t"), VALUES),
    st.builds(F.in_, st.just("t"), st.lists(VALUES, max_size=3)),
    st.builds(F.nin, st.just("t"), st.lists(VALUES, max_size=3)),
    st.builds(F.gte, st.just("t"), st.integers(-3, 3)),
    st.builds(F.eq, st.just("v"), st.integers(0, 3)),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(F.AND),
        st.lists(inner, min_size=1, max_size=3).map(F.OR),
        inner.map(F.NOT),
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.lists(KEYS, min_size=1, max_size=12), FILTERS)
def test_every_point_that_matches_lies_in_a_shard_that_is_left(keys: list[Any], condition: Filter) -> None:
    place = info(64, "t")
    rows = [{"t": key, "v": n % 4} for n, key in enumerate(keys)]
    payload = columns_from_rows(rows)
    hashes = routing_hashes(place, IdColumn.of(list(range(len(keys)))), payload)
    left = {s.shard_id for s in shards_left(place, condition)}
    owner = {
        row: s.shard_id
        for s, mine in shares(place.shards, hashes)
        for row in (range(len(keys)) if mine is None else mine.tolist())
    }
    matching = evaluate(condition, BatchColumns.of([payload], [len(rows)])).rows().tolist()
    assert all(owner[row] in left for row in matching)


def test_an_equal_key_leaves_one_shard() -> None:
    place = info(64, "t")
    for condition in (F.eq("t", "a"), F.eq("t", 5), F.AND(F.eq("v", 1), F.in_("t", ["a"])), F.eq("t", 5.0)):
        assert len(shards_left(place, condition)) == 1
    assert len(shards_left(place, F.OR(F.eq("t", "a"), F.eq("t", "b")))) == 2
    assert len(shards_left(place, F.OR(F.eq("t", "a"), F.eq("v", 1)))) == 64
    assert len(shards_left(info(64), F.eq("t", "a"))) == 64


def test_a_point_without_its_partition_key_is_refused() -> None:
    cases: list[list[dict[str, Any]]] = [[{"t": "a"}, {"v": 1}], [{"t": 1.5}, {"t": "a"}], [{}, {}]]
    for rows in cases:
        with pytest.raises(InvalidArgumentError, match="partition key"):
            routing_hashes(info(2, "t"), IdColumn.of([1, 2]), columns_from_rows(rows))


def test_tokens_and_cursors_come_back_as_they_went() -> None:
    assert encode_token("u", {}) == b""
    token = encode_token("u", {3: 5, 1: (1 << 64) - 1})
    assert decode_token(token) == ("u", {3: 5, 1: (1 << 64) - 1})
    assert decode_token(encode_token("u", dict.fromkeys(range(33), 5))) == ("u", {EVERY_SHARD: 5})
    hostile = (b"[" * 3000, b'{"c":"u","s":{"1":1e999}}', b'{"c":"u","s":{"1":Infinity}}', b'{"c":"u","s":[]}')
    for bad in (b"x", b"{}", b"bnVsbA==", token[:-8], *map(base64.urlsafe_b64encode, hostile)):
        with pytest.raises(InvalidArgumentError, match="session"):
            decode_token(bad)
    longest = base64.urlsafe_b64encode(b'{"c":"u","s":{"3":5}}'.ljust(TOKEN_BYTES_MAX * 3 // 4))
    assert len(longest) == TOKEN_BYTES_MAX and decode_token(longest) == ("u", {3: 5})
    with pytest.raises(InvalidArgumentError, match=f"{TOKEN_BYTES_MAX + 1} bytes"):
        decode_token(longest + b"=")
    widest = encode_token("0" * 36, {(1 << 63) + shard: (1 << 64) - 1 for shard in range(32)})
    assert len(widest) < TOKEN_BYTES_MAX / 2
    for cursor in (Cursor(None, 1, (1 << 64) - 1), Cursor(1 << 63, 0, 7)):
        assert Cursor.parse(cursor.text(), with_low=cursor.low is not None) == cursor
        with pytest.raises(InvalidArgumentError, match="cursor"):
            Cursor.parse(cursor.text(), with_low=cursor.low is None)
    with pytest.raises(InvalidArgumentError, match="cursor"):
        Cursor.parse("x" * 32, with_low=False)


def test_settings_have_bounds() -> None:
    with pytest.raises(InvalidArgumentError, match="requests_max"):
        RouterSettings(requests_max=0)
    with pytest.raises(InvalidArgumentError, match="auto_ids"):
        RouterSettings(auto_ids="mine")


class Client:
    """Stands for the connection to one address."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.closed = False


def test_connections_follow_the_members() -> None:

    made: list[Any] = []

    def connect(member: Member) -> DataNode:
        made.append(Client(member))
        node: DataNode = made[-1]
        return node

    async def close(node: DataNode) -> None:
        node.closed = True  # type: ignore[attr-defined]

    def topology(**members: Member) -> Topology:
        return Topology("x", 1, {}, {}, members)

    async def story() -> None:
        pool = NodePool(connect, close)
        assert pool.find("d1") is None
        d1 = Member("d1", "datanode", "h:1", "i1")
        pool.follow(topology(d1=d1, r1=Member("r1", "router", "h:2", "i")))
        assert pool.find("d1") is pool.find("d1")
        assert pool.find("r1") is None
        # Moved, or formatted anew: another connection, and the old one is closed.
        pool.follow(topology(d1=replace(d1, address="h:3")))
        assert pool.find("d1") is made[1]
        pool.follow(topology(d1=replace(d1, address="h:3", incarnation="i2")))
        assert pool.find("d1") is made[2]
        await pool.sweep()
        assert [c.closed for c in made] == [True, True, False]
        pool.follow(topology(d1=replace(d1, state="left")))
        assert pool.find("d1") is None
        await pool.close()
        assert [c.closed for c in made] == [True, True, True]

    asyncio.run(story())

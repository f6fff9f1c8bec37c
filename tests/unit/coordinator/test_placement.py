"""Placement: never two replicas on a node, spread over zones, balanced, and little moves when nodes come and go."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError, UnavailableError
from omendb_common.metadata import NewCollection
from omendb_common.topology import Member
from omendb_coordinator.placement import candidates, place, plan
from tests.unit.coordinator.catalog_cases import SCHEMA, node

_zones = st.sampled_from(["", "a", "b", "c"])
_capacities = st.sampled_from([0.5, 1.0, 1.0, 3.0])


@st.composite
def _nodes(draw: st.DrawFn, least: int = 1) -> list[Member]:
    count = draw(st.integers(least, 9))
    return [node(f"d{i}", zone=draw(_zones), capacity=draw(_capacities)) for i in range(count)]


@given(nodes=_nodes(), replication=st.integers(1, 7), key=st.text(max_size=5), shard=st.integers(0, 50))
def test_a_shard_has_its_replicas_on_different_nodes_and_as_many_zones_as_there_are(
    nodes: list[Member], replication: int, key: str, shard: int
) -> None:
    if replication > len(nodes):
        with pytest.raises(UnavailableError) as refused:
            place(key, shard, replication, nodes)
        assert refused.value.outcome == "none"
        return
    chosen = place(key, shard, replication, nodes)
    assert len(set(chosen)) == replication
    zone_of = {m.node_id: m.zone for m in nodes}
    sizes = Counter(zone_of.values())
    used = Counter(zone_of[n] for n in chosen)
    assert len(used) == min(replication, len(sizes))
    # A zone has two more than another one only when that one has no further node.
    for zone, size in sizes.items():
        assert used[zone] == size or used[zone] >= max(used.values()) - 1


@given(nodes=_nodes(least=2), replication=st.integers(1, 5), key=st.text(max_size=5))
def test_a_node_that_comes_takes_at_most_one_replica_of_a_shard_and_moves_no_other(
    nodes: list[Member], replication: int, key: str
) -> None:
    *before, newcomer = nodes
    if len(before) < replication:
        return
    for shard in range(8):
        old, new = set(place(key, shard, replication, before)), set(place(key, shard, replication, nodes))
        assert new - old <= {newcomer.node_id}
        assert len(old - new) <= 1


def test_shards_spread_evenly_and_by_capacity() -> None:
    nodes = [node("small"), node("middle"), node("large", capacity=2.0)]
    firsts = Counter(place("some uuid", shard, 1, nodes)[0] for shard in range(4000))
    assert firsts["large"] == pytest.approx(2000, rel=0.08)
    assert firsts["small"] == pytest.approx(1000, rel=0.12)
    assert firsts["middle"] == pytest.approx(1000, rel=0.12)


def test_places_are_the_same_in_every_process_and_release() -> None:
    nodes = [node(f"d{i}", zone="ab"[i % 2]) for i in range(5)]
    assert [place("u", shard, 3, nodes) for shard in range(3)] == [
        place("u", shard, 3, list(reversed(nodes))) for shard in range(3)
    ]
    assert place("0f", 0, 3, nodes) == ("d1", "d0", "d3")


def test_only_nodes_that_are_up_and_stay_are_given_shards() -> None:
    members = [
        node("up"),
        replace(node("suspect"), state="suspect"),
        replace(node("down"), state="down"),
        replace(node("draining"), state="draining"),
        replace(node("router"), role="router"),
    ]
    assert [m.node_id for m in candidates(members)] == ["up"]


@pytest.mark.parametrize(
    ("nodes", "replication", "shards"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 3, 2), (7, 3, 3), (9, 3, 3)]
)
def test_what_is_left_open_is_settled(nodes: int, replication: int, shards: int) -> None:
    settled = plan(NewCollection("n", SCHEMA), "u", [node(f"d{i}") for i in range(nodes)])
    assert (settled.replication, settled.shards) == (replication, shards)
    assert settled.write_quorum == settled.read_quorum == replication // 2 + 1
    assert len(settled.places) == shards


def test_a_node_that_is_only_suspect_does_not_lower_the_number_of_replicas() -> None:
    nodes = [node("d1"), node("d2"), replace(node("d3"), state="suspect")]
    with pytest.raises(UnavailableError):
        plan(NewCollection("n", SCHEMA), "u", nodes)
    assert {*plan(NewCollection("n", SCHEMA, replication=2), "u", nodes).places[0]} == {"d1", "d2"}
    assert plan(NewCollection("n", SCHEMA), "u", [*nodes[:2], replace(nodes[2], state="down")]).replication == 2


@pytest.mark.parametrize(
    "wrong",
    [{"replication": 0}, {"replication": 8}, {"write_quorum": 4}, {"read_quorum": 0}, {"shards": 0}, {"shards": 4097}],
)
def test_numbers_out_of_their_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        plan(NewCollection("n", SCHEMA, **wrong), "u", [node(f"d{i}") for i in range(3)])

"""Where the replicas of a new collection go: rendezvous hashing over data nodes, spread over zones.

Pure. Every node gets a score per shard from a hash and its capacity; a shard goes to the best node of each zone, the
zones with the best nodes first, then to the second best of each, and so on. A node that comes or goes therefore moves
only the replicas that it gains or held.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from omendb_common.errors import UnavailableError
from omendb_common.metadata import NewCollection
from omendb_common.quorum import check_quorums, majority
from omendb_common.ring import even_bounds
from omendb_common.topology import Member

REPLICATION_DEFAULT = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers and places of a new collection: ``places[i]`` are the nodes of shard ``i``, the best first."""

    shards: int
    replication: int
    write_quorum: int
    read_quorum: int
    places: tuple[tuple[str, ...], ...]


def candidates(members: Iterable[Member]) -> list[Member]:
    """The data nodes that may be given new replicas: those that are up and not draining."""
    return sorted((m for m in members if m.role == "datanode" and m.state == "up"), key=lambda m: m.node_id)


def plan(new: NewCollection, key: str, members: Iterable[Member]) -> Plan:
    """Settle what ``new`` leaves open and place its shards. ``key`` is the collection's uuid.

    Raises:
        InvalidArgumentError: numbers out of their bounds.
        UnavailableError: fewer nodes than replicas.
    """
    members = list(members)
    nodes = candidates(members)
    # One that is suspect will most likely be back: better to refuse now than to make do with fewer replicas for ever.
    expected = len(nodes) + sum(m.role == "datanode" and m.state == "suspect" for m in members)
    replication = new.replication
    if replication is None:
        replication = max(1, min(REPLICATION_DEFAULT, expected))
    write_quorum = majority(replication) if new.write_quorum is None else new.write_quorum
    read_quorum = majority(replication) if new.read_quorum is None else new.read_quorum
    check_quorums(replication, write_quorum, read_quorum)
    shards = new.shards
    if shards is None:
        shards = 1 if expected <= replication else -(-expected // replication)
    even_bounds(shards)  # refuses what is out of bounds
    places = tuple(place(key, shard, replication, nodes) for shard in range(shards))
    return Plan(shards, replication, write_quorum, read_quorum, places)


def place(key: str, shard: int, replication: int, nodes: Sequence[Member]) -> tuple[str, ...]:
    """The nodes of one shard, the best first; UnavailableError when there are fewer than ``replication``."""
    if len(nodes) < replication:
        raise UnavailableError(
            f"{len(nodes)} data nodes are up and take new shards",
            field="replication",
            bound=f"at least {replication} nodes",
            mend="start more data nodes, or ask for fewer replicas",
        )
    zones: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for node in nodes:
        zones[node.zone].append((-score(key, shard, node), node.node_id))
    ranked = [(rank, lost, node_id) for found in zones.values() for rank, (lost, node_id) in enumerate(sorted(found))]
    return tuple(node_id for _, _, node_id in sorted(ranked)[:replication])


def score(key: str, shard: int, node: Member) -> float:
    """How much a shard belongs on a node; the share of shards that a node wins grows with its capacity."""
    digest = hashlib.blake2b(f"{key}/{shard}/{node.node_id}".encode(), digest_size=8).digest()
    # In (0, 1), both ends excluded.
    drawn = ((int.from_bytes(digest, "big") >> 11) + 0.5) / (1 << 53)
    return node.capacity / -math.log(drawn)


__all__ = ["REPLICATION_DEFAULT", "Plan", "candidates", "place", "plan", "score"]

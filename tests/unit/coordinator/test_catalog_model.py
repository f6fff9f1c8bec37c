"""The catalog against a simple model of it: any commands, repeated or not, snapshots in between.

Beside the model three catalogs run: one sees every command, one is built anew from a snapshot now and then, and one is
fed the whole log at the end. All must hold the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from omendb_common.errors import AlreadyExistsError, NotFoundError, OmenDBError
from omendb_common.topology import Topology, member_to_json
from omendb_common.topology_delta import apply_delta, delta_of
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.commands import decode_result
from tests.unit.coordinator.catalog_cases import Log, node

_NAMES = st.sampled_from(["a", "b", "c", "d"])
_NODES = ["d1", "d2", "d3"]


class CatalogMachine(RuleBasedStateMachine):
    """What a person would expect of names, aliases, leases and repeated requests."""

    @initialize()
    def begin(self) -> None:
        self.log = Log()
        self.log.register(*(node(n) for n in _NODES))
        self.follower = Catalog()
        self.behind: Topology | None = None
        self.followed = 0
        self.uuids: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        self.created = 0
        self.allowed: dict[int, dict[str, tuple[int, int]]] = {}
        self.given_ids: dict[str, tuple[int, int]] = {}
        self.revision = 0

    def _expect(self, allowed: bool, refusal: type[OmenDBError], op: str, args: dict[str, Any]) -> bool:
        """Carry out an operation that the model allows or refuses; returns which."""
        try:
            self.log.add(op, **args)
        except refusal:
            assert not allowed
        else:
            assert allowed
        return allowed

    @rule(name=_NAMES, shards=st.integers(1, 3))
    def create(self, name: str, shards: int) -> None:
        self.created += 1
        free = name not in self.uuids and name not in self.aliases
        uuid = f"uuid {self.created}"
        try:
            revision = self.log.catalog.state.members_revision
            self.log.add(
                "create_collection",
                name=name,
                uuid=uuid,
                schema={"format": 1, "uuid": "", "version": 1, "vectors": [_FIELD], "options": {}},
                replication=2,
                write_quorum=2,
                read_quorum=1,
                nodes=_NODES,
                places=[[0, 2]] * shards,
                members_revision=revision,
            )
        except AlreadyExistsError:
            assert not free
        else:
            assert free
            self.uuids[name] = uuid

    @rule(name=_NAMES)
    def drop(self, name: str) -> None:
        if self._expect(name in self.uuids, NotFoundError, "drop_collection", {"name": name}):
            del self.uuids[name]
            self.aliases = {a: target for a, target in self.aliases.items() if target != name}

    @rule(old=_NAMES, new=_NAMES)
    def rename(self, old: str, new: str) -> None:
        free = new == old or (new not in self.uuids and new not in self.aliases)
        refusal = AlreadyExistsError if old in self.uuids else NotFoundError
        if self._expect(old in self.uuids and free, refusal, "rename_collection", {"old": old, "new": new}):
            self.uuids[new] = self.uuids.pop(old)
            self.aliases = {a: new if target == old else target for a, target in self.aliases.items()}

    @rule(alias=_NAMES, name=_NAMES)
    def set_alias(self, alias: str, name: str) -> None:
        refusal = AlreadyExistsError if alias in self.uuids else NotFoundError
        allowed = alias not in self.uuids and name in self.uuids
        if self._expect(allowed, refusal, "set_alias", {"alias": alias, "collection": name}):
            self.aliases[alias] = name

    @rule(alias=_NAMES)
    def remove_alias(self, alias: str) -> None:
        if self._expect(alias in self.aliases, NotFoundError, "set_alias", {"alias": alias, "collection": None}):
            del self.aliases[alias]

    @rule(node_id=st.sampled_from(_NODES), to=st.sampled_from(["up", "suspect", "down"]))
    def member_state(self, node_id: str, to: str) -> None:
        member = self.log.catalog.topology.members[node_id]
        self.log.add("set_member_state", node_id=node_id, incarnation=member.incarnation, was=member.state, to=to)

    @rule(cluster_id=st.sampled_from(["one", "two"]))
    def name_cluster(self, cluster_id: str) -> None:
        before = self.log.catalog.topology.cluster_id
        self.log.add("name_cluster", cluster_id=cluster_id)
        assert self.log.catalog.topology.cluster_id == (before or cluster_id)

    @rule(node_id=st.sampled_from(_NODES), wanted=st.booleans())
    def drain(self, node_id: str, wanted: bool) -> None:
        self.log.add("drain", node_id=node_id, draining=wanted)

    @rule(holder=st.sampled_from(["r1", "r2", "r3"]), stamp=st.integers(0, 1 << 40))
    def lease(self, holder: str, stamp: int) -> None:
        lease = self.log.add("lease_origin", holder=holder, stamp=stamp)
        ranges = self.allowed.setdefault(lease["origin"], {})
        for other, (low, high) in ranges.items():
            assert other == holder or lease["stamp_above"] > high or lease["stamp_bound"] < low
        low, high = ranges.get(holder, (lease["stamp_above"], 0))
        ranges[holder] = (min(low, lease["stamp_above"]), max(high, lease["stamp_bound"]))
        first, stop = lease["auto_ids"]
        assert all(stop <= f or first >= s for other, (f, s) in self.given_ids.items() if other != holder)
        self.given_ids[holder] = (first, stop)

    @precondition(lambda self: self.log.entries)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A command that was proposed twice: the second does nothing, and says what the first said."""
        position = data.draw(st.integers(0, len(self.log.entries) - 1))
        entry = self.log.entries[position]
        fresh = Catalog()
        said = [fresh.apply(i + 1, e) for i, e in enumerate(self.log.entries)][position]
        before = self.log.catalog.state
        self.log.entries.append(entry)
        assert self.log.catalog.apply(len(self.log.entries), entry) == said
        assert self.log.catalog.state is before

    @rule()
    def follow_by_snapshot(self) -> None:
        """A member that lagged is sent a snapshot instead of the log."""
        self._follow_by_log()
        again = Catalog()
        again.restore(self.follower.snapshot(), self.followed)
        assert again.snapshot() == self.follower.snapshot()
        self.follower = again

    @rule()
    def watch(self) -> None:
        """What a watch would have sent leads to the same topology."""
        now = self.log.catalog.topology
        if self.behind is not None:
            delta = json.loads(json.dumps(delta_of(self.behind, now)))
            assert apply_delta(self.behind, delta) == now
        assert Topology.from_json(json.loads(json.dumps(now.to_json()))) == now
        assert json.loads(self.log.catalog.encode(now)) == now.to_json()
        if self.behind is not None:
            assert json.loads(self.log.catalog.encode(self.behind)) == self.behind.to_json()
        self.behind = now

    def _follow_by_log(self) -> None:
        for index in range(self.followed + 1, len(self.log.entries) + 1):
            self.follower.apply(index, self.log.entries[index - 1])
        self.followed = len(self.log.entries)

    @invariant()
    def names_are_those_of_the_model(self) -> None:
        topology = self.log.catalog.topology
        assert {n: c.schema.uuid for n, c in topology.collections.items()} == self.uuids
        assert topology.aliases == self.aliases
        assert topology.revision >= self.revision
        self.revision = topology.revision

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        self._follow_by_log()
        whole = Catalog()
        for index, entry in enumerate(self.log.entries, start=1):
            decode_result_or_error(whole.apply(index, entry))
        assert whole.snapshot() == self.log.catalog.snapshot() == self.follower.snapshot()


_FIELD = {"name": "", "dimension": 4, "metric": "l2", "dtype": "float32"}


def decode_result_or_error(result: bytes) -> None:
    """Results can be read, whatever they say."""
    try:
        decode_result(result)
    except OmenDBError:
        return


TestCatalog = CatalogMachine.TestCase
TestCatalog.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_requests_are_recognized_only_as_long_as_they_are_remembered() -> None:
    log = Log(remembered=5)
    log.register(*(node(n) for n in _NODES))
    first = log.create("a", _NODES, request_id="creates a")
    assert log.create("a", _NODES, request_id="creates a") == first
    for _ in range(5):
        log.add("lease_origin", holder="h", stamp=0)
    assert log.catalog.remembered <= 6
    with pytest.raises(AlreadyExistsError):
        log.create("a", _NODES, request_id="creates a")


def test_members_in_any_order_of_registration_are_equal_bytes() -> None:
    snapshots = set()
    for order in (_NODES, _NODES[::-1]):
        catalog = Log()
        for node_id in order:
            catalog.add("register", f"registers {node_id}", member=member_to_json(node(node_id)))
        snapshots.add(json.dumps(catalog.catalog.topology.to_json()))
    assert len(snapshots) == 1

"""Commands and members for the coordinator's tests."""

from __future__ import annotations

import itertools
from typing import Any

from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.topology import Member, member_to_json
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.commands import Command, decode_result

SCHEMA = CollectionSchema("", (VectorField(8),))


def node(node_id: str, **fields: Any) -> Member:
    """A data node that is up."""
    return Member(node_id, "datanode", f"{node_id}:8500", f"folder of {node_id}", **fields)


def creation(name: str, uuid: str, nodes: list[str], members_revision: int, shards: int = 1) -> dict[str, Any]:
    """The arguments that make a collection whose shards have a replica on each of ``nodes``."""
    return {
        "name": name,
        "uuid": uuid,
        "schema": SCHEMA.to_json(),
        "partition_key": None,
        "replication": len(nodes),
        "write_quorum": len(nodes) // 2 + 1,
        "read_quorum": len(nodes) // 2 + 1,
        "nodes": nodes,
        "places": [list(range(len(nodes)))] * shards,
        "members_revision": members_revision,
    }


class Log:
    """A catalog, and the commands that it was given."""

    def __init__(self, remembered: int = 100_000) -> None:
        self.catalog = Catalog(remembered=remembered)
        self.entries: list[bytes] = []
        self._ids = itertools.count()

    def add(self, op: str, request_id: str | None = None, **args: Any) -> Any:
        """Apply a command; returns its value or raises its error."""
        request_id = f"request {next(self._ids)}" if request_id is None else request_id
        entry = Command(request_id, "test", op, args, 0).encode()
        self.entries.append(entry)
        return decode_result(self.catalog.apply(len(self.entries), entry))

    def register(self, *nodes: Member) -> None:
        """Take in members."""
        for member in nodes:
            self.add("register", member=member_to_json(member))

    def create(self, name: str, nodes: list[str], shards: int = 1, request_id: str | None = None) -> Any:
        """Make a collection with the uuid ``uuid of NAME``."""
        revision = self.catalog.state.members_revision
        return self.add("create_collection", request_id, **creation(name, f"uuid of {name}", nodes, revision, shards))

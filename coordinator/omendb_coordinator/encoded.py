"""Topologies as bytes: only what changed is made anew, which matters with thousands of collections."""

from __future__ import annotations

from dataclasses import replace

from omendb_common.topology import CollectionInfo, Topology, collection_to_json
from omendb_coordinator.commands import to_bytes


class EncodedCollections:
    """The JSON of every collection, as long as the collection is the same object."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[CollectionInfo, bytes]] = {}

    def array(self, topology: Topology) -> bytes:
        """A JSON array of the collections, ordered by name; those of other topologies are forgotten."""
        held = {}
        for name, info in sorted(topology.collections.items()):
            known = self._held.get(name)
            held[name] = known if known is not None and known[0] is info else (info, to_bytes(collection_to_json(info)))
        self._held = held
        return b"[" + b",".join([encoded for _, encoded in held.values()]) + b"]"

    def topology(self, topology: Topology) -> bytes:
        """What ``Topology.from_json`` reads."""
        rest = replace(topology, collections={}).to_json()
        del rest["collections"]
        return to_bytes(rest)[:-1] + b',"collections":' + self.array(topology) + b"}"


__all__ = ["EncodedCollections"]

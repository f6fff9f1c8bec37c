"""The replicated state as one immutable value, and its form in a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omendb_common.metadata import AUTO_ID_FIRST
from omendb_common.topology import Topology

COLLECTIONS_MAX = 10_000
ALIASES_MAX = 10_000
MEMBERS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Origin:
    """Who may make stamps of an origin, up to which one, and the automatic ids that go with the lease (P1)."""

    holder: str
    stamp_bound: int
    auto_ids: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CatalogState:
    """Everything that the log is about, but for the memory of requests.

    ``members_revision`` is the index of the last change that placement looks at; a placement computed from an older
    one is refused. ``draining``: data nodes that take no new shards, whatever state they are in.
    """

    topology: Topology = field(default_factory=lambda: Topology(""))
    origins: Mapping[int, Origin] = field(default_factory=dict)
    auto_id_next: int = AUTO_ID_FIRST
    draining: frozenset[str] = frozenset()
    members_revision: int = 0

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back."""
        return {
            "topology": self.topology.to_json(),
            "origins": [[o, s.holder, s.stamp_bound, *s.auto_ids] for o, s in sorted(self.origins.items())],
            "auto_id_next": self.auto_id_next,
            "draining": sorted(self.draining),
            "members_revision": self.members_revision,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CatalogState:
        """Read what :meth:`to_json` wrote."""
        origins = {
            int(o): Origin(str(holder), int(bound), (int(first), int(stop)))
            for o, holder, bound, first, stop in value["origins"]
        }
        return CatalogState(
            Topology.from_json(value["topology"]),
            origins,
            int(value["auto_id_next"]),
            frozenset(value["draining"]),
            int(value["members_revision"]),
        )


__all__ = ["ALIASES_MAX", "COLLECTIONS_MAX", "MEMBERS_MAX", "CatalogState", "Origin"]

"""What changed from one topology to the next, as a JSON value: a watch sends that instead of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omendb_common.errors import FormatVersionError, InvalidArgumentError
from omendb_common.topology import (
    Topology,
    collection_from_json,
    collection_to_json,
    member_from_json,
    member_to_json,
)

DELTA_FORMAT = 1


def delta_of(old: Topology, new: Topology) -> dict[str, Any]:
    """What :func:`apply_delta` needs to turn ``old`` into ``new``; both of one cluster."""
    delta: dict[str, Any] = {
        "format": DELTA_FORMAT,
        "cluster_id": new.cluster_id,
        "base": old.revision,
        "revision": new.revision,
        "feature_level": new.feature_level,
        "collections": [
            collection_to_json(c) for name, c in new.collections.items() if old.collections.get(name) is not c
        ],
        "dropped": [name for name in old.collections if name not in new.collections],
        "members": [member_to_json(m) for node_id, m in new.members.items() if old.members.get(node_id) is not m],
        "gone": [node_id for node_id in old.members if node_id not in new.members],
        "moves_paused": new.moves_paused,
    }
    if old.aliases != new.aliases:
        delta["aliases"] = dict(new.aliases)
    return delta


def apply_delta(old: Topology, delta: Mapping[str, Any]) -> Topology:
    """The topology that ``delta`` leads to.

    Raises:
        InvalidArgumentError: the delta is not on top of ``old``.
        FormatVersionError: a newer release made it.
    """
    if int(delta["format"]) > DELTA_FORMAT:
        raise FormatVersionError(
            f"topology delta format {delta['format']}",
            field="topology",
            bound=f"at most {DELTA_FORMAT}",
            mend="upgrade omendb",
        )
    if int(delta["base"]) != old.revision:
        raise InvalidArgumentError(f"on top of revision {delta['base']}", field="delta", bound=str(old.revision))
    dropped, gone = set(delta["dropped"]), set(delta["gone"])
    collections = {name: c for name, c in old.collections.items() if name not in dropped}
    collections |= {c.name: c for c in map(collection_from_json, delta["collections"])}
    members = {node_id: m for node_id, m in old.members.items() if node_id not in gone}
    members |= {m.node_id: m for m in map(member_from_json, delta["members"])}
    return Topology(
        str(delta["cluster_id"]),
        int(delta["revision"]),
        collections,
        dict(delta.get("aliases", old.aliases)),
        members,
        int(delta["feature_level"]),
        bool(delta.get("moves_paused", old.moves_paused)),
        # Whoever follows across a restoration is sent the whole.
        old.restored,
    )


__all__ = ["DELTA_FORMAT", "apply_delta", "delta_of"]

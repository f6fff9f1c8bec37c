"""Changes to members, leases and the cluster itself: pure functions as those of ``collection_changes``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

from omendb_common.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from omendb_common.feature_level import check_level
from omendb_common.hlc import ORIGIN_MAX, STAMP_MAX
from omendb_common.metadata import AUTO_ID_STOP, AUTO_IDS_PER_LEASE
from omendb_common.topology import Member, MemberState, Role, member_to_json
from omendb_coordinator.collection_changes import Args, Change
from omendb_coordinator.commands import ConflictError, text, whole
from omendb_coordinator.move_changes import lose_replicas
from omendb_coordinator.restored_changes import restorations
from omendb_coordinator.state import MEMBERS_MAX, CatalogState, Origin

ORIGIN_LEASE_MS = 10_000
"""How far ahead of the stamp it names a lease reaches."""

HOLDER_CHARS_MAX = 255
TEXT_CHARS_MAX = 255
CAPACITY_MAX = 1e6
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,62}\Z")
_STAMP_MS_SHIFT = 22


def name_cluster(state: CatalogState, index: int, args: Args) -> Change:
    """Give the cluster its id, once and for ever; later ones are told the first."""
    if not state.topology.cluster_id:
        cluster_id = text(args, "cluster_id")
        if not 1 <= len(cluster_id) <= TEXT_CHARS_MAX:
            raise InvalidArgumentError("bad length", field="cluster_id", bound=f"1..{TEXT_CHARS_MAX} characters")
        state = replace(state, topology=replace(state.topology, cluster_id=cluster_id, revision=index))
    return state, {"cluster_id": state.topology.cluster_id, "revision": state.topology.revision}


def raise_level(state: CatalogState, index: int, args: Args) -> Change:
    """Allow what every member says it understands; there is no way back."""
    level = whole(args, "level")
    topology = state.topology
    lowest = min((m.feature_level for m in topology.members.values()), default=0)
    if level > lowest:
        raise InvalidArgumentError(f"a member understands {lowest} only", field="level", bound=f"at most {lowest}")
    if level > topology.feature_level:
        state = replace(state, topology=replace(topology, feature_level=level, revision=index))
    return state, {"revision": state.topology.revision}


def register(state: CatalogState, index: int, args: Args) -> Change:
    """Take a process in as a member, or take note of where it serves now.

    A data node that comes with another incarnation has lost its data folder, or is another process under the same
    name: it is refused while the known one is up, and afterwards taken in as new, with its replicas lost (P16). One
    that understands less than the cluster uses is refused (P21).
    """
    member = checked_member(args.get("member"))
    check_level(member.feature_level, state.topology.feature_level, repr(member.node_id))
    before = state.topology.members.get(member.node_id)
    if before is None and len(state.topology.members) >= MEMBERS_MAX:
        raise ResourceExhaustedError(f"there are {MEMBERS_MAX} members", mend="remove some", retry_after=60.0)
    if before is not None and before.role != member.role:
        raise AlreadyExistsError(f"{member.node_id!r} is a {before.role}", field="node_id", mend="use another id")
    anew = before is not None and before.incarnation != member.incarnation
    if anew and member.role == "datanode" and before is not None and before.state not in ("down", "left"):
        raise AlreadyExistsError(
            f"{member.node_id!r} is {before.state} with another data folder",
            field="incarnation",
            bound=before.incarnation,
            mend="start it on its own folder, wait until the other one is down, or use another id",
        )
    draining = member.node_id in state.draining
    member = replace(member, state="draining" if draining else "up")
    if member != before:
        state = _with_member(state, index, member)
    if anew and member.role == "datanode":
        state = lose_replicas(state, index, member.node_id)
    return state, {"revision": state.topology.revision, "member": member_to_json(member)}


def checked_member(value: Any) -> Member:
    """The member that a JSON value describes, always ``up``; InvalidArgumentError when it describes none."""
    if not isinstance(value, Mapping):
        raise InvalidArgumentError("not a JSON object", field="member")
    node_id = text(value, "node_id")
    if not _NODE_ID.match(node_id):
        raise InvalidArgumentError(
            f"got {node_id!r}",
            field="node_id",
            bound="1..63 of letters, digits, '_', '-', '.', a letter or digit first",
        )
    role = text(value, "role")
    if role not in get_args(Role):
        raise InvalidArgumentError(f"got {role!r}", field="role", bound=f"one of {get_args(Role)}")
    for name in ("address", "incarnation"):
        if not 1 <= len(text(value, name)) <= TEXT_CHARS_MAX:
            raise InvalidArgumentError("bad length", field=name, bound=f"1..{TEXT_CHARS_MAX} characters")
    labels = {name: value.get(name, "") for name in ("zone", "region")}
    for name, label in labels.items():
        if not isinstance(label, str) or len(label) > TEXT_CHARS_MAX:
            raise InvalidArgumentError(f"got {label!r}", field=name, bound=f"at most {TEXT_CHARS_MAX} characters")
    return Member(
        node_id,
        cast(Role, role),
        text(value, "address"),
        text(value, "incarnation"),
        labels["zone"],
        labels["region"],
        _capacity(value.get("capacity", 1.0)),
        "up",
        whole({"feature_level": value.get("feature_level", 1)}, "feature_level"),
    )


def _capacity(value: Any) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not 0.0 < value <= CAPACITY_MAX:
        raise InvalidArgumentError(f"got {value!r}", field="capacity", bound=f"above 0, at most {CAPACITY_MAX:g}")
    return float(value)


def set_member_state(state: CatalogState, index: int, args: Args) -> Change:
    """Note a transition, if the member is still the one and in the state that the proposer saw."""
    member = _member(state, text(args, "node_id"))
    to = text(args, "to")
    if to not in ("up", "suspect", "down"):
        raise InvalidArgumentError(f"got {to!r}", field="to", bound="up, suspect or down")
    if member.incarnation != text(args, "incarnation") or member.state != text(args, "was"):
        raise ConflictError(f"it is {member.state}", field=member.node_id)
    if to == "up" and member.node_id in state.draining:
        to = "draining"
    if to != member.state:
        state = _with_member(state, index, replace(member, state=cast(MemberState, to)))
    return state, {"revision": state.topology.revision, "state": to}


def leave(state: CatalogState, index: int, args: Args) -> Change:
    """A process ends in good order: data nodes and coordinators are down at once, a router is no member any more."""
    member = _member(state, text(args, "node_id"))
    if member.incarnation != text(args, "incarnation"):
        raise ConflictError("another incarnation has registered since", field=member.node_id)
    if member.role == "router":
        members = {n: m for n, m in state.topology.members.items() if n != member.node_id}
        state = replace(state, topology=replace(state.topology, revision=index, members=members))
    elif member.state != "down":
        state = _with_member(state, index, replace(member, state="down"))
    return state, {"revision": state.topology.revision}


def drain(state: CatalogState, index: int, args: Args) -> Change:
    """Keep new shards away from a data node, or no longer."""
    member = _member(state, text(args, "node_id"))
    if member.role != "datanode":
        raise InvalidArgumentError(f"{member.node_id!r} is a {member.role}", field="node_id", bound="a data node")
    wanted = args.get("draining")
    if not isinstance(wanted, bool):
        raise InvalidArgumentError(f"got {wanted!r}", field="draining", bound="true or false")
    others = state.draining - {member.node_id}
    state = replace(state, draining=others | {member.node_id} if wanted else others)
    if member.state in ("up", "draining"):
        drained = replace(member, state="draining" if wanted else "up")
        state = state if drained == member else _with_member(state, index, drained)
        member = drained
    return state, {"revision": state.topology.revision, "member": member_to_json(member)}


def forget_member(state: CatalogState, index: int, args: Args) -> Change:
    """Strike a member that is down off the list; a data node only when no shard counts on it."""
    member = _member(state, text(args, "node_id"))
    if member.state != "down":
        raise InvalidArgumentError(
            f"{member.node_id!r} is {member.state}", field="node_id", bound="a member that is down"
        )
    for info in state.topology.collections.values():
        if any(r.node_id == member.node_id for s in info.shards for r in s.replicas):
            raise InvalidArgumentError(
                f"{member.node_id!r} has replicas of {info.name!r}", field="node_id", mend="move them first"
            )
    members = {n: m for n, m in state.topology.members.items() if n != member.node_id}
    topology = replace(state.topology, revision=index, members=members)
    draining = state.draining - {member.node_id}
    return replace(state, topology=topology, draining=draining, members_revision=index), {"revision": index}


def _member(state: CatalogState, node_id: str) -> Member:
    member = state.topology.members.get(node_id)
    if member is None:
        raise NotFoundError(f"no member {node_id!r}", field="node_id", mend="register it first")
    return member


def _with_member(state: CatalogState, index: int, member: Member) -> CatalogState:
    topology = replace(state.topology, revision=index, members={**state.topology.members, member.node_id: member})
    placed = member.role == "datanode"
    return replace(state, topology=topology, members_revision=index if placed else state.members_revision)


def lease_origin(state: CatalogState, index: int, args: Args) -> Change:
    """Lease an origin to ``holder`` for stamps from ``stamp`` on, or make its lease reach further (P1).

    An origin goes to another holder only when that one starts above every stamp that was ever allowed to it; the new
    one gets automatic ids of its own.
    """
    holder, stamp = text(args, "holder"), whole(args, "stamp")
    if not 1 <= len(holder) <= HOLDER_CHARS_MAX:
        raise InvalidArgumentError("bad length", field="holder", bound=f"1..{HOLDER_CHARS_MAX} characters")
    bound = stamp + (ORIGIN_LEASE_MS << _STAMP_MS_SHIFT)
    if bound > STAMP_MAX:
        raise InvalidArgumentError(f"got {stamp}", field="stamp", bound=f"{ORIGIN_LEASE_MS} ms below {STAMP_MAX}")
    held = next((o for o, lease in state.origins.items() if lease.holder == holder), None)
    if held is not None:
        lease = replace(state.origins[held], stamp_bound=max(state.origins[held].stamp_bound, bound))
        return _leased(state, held, lease, stamp)
    origin = _free_origin(state, stamp)
    first = state.auto_id_next
    stop = first + AUTO_IDS_PER_LEASE
    if stop > AUTO_ID_STOP:
        raise ResourceExhaustedError("all automatic ids are given out", field="auto_ids", mend="give ids yourself")
    state = replace(state, auto_id_next=stop)
    return _leased(state, origin, Origin(holder, bound, (first, stop)), stamp)


def _free_origin(state: CatalogState, stamp: int) -> int:
    """An origin that was never leased, else one whose lease has ended: from one end, or from the other.

    A group that was restored from a copy begins at the other end than the lost one, which may have leased more origins
    after the copy was taken.
    """
    backwards = restorations(state.topology.restored) % 2 == 1
    if len(state.origins) < ORIGIN_MAX:
        numbers = range(ORIGIN_MAX, 0, -1) if backwards else range(1, ORIGIN_MAX + 1)
        return next(o for o in numbers if o not in state.origins)
    ended = [o for o in state.origins if state.origins[o].stamp_bound < stamp]
    origin = min(ended or state.origins, key=lambda o: (state.origins[o].stamp_bound, o))
    if ended and backwards:
        origin = max(ended, key=lambda o: (state.origins[o].stamp_bound, o))
    if not ended:
        raise ResourceExhaustedError(
            "every origin is leased beyond that stamp",
            field="stamp",
            bound=f"above {state.origins[origin].stamp_bound}",
            mend="try again, or set the clock",
            retry_after=1.0,
        )
    return origin


def _leased(state: CatalogState, origin: int, lease: Origin, stamp: int) -> Change:
    origins = {**state.origins, origin: lease}
    answer = {
        "origin": origin,
        "stamp_above": stamp,
        "stamp_bound": lease.stamp_bound,
        "auto_ids": list(lease.auto_ids),
    }
    return replace(state, origins=origins), answer


__all__ = [
    "CAPACITY_MAX",
    "HOLDER_CHARS_MAX",
    "ORIGIN_LEASE_MS",
    "checked_member",
    "drain",
    "forget_member",
    "lease_origin",
    "leave",
    "name_cluster",
    "raise_level",
    "register",
    "set_member_state",
]

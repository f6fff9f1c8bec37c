"""The catalog: the state machine that the group of coordinators agrees on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from omendb_common.errors import FormatVersionError, InvalidArgumentError, OmenDBError
from omendb_common.feature_level import CURRENT, check_level
from omendb_common.topology import Topology
from omendb_coordinator import (
    collection_changes,
    member_changes,
    merge_changes,
    move_changes,
    repair_changes,
    resize_changes,
    restored_changes,
    split_changes,
)
from omendb_coordinator.collection_changes import Args, Change
from omendb_coordinator.commands import (
    COMMAND_FORMAT,
    REQUESTS_REMEMBERED,
    Command,
    ConflictError,
    RequestMemory,
    encode_error,
    encode_value,
    to_bytes,
)
from omendb_coordinator.encoded import EncodedCollections
from omendb_coordinator.state import CatalogState

SNAPSHOT_FORMAT = 2
"""1: what the first release wrote, and still what is written. 2: of a catalog that was restored from a copy."""

Operation = Callable[[CatalogState, int, Args], Change]

OPERATIONS: Mapping[str, Operation] = {
    "accept_restored": restored_changes.accept_restored,
    "advance_merge": merge_changes.advance_merge,
    "advance_move": move_changes.advance_move,
    "advance_split": split_changes.advance_split,
    "alter_collection": collection_changes.alter_collection,
    "begin_merge": merge_changes.begin_merge,
    "begin_move": move_changes.begin_move,
    "begin_resize": resize_changes.begin_resize,
    "begin_split": split_changes.begin_split,
    "cancel_merge": merge_changes.cancel_merge,
    "cancel_move": move_changes.cancel_move,
    "cancel_split": split_changes.cancel_split,
    "create_collection": collection_changes.create_collection,
    "drain": member_changes.drain,
    "drop_collection": collection_changes.drop_collection,
    "forget_member": member_changes.forget_member,
    "lease_origin": member_changes.lease_origin,
    "leave": member_changes.leave,
    "lose_replica": move_changes.lose_replica,
    "name_cluster": member_changes.name_cluster,
    "note_repaired": repair_changes.note_repaired,
    "pause_moves": move_changes.pause_moves,
    "place_shard": collection_changes.place_shard,
    "raise_level": member_changes.raise_level,
    "register": member_changes.register,
    "rename_collection": collection_changes.rename_collection,
    "reshape_collection": collection_changes.reshape_collection,
    "set_alias": collection_changes.set_alias,
    "set_member_state": member_changes.set_member_state,
}

Listener = Callable[[Topology, bool], None]
"""Told every new topology; the flag says that it does not follow from the one before (a snapshot was installed)."""


class Catalog:
    """A :class:`~omendb_coordinator.consensus.seam.StateMachine`.

    The state is one immutable value: a change makes another one, and whoever holds the old one is not disturbed.
    ``listener`` is called where commands are applied, and must not block. ``level``: what this member understands;
    it stops at anything newer.
    """

    def __init__(
        self, listener: Listener | None = None, *, remembered: int = REQUESTS_REMEMBERED, level: int = CURRENT
    ) -> None:
        self._state = CatalogState()
        self._requests = RequestMemory(remembered)
        self._encoded = EncodedCollections()
        self._listener = listener
        self._applied = 0
        self._level = level

    @staticmethod
    def of(state: CatalogState, applied: int) -> Catalog:
        """A catalog with that state after the entry ``applied``, which remembers no request."""
        catalog = Catalog()
        catalog._state, catalog._applied = state, applied
        return catalog

    @property
    def state(self) -> CatalogState:
        """The state after the last applied command."""
        return self._state

    @property
    def topology(self) -> Topology:
        """What of it routers and data nodes see."""
        return self._state.topology

    @property
    def remembered(self) -> int:
        """How many requests would be recognized if they came again."""
        return len(self._requests)

    def recall(self, request_id: str) -> bytes | None:
        """What the request of that id was answered, if it is remembered."""
        return self._requests.recall(request_id)

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one committed command; what is refused comes back as a result.

        Raises:
            FormatVersionError: a newer release made the command, or the cluster uses more than this member
                understands from now on; it must stop.
        """
        self._applied = index
        self._requests.forget(index)
        try:
            what = Command.decode(command, min(self._level, COMMAND_FORMAT))
        except FormatVersionError:
            raise
        except OmenDBError as problem:
            return encode_error(problem)
        remembered = self._requests.recall(what.request_id)
        if remembered is not None:
            return remembered
        before = self._state
        try:
            self._state, value = perform(before, index, what)
        except ConflictError as conflict:
            return encode_error(conflict)
        except OmenDBError as problem:
            result = encode_error(problem)
        else:
            result = encode_value(value)
            check_level(self._level, self._state.topology.feature_level, "this coordinator")
        self._requests.remember(index, what.request_id, result)
        if self._listener is not None and self._state.topology is not before.topology:
            self._listener(self._state.topology, False)
        return result

    def snapshot(self) -> bytes:
        """The whole state; equal states are equal bytes."""
        rest = replace(self._state, topology=replace(self._state.topology, collections={}))
        told = to_bytes({"format": snapshot_format(rest), "applied": self._applied, "state": rest.to_json()})
        collections = self._encoded.array(self._state.topology)
        return told[:-1] + b',"collections":' + collections + b',"requests":' + self._requests.encode() + b"}"

    def encode(self, topology: Topology) -> bytes:
        """The JSON of a topology, cheap for one that shares most with the last one that was encoded."""
        return self._encoded.topology(topology)

    def restore(self, data: bytes, index: int) -> None:
        """Replace the state by a snapshot; FormatVersionError when a newer release made it."""
        value = json.loads(data)
        state = state_of(value, min(self._level, SNAPSHOT_FORMAT))
        check_level(self._level, state.topology.feature_level, "this coordinator")
        self._state = state
        self._encoded.array(self._state.topology)
        self._requests.load(value["requests"])
        self._applied = index
        if self._listener is not None:
            self._listener(self._state.topology, True)


def snapshot_format(state: CatalogState) -> int:
    """The format that a snapshot of a state needs: the oldest, so that an older release reads what it can."""
    return 2 if state.topology.restored else 1


def state_of(snapshot: dict[str, Any], newest: int = SNAPSHOT_FORMAT) -> CatalogState:
    """The state that a snapshot's JSON describes; FormatVersionError when its format is above ``newest``."""
    if int(snapshot["format"]) > newest:
        raise FormatVersionError(
            f"snapshot format {snapshot['format']}", field="snapshot", bound=f"at most {newest}", mend="upgrade omendb"
        )
    state = dict(snapshot["state"])
    return CatalogState.from_json({**state, "topology": {**state["topology"], "collections": snapshot["collections"]}})


def perform(state: CatalogState, index: int, command: Command) -> Change:
    """What a command makes of a state, and its answer; raises the error that its proposer is to see."""
    operation = OPERATIONS.get(command.op)
    if operation is None:
        raise InvalidArgumentError(f"got {command.op!r}", field="op", bound=f"one of {sorted(OPERATIONS)}")
    return operation(state, index, command.args)


__all__ = [
    "OPERATIONS",
    "SNAPSHOT_FORMAT",
    "Catalog",
    "Listener",
    "Operation",
    "perform",
    "snapshot_format",
    "state_of",
]

"""What the catalog promises to whoever calls it, as a sequential object, and how calls and answers are written down.

Calls are tuples::

    ("create", name, made)          ok, exists; ``made`` is unique
    ("drop", name)                  ok, missing
    ("rename", old, new)            ok, missing, exists
    ("alias", alias, target)        ok, missing, exists; a target of None removes it
    ("alter", name, number)         ok, missing
    ("move", made, seen, wanted)    ok, missing, exists: places the shard as ``wanted`` if it still is as ``seen``
    ("read",)                       the whole: a :class:`Picture`

Placements are never used twice for a shard, so that comparing them says the same as comparing epochs.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from omendb_common.errors import AlreadyExistsError, NotFoundError, OmenDBError
from omendb_common.topology import CollectionInfo, Topology

Call = tuple[Any, ...]
Placement = tuple[str, ...]

FIRST_PLACEMENT: Placement = ("d0", "d1", "d2")
"""Where every new collection goes."""


class Collection(NamedTuple):
    """What of a collection the specification speaks about."""

    made: str
    number: int
    placement: Placement


class Picture(NamedTuple):
    """The catalog: names and collections, aliases and targets, both sorted."""

    collections: tuple[tuple[str, Collection], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()


def picture_of(topology: Topology, prefix: str = "") -> Picture:
    """What a topology shows of the names that begin with ``prefix``, without it."""
    collections = {
        name.removeprefix(prefix): Collection(
            str(info.schema.options["made"]), int(info.schema.options.get("n", 0)), _placement(info)
        )
        for name, info in topology.collections.items()
        if name.startswith(prefix)
    }
    aliases = {
        alias.removeprefix(prefix): target.removeprefix(prefix)
        for alias, target in topology.aliases.items()
        if alias.startswith(prefix)
    }
    return Picture(tuple(sorted(collections.items())), tuple(sorted(aliases.items())))


def _placement(info: CollectionInfo) -> Placement:
    """Where the first shard is; a new collection has its nodes in an order of its own."""
    nodes = info.shards[0].nodes("active")
    return FIRST_PLACEMENT if set(nodes) == set(FIRST_PLACEMENT) else nodes


def answer_of(error: OmenDBError) -> str | None:
    """A refusal as an answer; None when it is not one of the catalog's."""
    # What the coordinator calls a conflict reaches a client as "exists": moves do not know another one.
    if isinstance(error, NotFoundError):
        return "missing"
    return "exists" if isinstance(error, AlreadyExistsError) else None


class CatalogObject:
    """The sequential catalog."""

    def __init__(self) -> None:
        # A search comes to the same states again and again.
        self._steps: dict[tuple[Picture, Call], tuple[Picture, Any]] = {}

    def initial(self, key: Hashable) -> Picture:
        """Nothing."""
        return Picture()

    def agrees(self, expected: Any, result: Any) -> bool:
        """See ``Specification``."""
        return bool(expected == result)

    def step(self, state: Picture, call: Call) -> tuple[Picture, Any]:
        """See ``Specification``."""
        found = self._steps.get((state, call))
        if found is None:
            found = self._steps[state, call] = self._step(state, call)
        return found

    def _step(self, state: Picture, call: Call) -> tuple[Picture, Any]:
        collections, aliases = dict(state.collections), dict(state.aliases)
        if call[0] == "read":
            return state, state
        answer = getattr(self, f"_{call[0]}")(collections, aliases, *call[1:])
        if answer != "ok":
            return state, answer
        return Picture(tuple(sorted(collections.items())), tuple(sorted(aliases.items()))), answer

    def _create(self, collections: dict[str, Collection], aliases: dict[str, str], name: str, made: str) -> str:
        if name in collections or name in aliases:
            return "exists"
        collections[name] = Collection(made, 0, FIRST_PLACEMENT)
        return "ok"

    def _drop(self, collections: dict[str, Collection], aliases: dict[str, str], name: str) -> str:
        if name not in collections:
            return "missing"
        del collections[name]
        for alias in [a for a, target in aliases.items() if target == name]:
            del aliases[alias]
        return "ok"

    def _rename(self, collections: dict[str, Collection], aliases: dict[str, str], old: str, new: str) -> str:
        if old not in collections:
            return "missing"
        if old != new and (new in collections or new in aliases):
            return "exists"
        collections[new] = collections.pop(old)
        aliases.update({a: new for a, target in aliases.items() if target == old})
        return "ok"

    def _alias(
        self, collections: dict[str, Collection], aliases: dict[str, str], alias: str, target: str | None
    ) -> str:
        if target is None:
            return "missing" if aliases.pop(alias, None) is None else "ok"
        if alias in collections:
            return "exists"
        if target not in collections:
            return "missing"
        aliases[alias] = target
        return "ok"

    def _alter(self, collections: dict[str, Collection], aliases: dict[str, str], name: str, number: int) -> str:
        if name not in collections:
            return "missing"
        collections[name] = collections[name]._replace(number=number)
        return "ok"

    def _move(
        self,
        collections: dict[str, Collection],
        aliases: dict[str, str],
        made: str,
        seen: Placement,
        wanted: Placement,
    ) -> str:
        for name, collection in collections.items():
            if collection.made == made:
                if collection.placement != seen:
                    return "exists"
                collections[name] = collection._replace(placement=wanted)
                return "ok"
        return "missing"


__all__ = [
    "FIRST_PLACEMENT",
    "Call",
    "CatalogObject",
    "Collection",
    "Picture",
    "Placement",
    "answer_of",
    "picture_of",
]

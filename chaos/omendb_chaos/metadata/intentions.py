"""What a client of the catalog wants next: few names, so that clients meet."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from omendb_chaos.metadata.specification import FIRST_PLACEMENT, Call, Picture, Placement

NAMES = ("a", "b", "c", "d")
ALIASES = ("a", "x", "y")
NODES = tuple(f"d{number}" for number in range(9))

_KINDS = ("create", "create", "drop", "rename", "alias", "alias", "alter", "move", "move", "read", "read", "read")


class Intentions:
    """Draws calls. Nothing that shall be unique is drawn twice, whichever client asks."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers = itertools.count(1)
        self._placements = _placements(rng)

    def next(self, seen: Picture) -> Call:
        """A call of a client whose last read showed ``seen``."""
        rng = self._rng
        kind = rng.choice(_KINDS)
        if kind == "create":
            return ("create", rng.choice(NAMES), f"made {next(self._numbers)}")
        if kind == "drop":
            return ("drop", rng.choice(NAMES))
        if kind == "rename":
            return ("rename", rng.choice(NAMES), rng.choice(NAMES))
        if kind == "alias":
            return ("alias", rng.choice(ALIASES), rng.choice((*NAMES, None)))
        if kind == "alter":
            return ("alter", rng.choice(NAMES), next(self._numbers))
        if kind == "move" and seen.collections:
            _, collection = rng.choice(seen.collections)
            return ("move", collection.made, collection.placement, next(self._placements))
        return ("read",)


def _placements(rng: random.Random) -> Iterator[Placement]:
    """Every order of three nodes but those of the first placement, once each."""
    found = [p for p in itertools.permutations(NODES, 3) if set(p) != set(FIRST_PLACEMENT)]
    rng.shuffle(found)
    return iter(found)


__all__ = ["ALIASES", "NAMES", "NODES", "Intentions"]

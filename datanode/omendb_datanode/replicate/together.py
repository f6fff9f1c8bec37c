"""One replica compared with several others until all of them hold the same (P12).

A record that comes from the last peer is lacking at those before it: whoever was compared before something moved is
compared again. When every peer was compared after the last record moved, all hold the same through one stamp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omendb_common.errors import OmenDBError
from omendb_datanode.replicate.exchange import Exchange, Exchanged

ROUNDS_MAX = 4
"""Exchanges with each peer, at most."""


@dataclass(frozen=True, slots=True)
class Together:
    """What became of it. ``last``: the last exchange with each peer; ``pulled``, ``pushed`` and ``size``: of all.

    ``failed``: why peers could not be compared. ``equal``: all peers were, and all hold the same.
    """

    through: int
    equal: bool
    last: Mapping[str, Exchanged]
    failed: Mapping[str, OmenDBError]
    pulled: int
    pushed: int
    size: int

    @property
    def leaves(self) -> int:
        """Leaves of the tree that still differ."""
        return sum(done.leaves for done in self.last.values())

    @property
    def collided(self) -> int:
        """Ids with the same stamps and other content."""
        return sum(done.collided for done in self.last.values())


async def bring_together(exchanges: Mapping[str, Exchange], through: int) -> Together:
    """Compare and repair with every peer, until all are equal or it was tried often enough.

    A peer that cannot be asked does not keep the others from being brought together.
    """
    last: dict[str, Exchanged] = {}
    failed: dict[str, OmenDBError] = {}
    pulled = pushed = size = 0
    waiting = list(exchanges)
    for _ in range(ROUNDS_MAX * len(exchanges)):
        if not waiting:
            break
        name = waiting.pop(0)
        try:
            done = last[name] = await exchanges[name].run(through)
        except OmenDBError as error:
            failed[name] = error
            continue
        pulled, pushed, size = pulled + done.pulled, pushed + done.pushed, size + done.size
        if done.pulled:
            # The peers compared before lack what just came; and so do, in effect, those that still wait.
            waiting += [other for other in exchanges if other not in (name, *waiting, *failed)]
    equal = not waiting and not failed and all(done.equal for done in last.values())
    return Together(through, equal, last, failed, pulled, pushed, size)


__all__ = ["ROUNDS_MAX", "Together", "bring_together"]

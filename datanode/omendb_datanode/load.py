"""What clients' calls cost each replica of this node, and where on the ring lies what they are about.

Counted is processor time, in the thread that has it: a call that waits for a disk, or for other threads, keeps nobody
from working. A place is noted a few times a second at most, whatever comes in between.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from omendb_common.clock import Clock, thread_s
from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn
from omendb_common.partition import ring_places
from omendb_common.records import Op
from omendb_common.ring import key_hashes
from omendb_common.topology import ReplicaLoad
from omendb_engine.replica import Replica
from omendb_engine.stamped import StampedWrite

WINDOW_S = 60.0
"""Load is the mean of about the last minute: what came a minute ago counts a third of what comes now."""
_PLACES = 256
_PLACES_LEAST = 32
_CUT_FROM = 0.01
"""Of what is less busy it is not told where to cut it: a node may have many replicas."""
_MIDDLE_ENOUGH = 0.4
"""A half with that much of the load has enough: cut in the middle, both are also equally large."""

T = TypeVar("T")
Place = Callable[[], int | None]
"""Where on the ring a point is that a call is about; None where that is not to be told."""


class ShardLoad:
    """The load of one replica. Counted by any thread.

    Args:
        cpu_s: the processor time that the calling thread has had.
    """

    def __init__(self, clock: Clock, cpu_s: Callable[[], float] = thread_s) -> None:
        self._clock = clock
        self._cpu_s = cpu_s
        self._lock = threading.Lock()
        self._since_s = self._folded_s = self._noted_s = clock.mono_s()
        # Seconds that came since they were folded into the means; means of all that came before, fading.
        self._fresh = [0.0, 0.0]
        self._means = [0.0, 0.0]
        self._places: deque[tuple[int, float]] = deque(maxlen=_PLACES)
        self._unplaced_s = 0.0

    def during(self, work: Callable[[], T], place: Place | None = None, *, share: float = 1.0) -> T:
        """Do a call's work, and count what it costs.

        Args:
            place: of one of its points; None for work that each half of the shard would have to do whole.
            share: how much of it is clients' work.
        """
        began_s = self._cpu_s()
        try:
            return work()
        finally:
            self._count((self._cpu_s() - began_s) * share, place)

    def during_writes(self, work: Callable[[], T], writes: Sequence[StampedWrite], partition_key: str | None) -> T:
        """The same for writes of one group; records that carry stamps of their own are not clients' work."""
        mine = [write for write in writes if write.stamp]
        if not mine:
            return work()
        rows = sum(write.batch.rows for write in writes)
        share = sum(write.batch.rows for write in mine) / max(rows, 1)
        return self.during(work, place_of_write(mine[len(mine) // 2], partition_key), share=share)

    def told(self, low: int, high: int) -> ReplicaLoad | None:
        """The load now, and where the range ``[low, high)`` is best cut; None in the first minute."""
        with self._lock:
            now_s = self._clock.mono_s()
            self._fold(now_s)
            age_s = now_s - self._since_s
            if age_s < WINDOW_S:
                return None
            # The means began at zero: without that the first minutes would seem to have less to do.
            total, divides = (mean / -math.expm1(-age_s / WINDOW_S) for mean in self._means)
            places = list(self._places)
        return ReplicaLoad(total, divides, *(best_cut(places, low, high) if divides >= _CUT_FROM else (0, 0.0)))

    def _count(self, seconds: float, place: Place | None) -> None:
        with self._lock:
            self._fresh[0] += seconds
            if place is None:
                return
            self._fresh[1] += seconds
            self._unplaced_s += seconds
            now_s = self._clock.mono_s()
            if now_s - self._noted_s < WINDOW_S / _PLACES:
                return
            self._noted_s = now_s
        at = place()
        with self._lock:
            if at is not None:
                self._places.append((at, self._unplaced_s))
                self._unplaced_s = 0.0

    def _fold(self, now_s: float) -> None:
        passed_s = now_s - self._folded_s
        if passed_s <= 0.0:
            return
        self._folded_s = now_s
        kept = math.exp(-passed_s / WINDOW_S)
        for i, fresh in enumerate(self._fresh):
            self._means[i] = self._means[i] * kept + fresh / passed_s * (1.0 - kept)
        self._fresh = [0.0, 0.0]


class Loads:
    """The loads of a node's replicas."""

    def __init__(self, clock: Clock, cpu_s: Callable[[], float] = thread_s) -> None:
        self._clock = clock
        self._cpu_s = cpu_s
        self._of: dict[Replica, ShardLoad] = {}

    def of(self, replica: Replica) -> ShardLoad:
        """That of one replica; begun when it is asked for first. On the event loop."""
        known = self._of.get(replica)
        if known is None:
            self._of = {one: load for one, load in self._of.items() if not one.closed}
            known = self._of[replica] = ShardLoad(self._clock, self._cpu_s)
        return known


def best_cut(places: Iterable[tuple[int, float]], low: int, high: int) -> tuple[int, float]:
    """Where to cut ``[low, high)`` so that both sides have to do, by places and their weights; the lesser side's share.

    A place that has most of the weight stays on one side, so the other one gets little, wherever it is cut.
    """
    inside = sorted((at, weight) for at, weight in places if low <= at < high)
    whole = sum(weight for _, weight in inside)
    middle = (low + high) // 2
    if len(inside) < _PLACES_LEAST or whole <= 0.0:
        return middle, 0.0
    below = sum(weight for at, weight in inside if at < middle)
    best = (middle, min(below, whole - below) / whole)
    if best[1] >= _MIDDLE_ENOUGH:
        return best
    below = 0.0
    for (at, weight), (following, _) in itertools.pairwise(inside):
        below += weight
        lesser = min(below, whole - below) / whole
        if following > at and lesser > best[1]:
            best = (at + following + 1) // 2, lesser
    return best


def place_of_write(write: StampedWrite, partition_key: str | None) -> Place | None:
    """How to tell the place of a point that a write is about; None for one that goes to every shard."""
    batch = write.batch
    if partition_key is not None and batch.op is Op.DELETE:
        return None

    def place() -> int | None:
        row = batch.rows // 2
        if write.claim or not batch.rows:
            return None  # the ids of claims are not those of their points
        ids = batch.ids.slice(row, row + 1)
        if partition_key is None:
            return int(key_hashes(ids)[0])
        if batch.op is not Op.UPSERT or batch.payload is None:
            return None
        try:
            return int(ring_places(partition_key, ids, batch.payload.slice(row, 1))[0])
        except InvalidArgumentError:
            return None  # a point without its key is the router's to refuse

    return place


def place_of_ids(ids: IdColumn, partition_key: str | None) -> Place | None:
    """How to tell the place of an id that is looked up; with a partition key every shard is asked."""
    if partition_key is not None or not len(ids):
        return None
    row = len(ids) // 2
    return lambda: int(key_hashes(ids.slice(row, row + 1))[0])


__all__ = ["WINDOW_S", "Loads", "Place", "ShardLoad", "best_cut", "place_of_ids", "place_of_write"]

"""Whether a failed call is sent again, how, and after what wait: the rules, without a network.

A read may always be sent again. A write is sent again only when that cannot change what it means: when the first try
certainly did nothing, or under the stamp of the first try, so that it cannot overwrite what somebody wrote meanwhile
(P5 of the replication protocol).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from random import Random

from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError

ATTEMPTS_MAX = 6
FIRST_WAIT_S = 0.02
LONGEST_WAIT_S = 1.0


class Kind(Enum):
    """What a call does: ``READ`` changes nothing, ``WRITE`` carries a stamp, ``CHANGE`` (of the catalog) does not."""

    READ = 1
    WRITE = 2
    CHANGE = 3


@dataclass(frozen=True, slots=True)
class Retry:
    """Send again after ``wait_s``; a write under ``stamp`` when that is not None."""

    wait_s: float
    stamp: int | None = None


class RetryBudget:
    """Bounds retries to a share of the calls, so that clients do not bury a cluster that is in trouble. Thread-safe."""

    def __init__(self, *, per_call: float = 0.1, burst: float = 20.0) -> None:
        self._per_call = per_call
        self._burst = burst
        self._left = burst
        self._lock = threading.Lock()

    def earned(self) -> None:
        """A call succeeded."""
        with self._lock:
            self._left = min(self._burst, self._left + self._per_call)

    def spend(self) -> bool:
        """Whether one more retry is within the budget."""
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


def next_try(
    error: OmenDBError, kind: Kind, attempt: int, *, stamp: int | None, restampable: bool, dice: Random
) -> Retry | None:
    """What to do after try number ``attempt`` (from 0) ended with ``error``; None: give up.

    Args:
        stamp: the stamp that the write is already being repeated under.
        restampable: whether the same write can be said again: not when the server chose its ids.
    """
    if attempt + 1 >= ATTEMPTS_MAX:
        return None
    wait_s = dice.uniform(0.5, 1.0) * min(LONGEST_WAIT_S, FIRST_WAIT_S * 4**attempt)
    if isinstance(error, ResourceExhaustedError):
        return Retry(max(error.retry_after, wait_s), stamp)
    if not isinstance(error, (UnavailableError, DeadlineExceededError)):
        return None
    if kind is Kind.READ:
        return Retry(wait_s)
    if error.outcome == "none":
        return Retry(wait_s, stamp)
    known = error.stamp if stamp is None else stamp
    if kind is Kind.WRITE and restampable and known is not None:
        return Retry(wait_s, known)
    return None


__all__ = ["ATTEMPTS_MAX", "FIRST_WAIT_S", "LONGEST_WAIT_S", "Kind", "Retry", "RetryBudget", "next_try"]

"""The routers of a cluster behind one call: which is asked, what is sent again, and when to give up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from omendb.remote.cancelling import CANCEL_SCOPE
from omendb.remote.channels import CallFailed, RouterChannel
from omendb.remote.retries import Kind, Retry, RetryBudget, next_try
from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import (
    DatabaseClosedError,
    DeadlineExceededError,
    OmenDBError,
    UnavailableError,
)

COOL_DOWN_S = 2.0
"""How long a router that failed is passed over, while there is another."""
FIRST_SHARE = 0.4
"""Of the time a read has, what its first router gets while there is another: one that hangs must not take it all."""
LAST_SHARE = 0.06
"""With less than this of a call's time left nothing is sent again: the answer would not come back in time."""


class Routers:
    """Calls to whichever router answers. Thread-safe.

    Args:
        channels: one per router, in the order to try them; the first one that works is kept.
        timeout_s: for a call that names no deadline.
    """

    def __init__(
        self,
        channels: Sequence[RouterChannel],
        timeout_s: float,
        clock: Clock,
        *,
        dice: Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.timeout_s = timeout_s
        self._channels = list(channels)
        self._clock = clock
        self._dice = dice or Random()
        self._sleep = sleep
        self._budget = RetryBudget()
        self._lock = threading.Lock()
        self._kept = 0
        self._cooling = [0.0] * len(self._channels)
        self._closed = False

    @property
    def kept(self) -> str:
        """``host:port`` of the router that is asked first."""
        return self._channels[self._kept].where

    def call(
        self,
        method: str,
        request: Any,
        kind: Kind,
        deadline: Deadline | None = None,
        *,
        restampable: bool = True,
        timeout_s: float | None = None,
    ) -> Any:
        """Call until it is answered, refused, or too late.

        A write that is sent again carries the stamp of its first try in ``request.retry_stamp``.

        Args:
            restampable: whether a write can be said again when nobody knows what became of it.
            timeout_s: instead of the client's own, where there is no deadline.

        Raises:
            OmenDBError: the last try's. Of a write it is told as unknown when any try may have happened.
        """
        deadline = deadline or Deadline.after(self._clock, self.timeout_s if timeout_s is None else timeout_s)
        # A router answers a little before the caller's time is up, and what it says is worth more than one more try.
        least_s = deadline.left_s * LAST_SHARE
        uncertain: OmenDBError | None = None
        stamp: int | None = None
        failed: set[int] = set()
        for attempt in itertools.count():
            number = self._pick(failed)
            timeout = self._share(kind, failed, deadline, uncertain)
            try:
                reply = self._channels[number].call(method, request, timeout)
            except CallFailed as failure:
                error = failure.error
                self._passed_over(number, failure, failed)
            else:
                self._keep(number)
                self._budget.earned()
                return reply
            retry = self._retry(error, kind, attempt, stamp, restampable, deadline.left_s - least_s)
            if kind is not Kind.READ and getattr(error, "outcome", "none") == "unknown":
                uncertain = error
            if retry is None:
                raise _told(error, uncertain)
            if retry.stamp is not None:
                stamp = request.retry_stamp = retry.stamp
            if number not in failed or len(failed) == len(self._channels):
                failed.clear()
                self._sleep(retry.wait_s)  # with another router left to ask there is nothing to wait for
        raise AssertionError("counting does not end")

    def close(self) -> None:
        """Close every channel; calls from now on raise DatabaseClosedError."""
        self._closed = True
        for channel in self._channels:
            channel.close()

    def _retry(
        self,
        error: OmenDBError,
        kind: Kind,
        attempt: int,
        stamp: int | None,
        restampable: bool,
        left_s: float,
    ) -> Retry | None:
        scope = CANCEL_SCOPE.get()
        if self._closed or (scope is not None and scope.cancelled):
            return None
        retry = next_try(error, kind, attempt, stamp=stamp, restampable=restampable, dice=self._dice)
        if retry is None or retry.wait_s >= left_s or not self._budget.spend():
            return None
        return retry

    def _pick(self, failed: set[int]) -> int:
        """The router to ask: the kept one, unless it failed a moment ago and there is a better one."""
        if self._closed:
            raise DatabaseClosedError(
                "the client is closed", field="client", bound="an open client", mend="make a new one"
            )
        now = self._clock.mono_s()
        with self._lock:
            order = [(self._kept + step) % len(self._channels) for step in range(len(self._channels))]
            return min(order, key=lambda n: (n in failed, self._cooling[n] > now and self._cooling[n]))

    def _share(self, kind: Kind, failed: set[int], deadline: Deadline, uncertain: OmenDBError | None) -> float:
        """How long this try may take."""
        left_s = deadline.left_s
        if left_s <= 0.0:
            late = DeadlineExceededError("the time is up", field="timeout", mend="allow more time", outcome="none")
            raise _told(late, uncertain)
        several = len(self._channels) - len(failed) > 1
        return left_s * FIRST_SHARE if kind is Kind.READ and several else left_s

    def _passed_over(self, number: int, failure: CallFailed, failed: set[int]) -> None:
        """Ask another router next; and for a while, when this one cannot be reached or hangs."""
        if isinstance(failure.error, (UnavailableError, DeadlineExceededError)):
            failed.add(number)
        if not failure.answered:
            with self._lock:
                self._cooling[number] = self._clock.mono_s() + COOL_DOWN_S

    def _keep(self, number: int) -> None:
        if self._kept != number or self._cooling[number]:
            with self._lock:
                self._kept = number
                self._cooling[number] = 0.0


def _told(error: OmenDBError, uncertain: OmenDBError | None) -> OmenDBError:
    """The error to raise: one try of unknown outcome leaves the whole call's unknown."""
    if uncertain is None or error is uncertain:
        return error
    if isinstance(error, (UnavailableError, DeadlineExceededError)):
        error.outcome = "unknown"
        if error.stamp is None:
            error.stamp = getattr(uncertain, "stamp", None)
        return error
    return uncertain


__all__ = ["COOL_DOWN_S", "FIRST_SHARE", "LAST_SHARE", "Routers"]

"""Writes and searches that go on without a break while a fleet is shaken, and the account of how they fared."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from omendb_common.errors import OmenDBError

ERRORS_KEPT = 20
PATIENCE_S = 20.0
_BREATH_S = 0.01


@dataclass
class TrafficReport:
    """What the callers saw.

    ``acknowledged``: the numbers of the batches that were acknowledged, in order. ``*_again``: calls that the program
    itself had to make a second time, after all that the client does by itself; ``searches_failed``: of these, those
    whose second time failed as well. ``writes_given_up``: the last one, when it did not succeed in ``PATIENCE_S`` and
    the traffic was to stop. ``pause_*_s``: the longest that one call took, with its second times.
    """

    acknowledged: list[int] = field(default_factory=list)
    begun: int = 0
    writes_again: int = 0
    writes_given_up: int = 0
    searches: int = 0
    searches_again: int = 0
    searches_failed: int = 0
    pause_write_s: float = 0.0
    pause_search_s: float = 0.0
    search_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Traffic:
    """One writer and some searchers, each on a thread of its own, from :meth:`start` to :meth:`stop`.

    Args:
        write: stores batch number n; raises when that is not certain. It is called again with the same number until it
            returns.
        search: runs search number n.
        searchers: how many search at a time.
        pause_s: what each waits between two calls.
    """

    def __init__(
        self,
        write: Callable[[int], None],
        search: Callable[[int], None],
        *,
        searchers: int = 2,
        pause_s: float = 0.0,
    ) -> None:
        self.report = TrafficReport()
        self._write = write
        self._search = search
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._searchers = searchers
        self._pool = ThreadPoolExecutor(1 + searchers, thread_name_prefix="traffic")
        self._working: list[Future[None]] = []

    def start(self) -> None:
        """Begin."""
        self._working = [self._pool.submit(work) for work in (self._write_all, *[self._search_all] * self._searchers)]

    def end(self) -> None:
        """Begin no more calls; those under way go on."""
        self._stopping.set()

    def stop(self) -> TrafficReport:
        """Let the last calls end; the report. An error that is not OmenDB's is a bug, and raised here."""
        self.end()
        self._pool.shutdown()
        for work in self._working:
            work.result()
        return self.report

    def _write_all(self) -> None:
        report = self.report
        for number in itertools.count():
            if self._stopping.wait(self._pause_s):
                return
            started = time.perf_counter()
            report.begun = number + 1
            while True:
                try:
                    self._write(number)
                    break
                except OmenDBError as error:
                    report.writes_again += 1
                    self._keep(f"write {number}", error)
                    if self._stopping.wait(_BREATH_S) and time.perf_counter() - started > PATIENCE_S:
                        report.writes_given_up += 1
                        return
            report.acknowledged.append(number)
            report.pause_write_s = max(report.pause_write_s, time.perf_counter() - started)

    def _search_all(self) -> None:
        report = self.report
        for number in itertools.count():
            if self._stopping.wait(self._pause_s):
                return
            started = time.perf_counter()
            again = failed = False
            try:
                self._search(number)
            except OmenDBError as error:
                again = True
                self._keep(f"search {number}", error)
                try:
                    self._search(number)
                except OmenDBError as second:
                    failed = True
                    self._keep(f"search {number} again", second)
            took = time.perf_counter() - started
            with self._lock:
                report.searches += 1
                report.searches_again += again
                report.searches_failed += failed
                report.search_ms.append(took * 1e3)
                report.pause_search_s = max(report.pause_search_s, took)

    def _keep(self, what: str, error: OmenDBError) -> None:
        with self._lock:
            if len(self.report.errors) < ERRORS_KEPT:
                self.report.errors.append(f"{what}: {type(error).__name__}: {error}")


__all__ = ["ERRORS_KEPT", "PATIENCE_S", "Traffic", "TrafficReport"]

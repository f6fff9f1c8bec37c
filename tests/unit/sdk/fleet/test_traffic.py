"""The account that traffic keeps must be able to say that something went wrong."""

from __future__ import annotations

import threading

import pytest

from omendb.fleet import traffic
from omendb.fleet.traffic import Traffic
from omendb_common.errors import UnavailableError


def run(write_fails: set[tuple[int, int]], search_fails: set[tuple[int, int]]) -> traffic.TrafficReport:
    """Traffic whose n-th call fails in the given tries (call, try), until twenty calls of each were made."""
    tries: dict[tuple[str, int], int] = {}
    done = {"write": threading.Event(), "search": threading.Event()}

    def call(kind: str, fails: set[tuple[int, int]], number: int) -> None:
        attempt = tries[kind, number] = tries.get((kind, number), -1) + 1
        if number >= 20:
            done[kind].set()
        if (number, attempt) in fails:
            raise UnavailableError(f"{kind} {number}")

    running = Traffic(lambda n: call("write", write_fails, n), lambda n: call("search", search_fails, n), searchers=1)
    running.start()
    assert all(event.wait(20) for event in done.values())
    return running.stop()


def test_all_is_well() -> None:
    report = run(set(), set())
    assert report.acknowledged == list(range(len(report.acknowledged))) and report.begun == len(report.acknowledged)
    assert report.searches >= 20 and len(report.search_ms) == report.searches and report.errors == []
    assert (report.writes_again, report.searches_again, report.searches_failed) == (0, 0, 0)


def test_what_fails_is_counted() -> None:
    report = run({(3, 0), (3, 1), (7, 0)}, {(2, 0), (5, 0), (5, 1)})
    assert report.writes_again == 3 and {3, 7} <= set(report.acknowledged)
    assert (report.searches_again, report.searches_failed) == (2, 1)
    assert any("search 5 again: UnavailableError: search 5" in line for line in report.errors)
    assert 0 < report.pause_write_s < 10 and 0 < report.pause_search_s < 10


def test_a_write_that_never_succeeds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "PATIENCE_S", 0.05)
    entered = threading.Event()

    def fails(number: int) -> None:
        entered.set()
        raise UnavailableError("never")

    running = Traffic(fails, lambda number: None)
    running.start()
    assert entered.wait(20)
    report = running.stop()
    assert report.writes_given_up == 1 and report.acknowledged == [] and report.begun == 1


def test_a_bug_is_raised() -> None:
    def broken(number: int) -> None:
        raise ValueError("a bug")

    running = Traffic(lambda number: None, broken)
    running.start()
    with pytest.raises(ValueError, match="a bug"):
        running.stop()

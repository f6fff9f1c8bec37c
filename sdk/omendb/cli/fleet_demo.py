"""``omendb demo``: real data into a real fleet, whose processes are killed while it writes and searches."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import omendb
from omendb.cli.demo_data import RECALL_FLOOR, Corpus, K, SearchReport, measure, recall_of, show_reports
from omendb.cli.terminal import out, print_json
from omendb.client import Client
from omendb.collection import Collection
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb.fleet.traffic import Traffic, TrafficReport

NAME = "glosses"
INGEST_ROWS = 1_000
LIVE_ROWS = 20
TIMEOUT_S = 10.0
_SHAKEN_S = 1.5
# Between two calls of each thread: the kills are to meet a busy cluster, not a machine that has no time to start one.
_PAUSE_S = 0.02
_READ_BATCHES = 40
_PAGE_ROWS = 5_000


@dataclass(frozen=True)
class Shake:
    """One kill: what, and how long until it was back and known as up."""

    victim: str
    what: str
    back_s: float


@dataclass(frozen=True)
class Account:
    """What was promised and what is there. ``lost`` rows were acknowledged; ``phantom`` rows nobody sent."""

    acknowledged: int
    found: int
    lost: int
    phantom: int


def fleet_demo(corpus: Corpus, folder: Path, *, json: bool) -> bool:
    """Run it in ``folder``; whether everything held."""
    say: Callable[[str], None] = _silent if json else _say
    with _running(folder, say) as fleet, fleet.client(timeout=TIMEOUT_S) as client:
        collection = client.create_collection(
            NAME, corpus.vectors.shape[1], corpus.metric, replication=3, write_quorum=2, read_quorum=2
        )
        rate = _ingest(collection, corpus)
        say(f"stored   {len(corpus.ids):,} texts at {rate:,.0f} rows/s, each on 2 of 3 data nodes when acknowledged")
        collection.wait_until_indexed(60)
        before = [measure(collection, corpus, *part) for part in _parts(corpus)]
        if not json:
            show_reports(before)
        traffic = Traffic(
            lambda number: _write_live(collection, corpus, number),
            lambda number: _search_live(collection, corpus, number),
            pause_s=_PAUSE_S,
        )
        traffic.start()
        try:
            shakes = list(_shake(fleet, client, say))
        finally:
            report = traffic.stop()
        account = _account(collection, corpus, report)
        after = _recall_with_live(collection, corpus, report)
    filtered = min(r.recall for r in before)
    held = not (account.lost or account.phantom or report.searches_failed) and min(filtered, after) >= RECALL_FLOOR
    if json:
        print_json(_as_json(rate, before, shakes, report, account, after))
    else:
        _show(report, account, before[0].recall, after)
    return held


@contextlib.contextmanager
def _running(folder: Path, say: Callable[[str], None]) -> Iterator[Fleet]:
    """A fleet of 3 + 2 + 3 in ``folder``, ended afterwards."""
    fleet = Fleet.make(folder, FleetSize(3, 2, 3))
    started = time.perf_counter()
    try:
        fleet.up()
        say(
            f"OmenDB {omendb.__version__}: 3 coordinators, 2 routers and 3 data nodes serve after "
            f"{time.perf_counter() - started:.1f} s (mutual TLS between them)"
        )
        yield fleet
    finally:
        fleet.down()


def _ingest(collection: Collection, corpus: Corpus) -> float:
    started = time.perf_counter()
    for start in range(0, len(corpus.ids), INGEST_ROWS):
        part = slice(start, start + INGEST_ROWS)
        metadata = {name: column[part] for name, column in corpus.metadata.items()}
        collection.upsert(corpus.ids[part], corpus.vectors[part], metadata)
    return len(corpus.ids) / (time.perf_counter() - started)


def _parts(corpus: Corpus) -> Iterator[tuple[str, Any, npt.NDArray[Any]]]:
    for name, (_, condition, _, truth) in corpus.filters.items():
        yield name, condition, truth


# -- while it is shaken


def live_batch(corpus: Corpus, number: int) -> tuple[list[str], npt.NDArray[np.float32], dict[str, Any]]:
    """Batch ``number`` of what is written meanwhile: texts' vectors, a little moved."""
    dice = np.random.default_rng(number)
    rows = dice.integers(0, len(corpus.vectors), LIVE_ROWS)
    moved = corpus.vectors[rows] + dice.normal(0, 0.02, (LIVE_ROWS, corpus.vectors.shape[1]))
    return [f"live-{number}-{i}" for i in range(LIVE_ROWS)], moved.astype(np.float32), {"live": [number] * LIVE_ROWS}


def _write_live(collection: Collection, corpus: Corpus, number: int) -> None:
    ids, vectors, metadata = live_batch(corpus, number)
    collection.upsert(ids, vectors, metadata, timeout=TIMEOUT_S)


def _search_live(collection: Collection, corpus: Corpus, number: int) -> None:
    conditions = [condition for _, condition, _, _ in corpus.filters.values()]
    query = corpus.queries[number % len(corpus.queries)]
    results = collection.search(query, k=K, filters=conditions[number % len(conditions)], timeout=TIMEOUT_S)
    assert len(results) == K, "each of the filters matches more than K texts"


def _shake(fleet: Fleet, client: Client, say: Callable[[str], None]) -> Iterator[Shake]:
    """Kill a data node, the router that this client speaks with, and the Raft leader; bring each back."""
    victims: list[tuple[str, Callable[[], str]]] = [
        ("a data node", lambda: fleet.plan.of("datanode")[0].name),
        ("the router in use", lambda: fleet.router_at(client.router)),
        ("the Raft leader", fleet.leader),
    ]
    for what, choose in victims:
        time.sleep(_SHAKEN_S)  # traffic between the kills, for people to believe it
        victim = choose()
        fleet.kill(victim)
        killed = time.perf_counter()
        time.sleep(_SHAKEN_S)
        fleet.start(victim)
        fleet.wait_member(victim, 30.0)
        shake = Shake(victim, what, time.perf_counter() - killed)
        say(f"kill -9  {what} ({victim}), down for {_SHAKEN_S:.0f} s, started again, up after {shake.back_s:.1f} s")
        yield shake
    time.sleep(_SHAKEN_S)


# -- the account


def _account(collection: Collection, corpus: Corpus, report: TrafficReport) -> Account:
    """Read everything that was acknowledged at the majority, and everything that is there."""
    lost = 0
    for start in range(0, len(report.acknowledged), _READ_BATCHES):
        batches = [live_batch(corpus, number) for number in report.acknowledged[start : start + _READ_BATCHES]]
        ids = [i for batch in batches for i in batch[0]]
        sent_rows = [row for batch in batches for row in zip(batch[1], batch[2]["live"], strict=True)]
        records = collection.get(ids, include=["metadata", "vector"], consistency="majority")
        lost += sum(
            record is None or record.metadata != {"live": number} or not _same(record.vector, vector)
            for record, (vector, number) in zip(records, sent_rows, strict=True)
        )
    promised = len(report.acknowledged) * LIVE_ROWS
    sent = {f"live-{number}-{i}" for number in range(report.begun) for i in range(LIVE_ROWS)} | set(corpus.ids)
    there: set[Any] = set()
    for record in collection.iterate(include=[], page_rows=_PAGE_ROWS, consistency="majority"):
        there.add(record.id)
    lost += len(set(corpus.ids) - there)
    return Account(promised + len(corpus.ids), len(there), lost, len(there - sent))


def _same(found: npt.NDArray[Any] | None, sent: npt.NDArray[np.float32]) -> bool:
    """Whether a vector came back; those of a cosine collection are kept normalized, and lose a bit or two by it."""
    return found is not None and bool(np.allclose(found, sent, rtol=1e-4, atol=1e-6))


def _recall_with_live(collection: Collection, corpus: Corpus, report: TrafficReport) -> float:
    """Recall of the queries, over the texts and everything that was written meanwhile."""
    batches = [live_batch(corpus, number) for number in report.acknowledged]
    ids = corpus.ids + [i for batch in batches for i in batch[0]]
    vectors = np.concatenate([corpus.vectors, *(batch[1] for batch in batches)])
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = np.argsort(-(corpus.queries @ vectors.T), axis=1)[:, :K]
    found = [collection.search(query, k=K, include=["id"]).ids for query in corpus.queries]
    return recall_of(found, truth, ids)


# -- telling it


def _show(report: TrafficReport, account: Account, before: float, after: float) -> None:
    p50, p99 = np.percentile(report.search_ms, [50, 99]).tolist()
    pause = max(report.pause_write_s, report.pause_search_s)
    out.print()
    live = len(report.acknowledged) * LIVE_ROWS
    out.print(f"acknowledged     {account.acknowledged:,} rows, of which {live:,} through the kills")
    out.print(f"[bold]lost             {account.lost}[/bold]")
    out.print(f"phantom          {account.phantom} of {account.found:,} rows found")
    out.print(
        f"searches         {report.searches:,} through the kills, p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
        f"{report.searches_again} made again, [bold]{report.searches_failed} failed beyond one retry[/bold]"
    )
    out.print(f"longest pause    {pause:.2f} s (write {report.pause_write_s:.2f}, search {report.pause_search_s:.2f})")
    out.print(f"recall@{K}        {before:.4f} before, {after:.4f} after")
    for error in report.errors if report.searches_failed else ():
        out.print(f"  {error}", markup=False, soft_wrap=True)


def _as_json(
    rate: float,
    before: list[SearchReport],
    shakes: list[Shake],
    report: TrafficReport,
    account: Account,
    after: float,
) -> dict[str, Any]:
    told = dataclasses.asdict(report)
    told["acknowledged"] = len(report.acknowledged)
    told["search_ms"] = dict(
        zip(("p50", "p99", "max"), np.percentile(report.search_ms, [50, 99, 100]).tolist(), strict=True)
    )
    return {
        "rows": account.acknowledged,
        "rows_per_second": rate,
        "searches_before": [dataclasses.asdict(r) for r in before],
        "kills": [dataclasses.asdict(shake) for shake in shakes],
        "traffic": told,
        **{name: getattr(account, name) for name in ("acknowledged", "found", "lost", "phantom")},
        "longest_pause_s": max(report.pause_write_s, report.pause_search_s),
        "recall_before": before[0].recall,
        "recall_after": after,
    }


def _say(line: str) -> None:
    out.print(line, soft_wrap=True)


def _silent(line: str) -> None:
    """For ``--json``, which prints one document at the end."""


__all__ = ["LIVE_ROWS", "NAME", "Account", "Shake", "fleet_demo", "live_batch"]

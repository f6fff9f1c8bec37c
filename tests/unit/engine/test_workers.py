"""Writers, readers and background workers at once: no half batch, no missing point, no job without its replica."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_common.errors import CorruptionError, DatabaseClosedError, NotFoundError, OmenDBError
from omendb_common.filters import FilterOp as F
from omendb_common.schema import VectorField
from omendb_engine.folder import Folder
from omendb_engine.index.base import BuildCancelledError
from omendb_engine.maintenance import Maintenance
from omendb_engine.replica import Replica
from omendb_engine.workers import Workers
from tests.unit.engine.engine_cases import (
    NAME,
    apply_beside,
    as_ids,
    check_invariants,
    ids_of,
    open_folder,
    open_replica,
    put,
    schema_of,
    settings_of,
    state_of,
    vectors_of,
)

BATCH = 25


def run_all(jobs: list[Callable[[], None]]) -> None:
    """Run jobs in threads to their ends; raises what the first of them raised."""
    problems: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if problems:
        raise problems[0]


@pytest.mark.parametrize(("workers", "durability"), [(1, "os"), (3, "os"), (3, "fsync")])
def test_readers_see_whole_batches_and_every_acknowledged_point(tmp_path: Path, workers: int, durability: str) -> None:
    """Each batch carries its number in all its points; readers count the points of each number they see."""
    settings = settings_of(rows=120, flat=150, fanin=2, workers=workers, durability=durability)
    folder, replica = open_replica(tmp_path / "db", settings, VectorField(8))
    if durability == "fsync":
        apply_beside(replica)
    writers, rounds = 3, 40
    acknowledged = [[0] * rounds for _ in range(writers)]
    done = threading.Event()
    finished = [0]

    def write(writer: int) -> None:
        rng = np.random.default_rng(writer)
        for number in range(rounds):
            ids = [writer * 10_000 + number * BATCH + i for i in range(BATCH)]
            mark = [{"batch": writer * 1000 + number, "v": 0}] * BATCH
            put(replica, ids, seed=int(rng.integers(1 << 30)), payload=mark)
            acknowledged[writer][number] = 1
            if number % 5 == 4:  # the whole batch again, and a batch deleted whole
                put(replica, ids, seed=number, payload=[{"batch": writer * 1000 + number, "v": 1}] * BATCH)
                gone = [i - 3 * BATCH for i in ids]
                acknowledged[writer][number - 3] = 2
                replica.delete(as_ids(gone))
        finished[0] += 1
        if finished[0] == writers:
            done.set()

    def read(reader: int) -> None:
        rng = np.random.default_rng(100 + reader)
        query = vectors_of(1, 8, seed=reader)
        while not done.is_set():
            writer, number = int(rng.integers(writers)), int(rng.integers(rounds))
            before = acknowledged[writer][number]
            mark = F.eq("batch", writer * 1000 + number)
            count = replica.count(mark)
            assert count in (0, BATCH), "half a batch"
            if before == 1 and count == 0:
                assert acknowledged[writer][number] == 2, "an acknowledged batch is missing"
            answer = replica.search(query, BATCH, condition=mark, exact=bool(number % 2))
            hits = answer.picked(0)
            assert len(hits) in (0, BATCH) and {p["batch"] for p in hits.payload()} <= {writer * 1000 + number}
            assert len({p["v"] for p in hits.payload()}) <= 1, "one batch, two versions"
            free = replica.search(query, 10).picked(0)
            assert len(set(free.ids().to_list())) == len(free), "a point twice in one answer"

    run_all([*(lambda w=w: write(w) for w in range(writers)), *(lambda r=r: read(r) for r in range(2))])
    assert replica.wait_until_indexed(60)
    left = sum(a == 1 for row in acknowledged for a in row) * BATCH
    assert replica.count() == left == len(ids_of(replica))
    stats = replica.stats()
    assert stats.last_error is None and stats.unindexed_rows == 0 and stats.index_progress == 1.0
    assert {s.index for s in stats.segments if s.rows >= 150} <= {"hnsw"}
    folder.close()
    before = {}
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=120))
    assert replica.count() == left
    check_invariants(replica)
    before = state_of(replica)
    folder.close()
    assert len(before) == left and replica.resources.budget.used_bytes == 0


def test_automatic_ids_never_meet_explicit_ones(tmp_path: Path) -> None:
    """Other writers take the very ids that are about to be drawn."""
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=500))
    drawn: list[int] = []
    given: set[int] = set()
    guard = threading.Lock()

    def draw() -> None:
        for _ in range(60):
            result = replica.upsert(None, {"": vectors_of(3)}, None, 3)
            with guard:
                drawn.extend(int(i) for i in result.ids.to_list())

    def take() -> None:
        for _ in range(60):
            with guard:
                ids = [max([0, *drawn]) + step for step in (2, 5, 8)]
            put(replica, ids)
            given.update(ids)

    run_all([draw, draw, take])
    check_invariants(replica)
    assert len(drawn) == len(set(drawn)) == 360
    folder.close()


def test_a_batch_that_waits_draws_its_ids_after_those_before_it(tmp_path: Path) -> None:
    """The explicit id queued first, the automatic one behind it, both in one group."""
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=500))
    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert release.wait(20)

    result: list[Any] = []
    holder = threading.Thread(target=replica.exclusively, args=(hold,))
    holder.start()
    assert entered.wait(20)
    queue = replica._commits._queue
    explicit = threading.Thread(target=put, args=(replica, [0, 1, 2]))
    explicit.start()
    while len(queue) < 1:
        pass
    automatic = threading.Thread(target=lambda: result.append(replica.upsert(None, {"": vectors_of(2)}, None, 2)))
    automatic.start()
    while len(queue) < 2:
        pass
    release.set()
    for thread in (holder, explicit, automatic):
        thread.join(20)
    assert result[0].ids.to_list() == [3, 4] and replica.count() == 5
    check_invariants(replica)
    folder.close()


def slow_build(entered: threading.Event) -> Callable[..., Any]:
    """An index build that lasts until it is cancelled."""

    def build(*_: Any, cancelled: Callable[[], bool], **__: Any) -> Any:
        entered.set()
        pause = threading.Event()
        while not cancelled():
            pause.wait(0.001)
        raise BuildCancelledError

    return build


@pytest.mark.parametrize("ending", ["close", "drop"])
def test_closing_and_dropping_cancel_an_index_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    entered = threading.Event()
    monkeypatch.setattr("omendb_engine.maintenance.build_index", slow_build(entered))
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=30, flat=20, workers=2))
    put(replica, range(60))
    replica.flush()
    assert entered.wait(20), "no build was started"
    ender = threading.Thread(target=folder.close if ending == "close" else lambda: folder.drop(NAME))
    ender.start()
    ender.join(20)
    assert not ender.is_alive(), "the build holds up the end"
    with pytest.raises(DatabaseClosedError):
        replica.count()
    with pytest.raises(DatabaseClosedError):
        put(replica, [1])
    folder.close()
    assert replica.resources.budget.used_bytes == 0


def test_a_dropped_collection_answers_what_it_began(tmp_path: Path) -> None:
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=30, flat=20))
    vectors = put(replica, range(60), payload=[{"a": i} for i in range(60)])
    replica.compact()
    answer = replica.search(vectors[:1], 5)
    page = replica.scroll(None, 100)
    folder.drop(NAME)
    assert answer.picked(0).payload()[0] == {"a": 0}
    assert page.picked.payload() == [{"a": i} for i in page.picked.ids().to_list()]
    with pytest.raises(NotFoundError):
        folder.replica(NAME)
    put(folder.create(NAME, schema_of()), [1])
    assert not list((tmp_path / "db" / "collections").glob(f"{replica.schema.uuid}*"))
    folder.close()


def test_searches_go_on_while_a_collection_is_dropped(tmp_path: Path) -> None:
    """Each read either answers from its snapshot or says that the collection is closed; nothing else."""
    folder = open_folder(tmp_path / "db", settings_of(rows=30, flat=20, workers=2))
    for round_number in range(6):
        replica = folder.create(f"c{round_number}", schema_of())
        vectors = put(replica, range(100), payload=[{"a": i} for i in range(100)])
        started = threading.Barrier(3)

        def read(replica: Replica = replica, vectors: Any = vectors, started: threading.Barrier = started) -> None:
            started.wait(20)
            try:
                while True:
                    hits = replica.search(vectors[:1], 5).picked(0)
                    assert hits.payload()[0] == {"a": 0}
            except DatabaseClosedError:
                return

        def drop(started: threading.Barrier = started, name: str = f"c{round_number}") -> None:
            started.wait(20)
            folder.drop(name)

        run_all([read, read, drop])
    folder.close()


def test_a_failing_job_is_noted_tried_again_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError("disk"), CorruptionError("bad", path="x"), MemoryError()]
    left = list(failures)
    seen: list[str | None] = []
    seal = Maintenance.seal_one
    done = threading.Event()

    def failing(self: Maintenance) -> bool:
        if self._store.frozen() and left:
            raise left.pop(0)
        worked = seal(self)
        if worked:
            seen.append(self.progress().last_error)
            done.set()
        return worked

    monkeypatch.setattr(Maintenance, "seal_one", failing)
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=10, workers=1))
    put(replica, range(10))
    put(replica, range(10, 15))
    assert done.wait(30), "a failed seal was not tried again"
    assert not left and seen and "MemoryError" in str(seen[0])
    replica.wait_until_indexed(30)
    assert replica.stats().last_error is None and replica.count() == 15
    folder.close()


def test_a_failed_replica_is_left_alone(tmp_path: Path) -> None:
    folder, replica = open_replica(tmp_path / "db", settings_of(workers=2))
    replica.fail(OSError("planted"))
    rounds = Workers(lambda: [replica], settings_of())._round([lambda r: pytest.fail("a job ran")])
    assert rounds == (False, False)
    with pytest.raises(OmenDBError):
        put(replica, [1])
    assert replica.count() == 0, "reads go on"
    folder.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_waiting_for_the_index(tmp_path: Path, workers: int) -> None:
    settings = settings_of(rows=40, flat=30, workers=workers, delay_s=3600.0)
    folder, replica = open_replica(tmp_path / "db", settings)
    put(replica, range(100))
    assert replica.wait_until_indexed(60)
    stats = replica.stats()
    assert stats.growing_rows == stats.unindexed_rows == stats.index_queue == 0
    assert [s.index for s in stats.segments if s.rows >= 30] == ["hnsw"]
    assert not replica.maintenance.idle, "the hurry goes on after the wait"
    folder.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_waiting_for_an_index_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(Maintenance, "index_one", lambda self, hurry=False: False)
    folder, replica = open_replica(tmp_path / "db", settings_of(rows=40, flat=30, workers=workers))
    put(replica, range(100))
    assert not replica.wait_until_indexed(0.2)
    folder.close()


def test_two_waiters_do_not_end_each_others_hurry(tmp_path: Path) -> None:
    folder, replica = open_replica(tmp_path / "db", settings_of(delay_s=3600.0))
    put(replica, [1])
    replica.maintenance.hurry(True)
    replica.maintenance.hurry(True)
    replica.maintenance.hurry(False)
    assert replica.maintenance.idle
    replica.maintenance.hurry(False)
    assert not replica.maintenance.idle
    folder.close()


def test_close_is_safe_from_many_threads_and_twice(tmp_path: Path) -> None:
    folder, replica = open_replica(tmp_path / "db", settings_of(workers=2))
    put(replica, range(30))
    run_all([folder.close] * 4)
    folder.close()
    replica.close()
    again = Folder.open(str(tmp_path / "db"), settings=settings_of())
    assert again.replica(NAME).count() == 30
    again.close()

"""The folder: places that are and are not databases, collections that come and go, the limits of every call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_common.errors import (
    AlreadyExistsError,
    DatabaseClosedError,
    InvalidArgumentError,
    NotFoundError,
)
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.schema import K_MAX, QUERIES_PER_CALL_MAX, SCROLL_LIMIT_MAX, VectorField
from omendb_engine.folder import COLLECTIONS, Folder
from omendb_engine.query.reads import EF_MAX
from omendb_engine.replica import Replica
from tests.unit.engine.engine_cases import (
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


def test_places_that_are_no_database(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_folder(tmp_path / "missing", mode="r")
    assert not (tmp_path / "missing").exists()
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    (tmp_path / "empty").mkdir()
    for place in ("file", "full"):
        with pytest.raises(InvalidArgumentError) as caught:
            open_folder(tmp_path / place)
        assert caught.value.bound
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"], "it left something in a stranger's folder"
    with pytest.raises(NotFoundError):
        open_folder(tmp_path / "empty", mode="r")
    with pytest.raises(InvalidArgumentError):
        Folder.open(str(tmp_path / "x"), mode="w")  # type: ignore[arg-type]
    open_folder(tmp_path / "empty").close()
    open_folder(tmp_path / "deep" / "er" / "db").close()
    open_folder(tmp_path / "deep" / "er" / "db", mode="r").close()


def test_collections_come_and_go_and_last(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "db")
    for number, name in enumerate(["b", "a", "n.x_1-"]):
        put(folder.create(name, schema_of()), [number])
    with pytest.raises(AlreadyExistsError):
        folder.create("a", schema_of())
    folder.rename("a", "z")
    with pytest.raises(AlreadyExistsError):
        folder.rename("z", "b")
    with pytest.raises(NotFoundError):
        folder.rename("a", "y")
    folder.drop("b")
    with pytest.raises(NotFoundError):
        folder.drop("b")
    for bad in ("", "-x", ".x", "a/b", "a\0", "x" * 256, "ü"):
        with pytest.raises(InvalidArgumentError):
            folder.create(bad, schema_of())
        with pytest.raises(InvalidArgumentError):
            folder.rename("z", bad)
    handle = folder.replica("z")
    folder.rename("z", "q" * 255)
    put(handle, [7])
    folder.close()
    folder = open_folder(tmp_path / "db")
    assert folder.names() == ["n.x_1-", "q" * 255]
    assert sorted(map(str, ids_of(folder.replica("q" * 255)))) == ["1", "7"]
    folder.close()
    with pytest.raises(DatabaseClosedError):
        folder.names()
    with pytest.raises(DatabaseClosedError):
        folder.create("new", schema_of())


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    folder, replica = open_replica(tmp_path / "db")
    put(replica, [1])
    folder.close()
    orphan = tmp_path / "db" / COLLECTIONS / "11111111-1111-4111-8111-111111111111"
    (orphan / "wal").mkdir(parents=True)
    (orphan / "wal" / "x.log").write_bytes(b"1")
    folder, replica = open_replica(tmp_path / "db")
    assert not orphan.exists() and ids_of(replica) == [1]
    folder.close()


def empty(tmp_path: Path, *fields: VectorField) -> tuple[Folder, Replica]:
    """A collection with nothing in it."""
    return open_replica(tmp_path / "db", settings_of(rows=1000), *fields)


@pytest.mark.parametrize("state", ["empty", "emptied", "emptied and sealed"])
def test_reads_of_an_empty_collection(tmp_path: Path, state: str) -> None:
    folder, replica = empty(tmp_path)
    if state != "empty":
        put(replica, range(5))
        if "sealed" in state:
            replica.flush()
        replica.delete(as_ids(range(5)))
        if "sealed" in state:
            replica.flush()
    answer = replica.search(vectors_of(3), 10)
    assert len(answer) == 3 and answer.counts.tolist() == [0, 0, 0]
    assert [len(answer.picked(i)) for i in range(3)] == [0, 0, 0]
    assert not answer.picked(0).ids().to_list() and not answer.picked(0).payload()
    page = replica.scroll(None, 10)
    assert len(page.picked) == 0 and page.cursor is None
    picked, where = replica.get(as_ids([1, "x"]))
    assert len(picked) == len(where) == 0 and picked.vectors("", replica.schema).shape == (0, 4)
    assert replica.count() == 0 and replica.delete(as_ids([1])).count == 0
    assert replica.update(IdColumn.empty(), {}, None).count == 0
    assert replica.wait_until_indexed(10)
    check_invariants(replica)
    folder.close()


def test_k_beyond_the_collection_gives_what_there_is(tmp_path: Path) -> None:
    folder, replica = empty(tmp_path)
    put(replica, range(7))
    replica.flush()
    put(replica, range(7, 10))
    for exact in (False, True):
        answer = replica.search(vectors_of(2), K_MAX, exact=exact)
        assert answer.counts.tolist() == [10, 10]
        assert set(answer.picked(1).ids().to_list()) == set(range(10))
    folder.close()


def test_score_thresholds(tmp_path: Path) -> None:
    folder, replica = empty(tmp_path, VectorField(2, "dot"))
    put(replica, range(4), vectors=np.array([[1, 0], [2, 0], [3, 0], [-1, 0]], np.float32))
    query = np.array([[1, 0], [-1, 0]], np.float32)
    for threshold, expected in ((2.0, [[2, 1], []]), (1.0, [[2, 1, 0], [3]]), (99.0, [[], []]), (-9.0, None)):
        answer = replica.search(query, 4, score_threshold=threshold)
        got = [answer.picked(i).ids().to_list() for i in range(2)]
        assert got == expected if expected is not None else [len(g) for g in got] == [4, 4]
    folder.close()


LIMITS: list[tuple[str, Callable[[Replica, int], Any], int, int]] = [
    ("k", lambda r, k: r.search(vectors_of(1), k), 1, K_MAX),
    ("vectors", lambda r, m: r.search(np.zeros((m, 4), np.float32), 1), 1, QUERIES_PER_CALL_MAX),
    ("limit", lambda r, n: r.scroll(None, n), 1, SCROLL_LIMIT_MAX),
    ("ef", lambda r, ef: r.search(vectors_of(1), 1, ef=ef), 1, EF_MAX),
]


@pytest.mark.parametrize(("field", "call", "low", "high"), LIMITS, ids=[name for name, *_ in LIMITS])
def test_limits_at_their_edges(
    tmp_path: Path, field: str, call: Callable[[Replica, int], Any], low: int, high: int
) -> None:
    folder, replica = empty(tmp_path)
    put(replica, range(3))
    for fine in (low, high):
        call(replica, fine)
    for bad in (low - 1, high + 1):
        with pytest.raises(InvalidArgumentError) as caught:
            call(replica, bad)
        assert caught.value.field == field and caught.value.bound is not None
    folder.close()


def test_other_bad_questions(tmp_path: Path) -> None:
    folder, replica = empty(tmp_path)
    put(replica, range(3))
    nan = np.full((1, 4), np.nan, np.float32)
    calls: list[Callable[[], Any]] = [
        lambda: replica.search(vectors_of(1, 5), 1),
        lambda: replica.search(vectors_of(1)[0], 1),
        lambda: replica.search(nan, 1),
        lambda: replica.search(vectors_of(1), True),
        lambda: replica.search(vectors_of(1), 1.5),  # type: ignore[arg-type]
        lambda: replica.search(vectors_of(1), 1, field="nope"),
        lambda: replica.search(vectors_of(1), 1, recall_target=0.0),
        lambda: replica.search(vectors_of(1), 1, recall_target=1.01),
        lambda: replica.scroll("zz", 1),
        lambda: replica.scroll("g" * 32, 1),
        lambda: replica.scroll(None, True),
        lambda: as_ids(["x" * 513]),
        lambda: as_ids([""]),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError):
            call()
    put(replica, ["x" * 512])
    assert replica.count() == 4
    folder.close()


def test_the_size_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, replica = empty(tmp_path)
    put(replica, [0])
    sizes: list[int] = []
    submit = replica._commits.submit

    def measuring(operation: Any) -> None:
        sizes.append(operation.size)
        submit(operation)

    monkeypatch.setattr(replica._commits, "submit", measuring)
    put(replica, range(1, 9))
    monkeypatch.setattr("omendb_engine.operation.BATCH_BODY_BYTES_MAX", sizes[0])
    put(replica, range(9, 17))
    before = state_of(replica)
    with pytest.raises(InvalidArgumentError) as caught:
        put(replica, range(17, 17 + 40))
    assert caught.value.field == "batch" and str(sizes[0]) in str(caught.value.bound)
    monkeypatch.setattr("omendb_engine.operation.BATCH_BODY_BYTES_MAX", sizes[0] - 1)
    with pytest.raises(InvalidArgumentError):
        put(replica, range(20, 28))
    assert state_of(replica) == before
    folder.close()


def test_automatic_ids_end_at_the_greatest_id(tmp_path: Path) -> None:
    folder, replica = empty(tmp_path)
    put(replica, [2**64 - 3])
    last = replica.upsert(None, {"": vectors_of(2)}, None, 2).ids.to_list()
    assert last == [2**64 - 2, 2**64 - 1]
    with pytest.raises(InvalidArgumentError) as caught:
        replica.upsert(None, {"": vectors_of(1)}, None, 1)
    assert caught.value.field == "ids"
    replica.flush()
    folder.close()
    folder, replica = open_replica(tmp_path / "db")
    with pytest.raises(InvalidArgumentError):
        replica.upsert(None, {"": vectors_of(1)}, None, 1)
    put(replica, [5])
    assert replica.count() == 4
    folder.close()


def test_automatic_ids_are_not_used_again(tmp_path: Path) -> None:
    """Deleting, sealing, refusing and reopening change nothing about that; deleting what is not there neither."""
    folder, replica = empty(tmp_path)
    put(replica, [10])
    replica.delete(as_ids([10, 2**64 - 1]))
    assert replica.upsert(None, {"": vectors_of(1)}, None, 1).ids.to_list() == [11]
    replica.delete(as_ids([11]))
    replica.flush()
    replica.compact()
    folder.close()
    folder, replica = open_replica(tmp_path / "db")
    assert replica.upsert(None, {"": vectors_of(1)}, None, 1).ids.to_list() == [12]
    folder.close()


def test_an_update_above_a_limit_is_refused_before_it_is_logged(tmp_path: Path) -> None:
    """Logged first, it would be refused again by every recovery, and the database could not be opened any more."""
    folder, replica = empty(tmp_path)
    put(replica, [1, 2], payload=[{"a": "x" * 700_000}, {"a": "y"}])
    before, lsn = state_of(replica), replica.stats().applied_lsn
    with pytest.raises(InvalidArgumentError) as caught:
        replica.update(as_ids([2, 1]), {}, columns_from_rows([{"b": "z" * 700_000}] * 2))
    assert caught.value.field == "metadata"
    assert not replica.failed and state_of(replica) == before and replica.stats().applied_lsn == lsn
    assert replica.update(as_ids([2]), {}, columns_from_rows([{"b": "z" * 700_000}])).count == 1
    before = state_of(replica)
    folder.close()
    folder, replica = open_replica(tmp_path / "db")
    assert state_of(replica) == before
    folder.close()


def test_one_closed_database_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    folder, replica = open_replica(tmp_path / "db", settings_of(workers=3, durability="interval"))
    put(replica, range(20))
    folder.close()
    assert set(threading.enumerate()) <= before

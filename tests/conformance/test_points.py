"""Write, read and search points, through every backend."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from omendb import FilterOp as F
from omendb.database import Database
from omendb_common.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError

VECTORS = np.array([[0, 0], [1, 0], [0, 2], [3, 3]], np.float32)
IDS = ["a", "b", "c", "d"]
METADATA = {"kind": ["x", "y", "x", "y"], "rank": [1, 2, 3, 4]}


@pytest.fixture
def filled(db: Database) -> Database:
    db.add_batch(VECTORS, METADATA, IDS)
    return db


def test_the_specifications_lines(db: Database) -> None:
    numpy_array = np.random.default_rng(0).random((50, 8), np.float32)
    categories, times = ["product", "other"] * 25, [1234567880 + i for i in range(50)]
    ids = db.add_batch(vectors=numpy_array, metadata={"category": categories, "timestamp": times})
    assert len(ids) == 50 and ids[0] == next(iter(ids))
    results = db.search(numpy_array[7], k=10)
    assert len(results) == 10 and results[0].id == ids[7] and results[0].distance == pytest.approx(0, abs=1e-4)
    assert results[0].metadata == {"category": "other", "timestamp": 1234567887}


def test_filters_made_in_python_and_in_json(filled: Database) -> None:
    for filters in (F.eq("kind", "y"), {"kind": "y"}, {"kind": {"$eq": "y"}}):
        results = filled.search(vector=[0, 0], k=3, filters=filters, include=["distance", "metadata"])
        assert [hit.id for hit in results] == ["b", "d"]
        assert filled.count(filters) == 2


def test_a_hit_knows_its_distance_score_metadata_and_vector(filled: Database) -> None:
    results = filled.search([0, 0.5], k=2)
    assert [hit.id for hit in results] == ["a", "b"]
    near = results[0]
    assert near.distance == pytest.approx(0.5) and near.score == pytest.approx(1 / 1.5)
    assert near.metadata == {"kind": "x", "rank": 1}
    assert near.vector is not None and near.vector.tolist() == [0, 0]
    assert results[-1].id == "b" and [hit.id for hit in results[:1]] == ["a"]
    np.testing.assert_allclose(results.distances, [0.5, np.sqrt(1.25)], rtol=1e-6)
    assert list(results.ids) == ["a", "b"]
    with pytest.raises(IndexError):
        results[2]


def test_include_says_what_comes_back(filled: Database) -> None:
    hit = filled.search([0, 0], k=1, include=["id", "distance"])[0]
    assert hit.metadata is None and hit.vector is None
    hit = filled.search([0, 0], k=1, include=["vector"])[0]
    assert hit.metadata is None and hit.vector is not None
    hit = filled.search([0, 0], k=1, include=["metadata"])[0]
    assert hit.metadata == {"kind": "x", "rank": 1} and hit.vector is None


def test_metadata_is_that_of_the_time_of_the_search(filled: Database) -> None:
    results = filled.search([0, 0], k=1, include=["metadata"])
    filled.upsert(["a"], VECTORS[:1], {"kind": ["changed"]})
    assert results[0].metadata == {"kind": "x", "rank": 1}


def test_many_queries_in_one_call(filled: Database) -> None:
    batch = filled.search(vectors=VECTORS[[3, 0]], k=2)
    assert isinstance(batch, list) and [[h.id for h in r] for r in batch] == [["d", "c"], ["a", "b"]]
    several: Any = filled.search(VECTORS, k=1)
    assert [r[0].id for r in several] == IDS
    assert [len(r) for r in filled.search(vectors=VECTORS[:1], k=1)] == [1]
    assert filled.search(vectors=[], k=3) == []


def test_k_beyond_the_points_gives_them_all(filled: Database) -> None:
    assert len(filled.search([0, 0], k=100)) == 4


def test_an_empty_database_answers_emptily(db: Database) -> None:
    results = db.search([1.0, 2.0], k=5)
    assert len(results) == 0 and list(results) == [] and results.ids.tolist() == [] and results.metadata == []
    assert results.to_arrow().num_rows == 0 and "0 hits" in repr(results)
    assert results.performance.vectors_scanned == 0
    assert [len(r) for r in db.search(vectors=[[1, 2], [3, 4]])] == [0, 0]
    assert db.count() == 0 and db.get("a") is None and db.get(["a"]) == [None] and db.scroll().records == []
    assert list(db.iterate()) == [] and db.delete(["a"]) == 0 and db.wait_until_indexed(1) and db.schema is None
    assert db.list_collections() == []


def test_results_as_tables(filled: Database) -> None:
    results = filled.search([0, 0], k=2)
    table = results.to_arrow()
    assert table.column_names == ["id", "distance", "score", "kind", "rank"]
    assert table.to_pylist()[1] == {"id": "b", "distance": 1.0, "score": 0.5, "kind": "y", "rank": 2}
    assert results.to_pandas()["rank"].tolist() == [1, 2]
    assert results.to_polars()["kind"].to_list() == ["x", "y"]
    with_vector = filled.search([0, 0], k=2, include=["vector"]).to_arrow()
    assert with_vector.column_names == ["id", "vector"] and with_vector["vector"].to_pylist() == [[0, 0], [1, 0]]


def test_fields_of_several_kinds_and_of_reserved_names_in_a_table(db: Database) -> None:
    rows: list[dict[str, Any]] = [{"score": 1, "mixed": 1}, {"score": 2, "mixed": "two"}]
    db.add_batch([[0.0], [1.0]], rows)
    table = db.search([0.0], k=2).to_arrow()
    assert table["metadata.score"].to_pylist() == [1, 2]
    assert table["mixed#i"].to_pylist() == [1, None] and table["mixed#s"].to_pylist() == [None, "two"]


def test_repr_shows_a_small_table(filled: Database) -> None:
    text = repr(filled.search([0, 0], k=2))
    assert "2 hits" in text and "'kind': 'x'" in text and len(text.splitlines()) == 4
    assert repr(filled.search([0, 0], k=1)[0]).startswith("Hit(id='a', distance=0, score=1")
    assert "4 points" in repr(filled) and "2 × float32 l2" in repr(filled)


def test_a_write_answers_with_its_ids_and_durability(db: Database, durability: str) -> None:
    written = db.add_batch(VECTORS, METADATA, IDS)
    assert written == IDS and list(written) == IDS and written[1:3] == ["b", "c"] and "b" in written
    assert written.durability == durability and written.written == 4 and written.lsn >= 1 and written.stamp > 0
    assert f"durability={durability!r}" in repr(written)
    automatic = db.add_batch(VECTORS)
    assert len(set(automatic)) == 4 and all(isinstance(i, int) for i in automatic)
    assert db.count() == 8


def test_the_last_of_repeated_ids_wins(db: Database) -> None:
    written = db.add_batch(VECTORS[:3], {"n": [1, 2, 3]}, ["p", "q", "p"])
    assert written == ["p", "q", "p"] and written.written == 2
    record = db.get("p", include=["metadata", "vector"])
    assert record is not None and record.metadata == {"n": 3}
    assert record.vector is not None and record.vector.tolist() == [0, 2]


@pytest.mark.parametrize("table", [pa.table, pd.DataFrame, pl.DataFrame])
def test_whole_tables(db: Database, table: Any) -> None:
    frame = table({"id": IDS, "vector": VECTORS.tolist(), **METADATA})
    assert db.add_batch(frame) == IDS
    assert db.get("c").metadata == {"kind": "x", "rank": 3}  # type: ignore[union-attr]
    changed = table({"key": IDS[:1], "v": [[9.0, 9.0]], "rank": [7]})
    assert db.upsert(changed, id_column="key", vector_column="v") == ["a"]
    assert db.get("a").metadata == {"rank": 7}  # type: ignore[union-attr]
    assert len(db.add_batch(table({"vector": VECTORS.tolist()}))) == 4
    with pytest.raises(InvalidArgumentError, match="a column 'id'"):
        db.upsert(table({"vector": VECTORS.tolist()}))
    with pytest.raises(InvalidArgumentError, match="a table alone"):
        db.add_batch(frame, ids=IDS)


def test_ids_of_every_kind(db: Database) -> None:
    key = uuid.uuid4()
    db.upsert([7, "seven", key], VECTORS[:3], {"n": [1, 2, 3]})
    records = db.get([key, 7, "seven", "7", 8])
    assert [r and r.metadata for r in records] == [{"n": 3}, {"n": 1}, {"n": 2}, None, None]
    assert db.get(key).id == str(key)  # type: ignore[union-attr]
    assert sorted(map(str, db.search(VECTORS[0], k=3).ids)) == sorted(["7", "seven", str(key)])


def test_metadata_values_come_back_as_they_went_in(db: Database) -> None:
    rows: list[dict[str, Any]] = [
        {"s": "ä", "i": -5, "f": 0.5, "b": True, "tags": ["x", "y"], "nested": {"deep": {"n": 1}}},
        {"when": dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)},
        {},
    ]
    db.add_batch(VECTORS[:3], rows, ["r", "s", "t"])
    assert [r and r.metadata for r in db.get(["r", "s", "t"])] == rows


def test_create_only(filled: Database) -> None:
    with pytest.raises(AlreadyExistsError):
        filled.add_batch(VECTORS[:2], None, ["new", "a"], create_only=True)
    assert filled.count() == 4 and filled.get("new") is None
    assert filled.add_batch(VECTORS[:1], None, ["new"], create_only=True).written == 1
    filled.delete(["a"])
    assert filled.add_batch(VECTORS[:1], None, ["a"], create_only=True).written == 1
    assert filled.count() == 5


def test_create_only_with_one_copy(db: Database) -> None:
    one = db.create_collection("one", 2, replication=1)
    assert one.add_batch(VECTORS[:2], None, ["a", "b"], create_only=True).written == 2
    with pytest.raises(AlreadyExistsError):
        one.add_batch(VECTORS[:2], None, ["new", "a"], create_only=True)
    assert one.count() == 2 and one.get("new") is None


def test_update_changes_what_it_names(filled: Database, durability: str) -> None:
    written = filled.update(["a", "b"], metadata={"rank": [10, 20]})
    assert written == ["a", "b"] and written.durability == durability
    assert filled.get("a").metadata == {"kind": "x", "rank": 10}  # type: ignore[union-attr]
    filled.update(["a"], vectors=[[5, 5]])
    record = filled.get("a", include=["vector", "metadata"])
    assert record is not None and record.metadata == {"kind": "x", "rank": 10}
    assert record.vector is not None and record.vector.tolist() == [5, 5]
    filled.update("b", unset=["rank"])
    assert filled.get("b").metadata == {"kind": "y"}  # type: ignore[union-attr]
    assert filled.search([5, 5], k=1)[0].id == "a"


def test_update_of_a_missing_point_changes_nothing(filled: Database) -> None:
    with pytest.raises(NotFoundError):
        filled.update(["a", "zz"], metadata={"rank": [0, 0]})
    assert filled.get("a").metadata == {"kind": "x", "rank": 1}  # type: ignore[union-attr]


def test_update_of_an_empty_database_is_not_found(db: Database) -> None:
    with pytest.raises(NotFoundError):
        db.update(["a"], metadata={"rank": [0]})


def test_delete_by_id_and_by_filter(filled: Database, durability: str) -> None:
    deleted = filled.delete(["a", "zz"])
    assert deleted == 1 and deleted.durability == durability and filled.count() == 3
    assert filled.delete(filters={"kind": "y"}) == 2 and filled.count() == 1
    assert filled.delete("c") == 1 and filled.delete([]) == 0
    assert len(filled.search([0, 0])) == 0


def test_scroll_walks_every_point_once(db: Database) -> None:
    matrix = np.zeros((25, 2), np.float32)
    db.add_batch(matrix, {"n": list(range(25))}, [f"p{i:02}" for i in range(25)])
    seen, cursor = [], None
    while True:
        page = db.scroll(limit=10, cursor=cursor)
        assert len(page.records) <= 10
        seen += [r.id for r in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(map(str, seen)) == [f"p{i:02}" for i in range(25)]
    assert {r.id for r in db.iterate(page_rows=7)} == set(seen)
    assert [r.metadata for r in db.iterate({"n": 3}, include=["metadata", "vector"])] == [{"n": 3}]


def test_metrics_turn_distance_and_score_around(db: Database) -> None:
    for metric, distance, score in (("cosine", 0.0, 1.0), ("dot", -4.0, 4.0)):
        other = db.create_collection(metric, 2, metric)  # type: ignore[arg-type]
        other.add_batch([[2.0, 0.0], [0.0, 1.0]], ids=["near", "far"])
        hit = other.search([2.0, 0.0], k=1)[0]
        assert (
            hit.id == "near" and hit.distance == pytest.approx(distance, abs=1e-6) and hit.score == pytest.approx(score)
        )


def test_named_vector_fields(db: Database) -> None:
    from omendb import VectorField

    pair = db.create_collection("pair", vectors={"title": VectorField(2), "body": VectorField(3)})
    pair.add_batch({"title": VECTORS[:2], "body": np.eye(3, dtype=np.float32)[:2]}, ids=["p", "q"])
    assert pair.search([1, 0], k=1, field="title")[0].id == "q"
    assert pair.search([1, 0, 0], k=1, field="body")[0].id == "p"
    assert pair.search([1, 0], k=1)[0].id == "q"
    assert set(pair.get("p", include=["vector"]).vectors) == {"title", "body"}  # type: ignore[union-attr, arg-type]
    pair.update(["p"], {"title": [[7, 7]]})
    assert pair.search([7, 7], k=1, field="title")[0].id == "p"
    with pytest.raises(InvalidArgumentError, match="every field of the collection"):
        pair.add_batch({"title": VECTORS[:2]})
    with pytest.raises(InvalidArgumentError, match="no vector field 'x'"):
        pair.search([1, 0], field="x")


def test_flush_compact_stats_and_wait(filled: Database) -> None:
    filled.flush()
    filled.compact()
    assert filled.wait_until_indexed(timeout=30)
    assert filled.stats() is not None and filled.count() == 4
    for timeout in (-1, float("nan"), "1", True):
        with pytest.raises(InvalidArgumentError, match="timeout"):
            filled.wait_until_indexed(timeout)  # type: ignore[arg-type]

"""Every bad input of the issue's table: a typed error naming field, bound and mend; the database unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omendb.database import Database
from omendb_common.errors import InvalidArgumentError, NotFoundError, OmenDBError
from omendb_common.schema import K_MAX, SCROLL_LIMIT_MAX

V = np.array([[0, 0, 0], [1, 1, 1]], np.float32)

Call = Callable[[Database], Any]
# (name, what the caller does, the field the message names, a piece of the bound)
WRITES: list[tuple[str, Call, str, str]] = [
    ("wrong dimension", lambda db: db.add_batch(V[:, :2]), "vectors", "dimension 3"),
    ("wrong dimension of an upsert", lambda db: db.upsert(["a"], [[1, 2]]), "vectors", "dimension 3"),
    ("wrong dimension of an update", lambda db: db.update(["a"], [[1, 2]]), "vectors", "dimension 3"),
    ("ragged batch", lambda db: db.add_batch([[1, 2, 3], [1, 2]]), "vectors", "equal length"),
    ("ragged arrow batch", lambda db: db.add_batch(pa.array([[1.0, 2.0, 3.0], [1.0]])), "vectors", "equal length"),
    ("empty batch", lambda db: db.add_batch([]), "vectors", "at least 1"),
    ("empty array", lambda db: db.add_batch(V[:0]), "vectors", "at least 1"),
    ("no vectors", lambda db: db.add_batch(None), "vectors", "array of shape"),
    ("one bare vector", lambda db: db.add_batch(V[0]), "vectors", "array of shape"),
    ("NaN", lambda db: db.add_batch([[1, 2, float("nan")]]), "vectors", "finite"),
    ("infinity", lambda db: db.add_batch([[1, 2, float("inf")]]), "vectors", "finite"),
    ("NaN in an update", lambda db: db.update(["a"], [[1, 2, float("nan")]]), "vectors", "finite"),
    ("beyond float32", lambda db: db.add_batch([[1, 2, 1e39]]), "vectors", "float32"),
    ("text for numbers", lambda db: db.add_batch([["a", "b", "c"]]), "vectors", "real numbers"),
    ("complex numbers", lambda db: db.add_batch(V.astype(np.complex128)), "vectors", "real numbers"),
    ("short column", lambda db: db.add_batch(V, {"n": [1]}), "metadata['n']", "2"),
    ("short rows", lambda db: db.add_batch(V, [{"n": 1}]), "metadata", "2 rows"),
    ("bytes in metadata", lambda db: db.add_batch(V, {"n": [b"x", b"y"]}), "metadata['n']", ""),
    ("NaN in metadata", lambda db: db.add_batch(V, {"n": [float("nan"), 1.0]}), "metadata['n']", "finite"),
    ("integer beyond 64 bits", lambda db: db.add_batch(V, {"n": [1 << 70, 1]}), "metadata['n']", ""),
    ("oversize payload", lambda db: db.add_batch(V, {"n": ["x" * (1 << 21), ""]}), "metadata", "1048576"),
    ("metadata of a wrong type", lambda db: db.add_batch(V, 5), "metadata", "mapping"),
    ("ids that do not match", lambda db: db.add_batch(V, ids=["a"]), "ids", "2 ids"),
    ("negative id", lambda db: db.add_batch(V, ids=[1, -1]), "ids", "0.."),
    ("fractional id", lambda db: db.add_batch(V, ids=[1.5, 2.5]), "ids", "int"),
    ("empty id", lambda db: db.add_batch(V, ids=["", "x"]), "ids", "at least 1 byte"),
    ("oversize id", lambda db: db.add_batch(V, ids=["x" * 513, "y"]), "ids", "512"),
    ("null id", lambda db: db.add_batch(V, ids=["x", None]), "ids", "int, str"),
    ("upsert without ids", lambda db: db.upsert(None, V), "ids", "one id per vector"),
    ("update of nothing", lambda db: db.update(["a"]), "vectors, metadata, unset", "at least one"),
    ("update of no ids", lambda db: db.update([], metadata={"n": []}), "ids", "at least 1"),
    ("update with too few vectors", lambda db: db.update(["a", "b"], V[:1]), "vectors", "2 vectors"),
    ("unset of a string", lambda db: db.update(["a"], unset="n"), "unset", "list of keys"),
    ("delete of both", lambda db: db.delete(["a"], filters={"n": 1}), "ids, filters", "exactly one"),
    ("delete of neither", lambda db: db.delete(), "ids, filters", "exactly one"),
    ("delete of everything by an empty filter", lambda db: db.delete(filters={}), "filters", "a condition"),
]
READS: list[tuple[str, Call, str, str]] = [
    ("k of 0", lambda db: db.search(V[0], k=0), "k", f"1..{K_MAX}"),
    ("k beyond the limit", lambda db: db.search(V[0], k=K_MAX + 1), "k", f"1..{K_MAX}"),
    ("k of a wrong type", lambda db: db.search(V[0], k=2.5), "k", "an integer"),  # type: ignore[call-overload]
    ("query of a wrong dimension", lambda db: db.search([1, 2]), "query", "dimension 3"),
    ("queries of a wrong dimension", lambda db: db.search(vectors=[[1, 2]]), "vectors", "dimension 3"),
    ("NaN in a query", lambda db: db.search([1, 2, float("nan")]), "query", "finite"),
    ("NaN in a float32 query", lambda db: db.search(np.full(3, np.nan, np.float32)), "query", "finite"),
    ("no query", lambda db: db.search(), "query", "exactly one"),
    ("two queries", lambda db: db.search(V[0], vector=V[0]), "query", "exactly one"),
    ("unknown include", lambda db: db.search(V[0], include=["payload"]), "include", "metadata"),
    ("include as a string", lambda db: db.search(V[0], include="metadata"), "include", "a list"),
    ("unknown operator", lambda db: db.search(V[0], filters={"n": {"$near": 1}}), "n", "$gte"),
    ("unknown combination", lambda db: db.count({"$xor": []}), "filters", "$and"),
    ("filter of a wrong type", lambda db: db.count("n > 1"), "filters", "object"),  # type: ignore[arg-type]
    ("recall target of 0", lambda db: db.search(V[0], recall_target=0), "recall_target", "0..1"),
    ("recall target above 1", lambda db: db.search(V[0], recall_target=1.1), "recall_target", "0..1"),
    ("ef of 0", lambda db: db.search(V[0], ef=0), "ef", "1.."),
    ("threshold of NaN", lambda db: db.search(V[0], score_threshold=float("nan")), "score_threshold", "finite"),
    ("unknown field", lambda db: db.search(V[0], field="x"), "vector", "one of"),
    ("scroll limit of 0", lambda db: db.scroll(limit=0), "limit", f"1..{SCROLL_LIMIT_MAX}"),
    ("scroll limit too high", lambda db: db.scroll(limit=SCROLL_LIMIT_MAX + 1), "limit", f"1..{SCROLL_LIMIT_MAX}"),
    ("a cursor that is none", lambda db: db.scroll(cursor=3), "cursor", "cursor"),  # type: ignore[arg-type]
    ("get of nothing", lambda db: db.get(None), "ids", "int, str"),
    ("collection name", lambda db: db.create_collection("a/b", 3), "collection", "letters"),
    ("dimension of 0", lambda db: db.create_collection("x", 0), "dimension", "1..65536"),
    ("dimension too high", lambda db: db.create_collection("x", 65_537), "dimension", "1..65536"),
    ("no dimension", lambda db: db.create_collection("x"), "dimension, vectors", "exactly one"),
    ("unknown metric", lambda db: db.create_collection("x", 3, "l1"), "metric", "cosine"),  # type: ignore[arg-type]
    ("unknown dtype", lambda db: db.create_collection("x", 3, dtype="f8"), "dtype", "int8"),  # type: ignore[arg-type]
    ("unknown index", lambda db: db.create_collection("x", 3, index="magic"), "index", "hnsw"),
    ("unknown option", lambda db: db.create_collection("x", 3, hnsw_n=3), "hnsw_n", "hnsw_m"),
    ("option out of bounds", lambda db: db.create_collection("x", 3, hnsw_m=1), "hnsw_m", "4..128"),
    ("unknown codes", lambda db: db.create_collection("x", 3, quantization="pq"), "quantization", "binary"),
    (
        "codes too coarse for a graph",
        lambda db: db.create_collection("x", 3, index="hnsw", quantization="binary"),
        "quantization",
        "scalar8",
    ),
    (
        "codes of no index",
        lambda db: db.create_collection("x", 3, index="flat", quantization="float16"),
        "quantization",
        "none",
    ),
    ("too many lists", lambda db: db.create_collection("x", 3, index="ivf", nlist=65_537), "nlist", "0..65536"),
    ("rename to a bad name", lambda db: db.rename_collection("default", ""), "collection", "letters"),
]


def contents(db: Database) -> list[Any]:
    """Everything a reader can see, in comparable form."""
    records = db.iterate(include=["metadata", "vector"])
    return sorted(((r.id, r.metadata, None if r.vector is None else r.vector.tolist()) for r in records), key=str)


def check(db: Database, call: Call, field: str, bound: str) -> None:
    db.add_batch(V, {"n": [1, 2]}, ["a", "b"])
    before, names = contents(db), db.list_collections()
    with pytest.raises(InvalidArgumentError) as caught:
        call(db)
    assert caught.value.field is not None and field in caught.value.field
    assert bound in str(caught.value)
    assert contents(db) == before and db.list_collections() == names
    assert len(db.search(V[0], k=5)) == 2


@pytest.mark.parametrize(("call", "field", "bound"), [r[1:] for r in WRITES], ids=[r[0] for r in WRITES])
def test_a_bad_write_changes_nothing(db: Database, call: Call, field: str, bound: str) -> None:
    check(db, call, field, bound)


@pytest.mark.parametrize(("call", "field", "bound"), [r[1:] for r in READS], ids=[r[0] for r in READS])
def test_a_bad_read_is_refused(db: Database, call: Call, field: str, bound: str) -> None:
    check(db, call, field, bound)


@pytest.mark.parametrize("call", [r[1] for r in WRITES], ids=[r[0] for r in WRITES])
def test_a_bad_first_write_creates_nothing(db: Database, call: Call) -> None:
    try:
        call(db)
    except OmenDBError:
        assert db.list_collections() == [] and db.count() == 0
    else:
        assert db.count() > 0  # what is wrong for three dimensions is a fine first write in two


def test_small_element_types_refuse_what_they_cannot_hold(db: Database) -> None:
    small = db.create_collection("small", 3, dtype="int8")
    for wrong in ([[0.5, 0, 0]], [[128, 0, 0]], [[0, 0, float("nan")]]):
        with pytest.raises(InvalidArgumentError) as caught:
            small.add_batch(wrong)
        assert caught.value.field == "vectors"
    assert small.count() == 0
    written = small.add_batch([[1, -128, 127]])
    assert small.get(written[0], include=["vector"]).vector.dtype == np.int8  # type: ignore[union-attr]


def test_an_unknown_collection_is_not_found(db: Database) -> None:
    db.create_collection("known", 3)
    with pytest.raises(NotFoundError, match="known"):
        db.collection("unknown")
    with pytest.raises(NotFoundError):
        db.drop_collection("unknown")
    with pytest.raises(NotFoundError):
        db.rename_collection("unknown", "other")

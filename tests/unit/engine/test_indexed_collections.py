"""Collections of every kind of index through the whole engine: sealed, indexed, merged, deleted from, opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omendb
from omendb import FilterOp as F
from omendb_common.index_options import Quantization
from omendb_engine.index.policy import IndexKind
from tests.unit.engine.index_cases import KINDS, clustered, recall

N, D = 6_000, 16
SETTINGS: dict[str, Any] = {
    "flat_rows_max": 100,
    "index_delay_s": 0.0,
    "background_threads": 0,
    "buffer_rows_max": 3_000,
    "build_threads": 1,
}


def exact(rows: Any, queries: Any, k: int, allowed: Any) -> Any:
    """The nearest of the allowed rows."""
    distances = ((queries[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    distances[:, ~allowed] = np.inf
    return np.argsort(distances, axis=1)[:, :k]


def kinds_of(collection: omendb.Collection) -> set[str]:
    """The kinds of the segments' indexes."""
    return {segment.index for segment in collection.stats().segments}


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_a_collection_keeps_its_recall_through_everything(tmp_path: Path, kind: IndexKind, codes: Quantization) -> None:
    rows = clustered(N, D).astype(np.float32)
    queries = clustered(40, D, seed=99).astype(np.float32)
    alive = np.ones(N, np.bool_)
    even = np.arange(N) % 2 == 0
    tenth = np.arange(N) % 10 == 3

    def check(collection: omendb.Collection) -> None:
        for allowed, filters in ((alive, None), (alive & even, F.eq("even", 1)), (alive & tenth, F.eq("tenth", 1))):
            hits: Any = collection.search(queries, k=10, filters=filters, recall_target=0.95)
            found = np.array([[hit.id for hit in one] for one in hits])
            assert allowed[found].all()
            assert recall(found, exact(rows, queries, 10, allowed)) >= 0.93

    with omendb.open(tmp_path / "db", **SETTINGS) as db:
        db.create_collection("c", D, index=kind, quantization=codes)
        collection = db.collection("c")
        for start in range(0, N, 2_000):
            stop = start + 2_000
            payload = {"even": even[start:stop].astype(int).tolist(), "tenth": tenth[start:stop].astype(int).tolist()}
            collection.add_batch(vectors=rows[start:stop], ids=list(range(start, stop)), metadata=payload)
        collection.flush()
        collection.wait_until_indexed()
        assert kinds_of(collection) == {kind}
        check(collection)
        gone = list(range(0, N, 7))
        collection.delete(gone)
        alive[gone] = False
        check(collection)
        collection.compact()
        collection.wait_until_indexed()
        assert kinds_of(collection) == {kind}
        check(collection)
    with omendb.open(tmp_path / "db", **SETTINGS) as db:
        collection = db.collection("c")
        assert kinds_of(collection) == {kind}
        assert collection.schema is not None and collection.schema.options.get("quantization") == codes
        check(collection)


def test_the_settings_choose_for_collections_that_do_not(tmp_path: Path) -> None:
    settings = {**SETTINGS, "quantization": "product"}
    with omendb.open(tmp_path / "db", **settings) as db:
        chosen: list[tuple[str, dict[str, Any], str]] = [
            ("theirs", {}, "ivf"),
            ("graph", {"index": "hnsw"}, "hnsw"),
            ("exact", {"index": "flat"}, "flat"),
            ("bytes", {"quantization": "scalar8"}, "hnsw"),
        ]
        for name, options, wanted in chosen:
            db.create_collection(name, D, **options)
            db.collection(name).add_batch(vectors=clustered(500, D).astype(np.float32))
            db.collection(name).flush()
            db.collection(name).wait_until_indexed()
            assert kinds_of(db.collection(name)) == {wanted}

"""A search is explained the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from omendb.database import Database
from omendb_common.errors import InvalidArgumentError, NotFoundError

ROWS = 60


def test_a_search_is_explained(engine_db: Database) -> None:
    collection = engine_db.create_collection("told", 4)
    vectors = np.random.default_rng(1).random((ROWS, 4), np.float32)
    collection.upsert(list(range(ROWS)), vectors, {"n": list(range(ROWS))})
    told = collection.explain(vectors[0], k=5)
    assert (told.k, told.matching, told.measured_recall) == (5, ROWS, None)
    assert told.searched and all(plan.choice == "exact" and plan.why for plan in told.searched)
    assert told.comparisons == ROWS and told.expected_recall == 1.0
    some = collection.explain(vectors=vectors[:3], k=5, filters={"n": {"$lt": 7}}, measure=True)
    assert (some.matching, some.comparisons, some.measured_recall) == (7, 7, 1.0)
    none = collection.explain(vectors[0], filters={"n": -1})
    assert not none.searched and none.matching == 0


def test_what_a_search_refuses_is_refused(engine_db: Database) -> None:
    collection = engine_db.create_collection("told-wrong", 4)
    collection.upsert([1], np.zeros((1, 4), np.float32))
    for wrong in ({"k": 0}, {"ef": 0}, {"recall_target": 2.0}, {"filters": {"a": {"$no": 1}}}, {"field": "none"}):
        with pytest.raises((InvalidArgumentError, NotFoundError)):
            collection.explain([0.0] * 4, **wrong)
    with pytest.raises(InvalidArgumentError):
        collection.explain([0.0] * 3)

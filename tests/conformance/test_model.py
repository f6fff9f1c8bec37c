"""Any history of calls leaves what a dict of points would hold, wherever the database runs."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from omendb.collection import Collection
from omendb.database import Database
from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.ids import PointId
from tests.property.test_replica_model import CONDITIONS, UNIVERSE, Condition, distances

DIMENSION = 3
STEPS = 60
VALUES: dict[str, list[Any]] = {
    "a": [1, 2, 3, 1.5, "x"],
    "b": ["x", "y", "z"],
    "n": [{"u": 1}, {"u": 2, "v": True}, {"v": True}, {"v": False}],
    "t": [[1], [1, 2], [2]],
}


class Twin:
    """A collection beside a dict that is told the same."""

    def __init__(self, collection: Collection, kind: str, rng: random.Random) -> None:
        self.collection = collection
        self.rng = rng
        self.ids = UNIVERSE[kind]
        self.model: dict[PointId, tuple[list[float], dict[str, Any]]] = {}
        self._next = itertools.count(1)

    def some(self, most: int) -> list[PointId]:
        return self.rng.sample(self.ids, self.rng.randint(1, most))

    def vectors(self, n: int) -> np.ndarray[Any, Any]:
        start = next(self._next)
        return np.array([[start + i, -start, i % 3] for i in range(n)], np.float32)

    def payload(self) -> dict[str, Any]:
        keys = self.rng.sample(sorted(VALUES), self.rng.randint(0, len(VALUES)))
        return {key: self.rng.choice(VALUES[key]) for key in keys}

    # -- what may happen

    def upsert(self) -> None:
        ids = self.some(8)
        ids += self.rng.sample(ids, self.rng.randint(0, 1))  # of an id that is named twice the last one wins
        vectors, payloads = self.vectors(len(ids)), [self.payload() for _ in ids]
        assert self.collection.upsert(ids, vectors, payloads).written == len(set(ids))
        for point, vector, payload in zip(ids, vectors, payloads, strict=True):
            self.model[point] = (vector.tolist(), payload)

    def update(self) -> None:
        ids = self.some(4)
        vectors = self.vectors(len(ids)) if self.rng.random() < 0.5 else None
        payloads = [self.payload() for _ in ids]
        unset = self.rng.sample(sorted(VALUES), self.rng.randint(0, 1))
        if vectors is None and not any(payloads) and not unset:
            with pytest.raises(InvalidArgumentError, match="nothing to change"):
                self.collection.update(ids, vectors, payloads)
            return
        if set(ids) - self.model.keys():
            with pytest.raises(NotFoundError):
                self.collection.update(ids, vectors, payloads, unset=unset)
            return
        assert self.collection.update(ids, vectors, payloads, unset=unset).written == len(ids)
        for row, point in enumerate(ids):
            vector, payload = self.model[point]
            kept = {key: value for key, value in payload.items() if key not in unset}
            self.model[point] = (vector if vectors is None else vectors[row].tolist(), kept | payloads[row])

    def delete(self) -> None:
        ids = self.some(4)
        assert self.collection.delete(ids) == len(self.model.keys() & set(ids))
        for point in ids:
            self.model.pop(point, None)

    def delete_where(self) -> None:
        condition = self.rng.choice(CONDITIONS)
        gone = self.matching(condition)
        assert self.collection.delete(filters=condition[0]) == len(gone)
        for point in gone:
            del self.model[point]

    def flush(self) -> None:
        self.collection.flush()

    def compact(self) -> None:
        self.collection.compact()

    # -- what must hold

    def matching(self, condition: Condition) -> set[PointId]:
        return {point for point, (_, payload) in self.model.items() if condition[1](payload)}

    def check(self) -> None:
        records = self.collection.get(self.ids, include=["metadata", "vector"])
        for point, record in zip(self.ids, records, strict=True):
            if point not in self.model:
                assert record is None, point
                continue
            vector, payload = self.model[point]
            assert record is not None and record.id == point and record.metadata == payload
            assert record.vector is not None and record.vector.tolist() == vector
        assert self.collection.count() == len(self.model)
        condition = self.rng.choice(CONDITIONS)
        expected = self.matching(condition)
        assert self.collection.count(condition[0]) == len(expected)
        assert {record.id for record in self.collection.iterate(condition[0], page_rows=3)} == expected
        self.check_search(None, set(self.model))
        self.check_search(condition, expected)

    def check_search(self, condition: Condition | None, allowed: set[PointId]) -> None:
        query, k = self.vectors(1)[0], self.rng.choice([1, 3, 50])
        results = self.collection.search(query, k=k, filters=None if condition is None else condition[0])
        hits = [hit.id for hit in results]
        assert len(hits) == len(set(hits)) == min(k, len(allowed)) and set(hits) <= allowed
        if not hits:
            return
        matrix = np.array([self.model[point][0] for point in hits], np.float32)
        np.testing.assert_allclose(results.distances, distances(matrix, query, "l2"), rtol=1e-4, atol=1e-4)
        everything = np.array([self.model[point][0] for point in allowed], np.float32)
        nearest = np.sort(distances(everything, query, "l2"))[: len(hits)]
        np.testing.assert_allclose(results.distances, nearest, rtol=1e-4, atol=1e-4)
        assert [hit.metadata for hit in results] == [self.model[point][1] for point in hits]


@pytest.mark.parametrize("kind", sorted(UNIVERSE))
def test_any_history(engine_db: Database, kind: str) -> None:
    twin = Twin(engine_db.create_collection("twin", DIMENSION), kind, random.Random(kind))
    steps = [
        twin.upsert,
        twin.upsert,
        twin.upsert,
        twin.update,
        twin.update,
        twin.delete,
        twin.delete_where,
        twin.flush,
    ]
    for step in range(STEPS):
        (twin.compact if step % 20 == 19 else twin.rng.choice(steps))()
        if step % 3 == 2:
            twin.check()
    twin.check()

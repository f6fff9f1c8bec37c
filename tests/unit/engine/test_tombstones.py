"""Deletions of a growing buffer against a dictionary, and that asking after each of many stays cheap."""

from __future__ import annotations

import random

import numpy as np

from omendb_common.ids import IdColumn
from omendb_engine.tombstones import Tombstones


def test_the_newest_deletion_counts_whatever_the_order_of_adding_and_asking() -> None:
    rng = random.Random(7)
    tombstones = Tombstones()
    model: dict[int, int] = {}
    for _ in range(300):
        ids = rng.sample(range(200), rng.randint(1, 9))
        stamps = [rng.randrange(1, 1000) for _ in ids]
        tombstones.add(IdColumn.of(ids), np.array(stamps, np.uint64))
        for point_id, stamp in zip(ids, stamps, strict=True):
            model[point_id] = max(model.get(point_id, 0), stamp)
        if rng.random() < 0.3:
            asked = rng.sample(range(250), 20)
            found = tombstones.newest(*IdColumn.of(asked).hashes())
            assert found.tolist() == [model.get(i, 0) for i in asked]
    assert tombstones.rows == len(tombstones.columns()[0])


def test_nothing_deleted_is_nothing_found() -> None:
    tombstones = Tombstones()
    assert not tombstones
    assert tombstones.newest(*IdColumn.of([1, 2]).hashes()).tolist() == [0, 0]


def test_runs_stay_few() -> None:
    tombstones = Tombstones()
    for number in range(2000):
        tombstones.add(IdColumn.of([number]), np.array([1], np.uint64))
        tombstones.newest(*IdColumn.of([number]).hashes())
    assert len(tombstones._runs) <= 12, "each question looks through every run"

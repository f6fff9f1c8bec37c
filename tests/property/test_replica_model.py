"""A replica behaves as one dict of points, whatever is sealed, merged, indexed or reopened in between."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from omendb_common.errors import AlreadyExistsError, NotFoundError
from omendb_common.filters import Filter
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn, PointId
from omendb_common.payload import columns_from_rows
from omendb_common.schema import METRICS, VECTOR_DTYPES, Metric, VectorDType, VectorField
from omendb_engine.folder import Folder
from omendb_engine.query.answer import Picked
from omendb_engine.replica import Replica
from tests.unit.engine.engine_cases import (
    NAME,
    apply_beside,
    check_invariants,
    open_folder,
    schema_of,
    settings_of,
    state_of,
    state_of_picked,
)

DIMENSION = 3
INTS: list[PointId] = list(range(12))
STRINGS: list[PointId] = [f"p{i}" for i in range(12)]
UNIVERSE: dict[str, list[PointId]] = {"int": INTS, "str": STRINGS, "mixed": [*INTS[:8], *STRINGS[:8], 2**64 - 1]}

Payload = dict[str, Any]
Condition = tuple[Filter, Callable[[Payload], bool]]


def _number(payload: Payload, key: str) -> Any:
    value = payload.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


CONDITIONS: list[Condition] = [
    (F.eq("a", 1), lambda p: _number(p, "a") == 1),
    (F.gte("a", 2), lambda p: (_number(p, "a") or 0) >= 2),
    (F.in_("b", ["x", "y"]), lambda p: p.get("b") in ("x", "y")),
    (F.ne("b", "x"), lambda p: p.get("b") != "x"),
    (F.exists("n.u"), lambda p: "u" in p.get("n", {})),
    (F.contains("t", 1), lambda p: 1 in p.get("t", [])),
    (F.OR(F.is_null("a"), F.eq("b", "z")), lambda p: "a" not in p or p.get("b") == "z"),
    (F.AND(F.lt("a", 3), F.eq("n.v", True)), lambda p: (_number(p, "a") or 9) < 3 and p.get("n", {}).get("v") is True),
]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "a": st.sampled_from([1, 2, 3, 1.5, "x"]),
    "b": st.sampled_from(["x", "y", "z"]),
    "n": st.sampled_from([{"u": 1}, {"u": 2, "v": True}, {"v": True}, {"v": False}]),
    "t": st.sampled_from([[1], [1, 2], [2]]),
}
PAYLOADS = st.fixed_dictionaries({}, optional=VALUES)
CELLS = st.sampled_from([0, 1, 2, 3, 5, 100])


def distances(x: npt.NDArray[Any], q: npt.NDArray[Any], metric: Metric) -> npt.NDArray[np.float64]:
    """The definition, in float64."""
    x, q = x.astype(np.float64), q.astype(np.float64)
    if metric == "l2":
        return np.asarray(np.linalg.norm(x - q, axis=1))
    if metric == "dot":
        return np.asarray(-(x @ q))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(q)
    return np.asarray(1 - np.divide(x @ q, lengths, out=np.zeros(len(x)), where=lengths > 0))


class ReplicaMachine(RuleBasedStateMachine):
    """Random operations on a real folder beside a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="omendb-model-"))
        self.model: dict[PointId, tuple[npt.NDArray[Any], npt.NDArray[np.float32], Payload]] = {}
        self.folder: Folder | None = None
        self.int_max = -1
        self.held: Any = None
        self.cursor: str | None = None
        self.seen: set[PointId] = set()
        self.stable: set[PointId] | None = None

    @initialize(
        metric=st.sampled_from(METRICS),
        dtype=st.sampled_from(VECTOR_DTYPES),
        kind=st.sampled_from(sorted(UNIVERSE)),
        rows=st.sampled_from([1, 3, 7]),
        fanin=st.sampled_from([2, 3]),
        beside=st.booleans(),
    )
    def create(self, metric: Metric, dtype: VectorDType, kind: str, rows: int, fanin: int, beside: bool) -> None:
        self.metric, self.dtype, self.ids = metric, dtype, UNIVERSE[kind]
        self.settings = settings_of(rows=rows, flat=8, fanin=fanin, durability="fsync")
        self.folder = open_folder(self.home / "db", self.settings)
        self.beside = beside
        schema = schema_of(VectorField(DIMENSION, metric, dtype), VectorField(2, "dot", "float32", "alt"))
        self.replica: Replica = self.folder.create(NAME, schema)
        self._opened()

    def _opened(self) -> None:
        """Half of the examples apply every write in a second thread while the log is synced."""
        if self.beside:
            apply_beside(self.replica)

    # -- operations ----------------------------------------------------------------------------------

    def _vectors(self, cells: Sequence[int], n: int) -> npt.NDArray[Any]:
        flat = np.resize(np.array(cells or [1]), n * DIMENSION) + np.arange(n * DIMENSION) % 5
        signs = np.where(np.arange(n * DIMENSION) % 3 == 0, -1, 1) if self.dtype != "uint8" else 1
        return np.asarray((flat * signs).reshape(n, DIMENSION).astype(self.dtype))

    def _alt(self, n: int, start: int) -> npt.NDArray[np.float32]:
        return (np.arange(n * 2, dtype=np.float32) + start).reshape(n, 2)

    def _put(self, ids: Sequence[PointId], vectors: Any, alt: Any, payloads: Sequence[Payload]) -> None:
        for row, point in enumerate(ids):
            self.model[point] = (vectors[row], alt[row], dict(payloads[row]))
            if isinstance(point, int):
                self.int_max = max(self.int_max, point)

    @rule(data=st.data(), cells=st.lists(CELLS, max_size=7), create_only=st.sampled_from([False, False, False, True]))
    def upsert(self, data: st.DataObject, cells: list[int], create_only: bool) -> None:
        ids = data.draw(st.lists(st.sampled_from(self.ids), min_size=1, max_size=10))
        payloads = data.draw(st.lists(PAYLOADS, min_size=len(ids), max_size=len(ids)))
        vectors, alt = self._vectors(cells, len(ids)), self._alt(len(ids), sum(cells))
        columns = columns_from_rows(payloads)
        call = {"": vectors, "alt": alt}
        if create_only and self.model.keys() & set(ids):
            with pytest.raises(AlreadyExistsError):
                self.replica.upsert(IdColumn.of(ids), call, columns, len(ids), create_only=True)
            return
        result = self.replica.upsert(IdColumn.of(ids), call, columns, len(ids), create_only=create_only)
        assert result.count == len(set(ids)) and result.ids.to_list() == ids
        self._put(ids, vectors, alt, payloads)

    @rule(n=st.integers(1, 9), cells=st.lists(CELLS, max_size=5), payload=PAYLOADS)
    def upsert_automatic(self, n: int, cells: list[int], payload: Payload) -> None:
        if self.int_max + n >= 1 << 64:
            return
        vectors, alt = self._vectors(cells, n), self._alt(n, 0)
        result = self.replica.upsert(None, {"": vectors, "alt": alt}, columns_from_rows([payload] * n), n)
        ids = result.ids.to_list()
        assert all(isinstance(i, int) and i > self.int_max for i in ids) and len(set(ids)) == n
        self._put(ids, vectors, alt, [payload] * n)

    @rule(data=st.data(), cells=st.lists(CELLS, max_size=5), with_vectors=st.booleans(), with_alt=st.booleans())
    def update(self, data: st.DataObject, cells: list[int], with_vectors: bool, with_alt: bool) -> None:
        ids = data.draw(st.lists(st.sampled_from([*self.ids, *self.model]), min_size=1, max_size=6))
        payloads = data.draw(st.none() | st.lists(PAYLOADS, min_size=len(ids), max_size=len(ids)))
        unset = data.draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=2, unique=True))
        vectors, alt = self._vectors(cells, len(ids)), self._alt(len(ids), 7)
        given: dict[str, npt.NDArray[Any]] = {}
        given |= {"": vectors} if with_vectors else {}
        given |= {"alt": alt} if with_alt else {}
        columns = None if payloads is None else columns_from_rows(payloads)
        if set(ids) - self.model.keys():
            with pytest.raises(NotFoundError):
                self.replica.update(IdColumn.of(ids), given, columns, unset=unset)
            return
        assert self.replica.update(IdColumn.of(ids), given, columns, unset=unset).count == len(set(ids))
        for point, row in {point: row for row, point in enumerate(ids)}.items():
            main, other, payload = self.model[point]
            kept = {key: value for key, value in payload.items() if key not in unset}
            kept |= payloads[row] if payloads is not None else {}
            self.model[point] = (vectors[row] if with_vectors else main, alt[row] if with_alt else other, kept)

    @rule(data=st.data(), more=st.just(()))
    def delete(self, data: st.DataObject, more: Sequence[PointId]) -> None:
        ids = data.draw(st.lists(st.sampled_from([*more, *self.ids, *self.model]), min_size=len(more) // 4, max_size=6))
        assert self.replica.delete(IdColumn.of(ids)).count == len(self.model.keys() & set(ids))
        self._forget(set(ids))

    @rule(condition=st.sampled_from(CONDITIONS))
    def delete_where(self, condition: Condition) -> None:
        gone = {i for i, (_, _, payload) in self.model.items() if condition[1](payload)}
        assert self.replica.delete_where(condition[0]).count == len(gone)
        self._forget(gone)

    def _forget(self, ids: set[PointId]) -> None:
        for point in ids:
            self.model.pop(point, None)
        if self.stable is not None:
            self.stable -= ids

    # -- work behind ---------------------------------------------------------------------------------

    @rule()
    def flush(self) -> None:
        self.replica.flush()

    @rule()
    def seal_one(self) -> None:
        self.replica.maintenance.seal_one()

    @rule()
    def merge(self) -> None:
        self.replica.maintenance.merge_one(idle=True)

    @rule(data=st.data(), seal=st.booleans(), job=st.sampled_from(["merge", "index", "seal"]))
    def write_beside_a_job(self, data: st.DataObject, seal: bool, job: str) -> None:
        """Points change between the making of files and the swap that puts them in force."""
        maintenance = self.replica.maintenance
        for _ in range(2):  # something to work on
            self.upsert_automatic(5, [3, 1], {"a": 1})
            if job != "seal":
                self.replica.flush()
        if job == "index":
            maintenance.merge_one(idle=True)
        write, build = maintenance._write, maintenance._build_index

        def meanwhile() -> None:
            maintenance._write, maintenance._build_index = write, build  # type: ignore[method-assign]
            self.delete(data, more=sorted(i for i in self.model if isinstance(i, int))[-9:])
            self.upsert(data, [1, 2], False)
            if seal and job != "seal":
                self.replica.flush()

        def write_then_change(*arguments: Any) -> Any:
            out = write(*arguments)
            meanwhile()
            return out

        def build_then_change(*arguments: Any, **options: Any) -> Any:
            out = build(*arguments, **options)
            meanwhile()
            return out

        if job == "index":
            maintenance._build_index = build_then_change  # type: ignore[method-assign]
            maintenance.index_one(hurry=True)
        else:
            maintenance._write = write_then_change  # type: ignore[method-assign, assignment]
            if job == "merge":
                assert maintenance.merge_one(idle=True)
            else:
                maintenance.seal_one()
        maintenance._write, maintenance._build_index = write, build  # type: ignore[method-assign]

    @rule()
    def index(self) -> None:
        self.replica.maintenance.index_one(hurry=True)

    @rule()
    def index_all(self) -> None:
        assert self.replica.wait_until_indexed(30)
        assert self.replica.stats().unindexed_rows == 0

    @rule()
    def retire(self) -> None:
        self.replica.maintenance.retire_one()

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        assert self.folder is not None
        before = state_of(self.replica)
        if clean:
            self.folder.close()
            assert self.replica.resources.budget.used_bytes == 0, "memory was not given back"
        else:  # what a killed process leaves behind
            left = self.home / f"db{len(list(self.home.iterdir()))}"
            shutil.copytree(self.folder.path, left)
            self.folder.close()
            self.folder.path = str(left)
        self.folder = open_folder(self.folder.path, self.settings)
        self.replica = self.folder.replica(NAME)
        self._opened()
        assert state_of(self.replica) == before, "reopening changed a point (I2)"

    # -- reads ---------------------------------------------------------------------------------------

    @invariant()
    @precondition(lambda self: self.folder is not None)
    def parts_are_sound(self) -> None:
        check_invariants(self.replica)
        assert self.replica.count() == len(self.model)

    @invariant()
    @precondition(lambda self: self.folder is not None)
    def every_point_is_as_written(self) -> None:
        asked = [*self.ids, *(i for i in self.model if i not in self.ids)]
        picked, where = self.replica.get(IdColumn.of(asked))
        found = [asked[i] for i in where.tolist()]
        assert found == [i for i in asked if i in self.model] == picked.ids().to_list()
        if not found:
            return
        main, alt = picked.vectors("", self.replica.schema), picked.vectors("alt", self.replica.schema)
        for row, point in enumerate(found):
            np.testing.assert_allclose(main[row], self.model[point][0], rtol=2e-6)
            np.testing.assert_array_equal(alt[row], self.model[point][1])
        assert picked.payload() == [self.model[i][2] for i in found]

    @rule(condition=st.sampled_from(CONDITIONS))
    def count(self, condition: Condition) -> None:
        expected = {i for i, (_, _, payload) in self.model.items() if condition[1](payload)}
        assert self.replica.count(condition[0]) == len(expected)
        assert set(self.replica.matching_ids(condition[0]).to_list()) == expected

    @rule(
        cells=st.lists(CELLS, max_size=3),
        k=st.sampled_from([1, 3, 50]),
        condition=st.none() | st.sampled_from(CONDITIONS),
        exact=st.booleans(),
        m=st.sampled_from([1, 1, 2]),
    )
    def search(self, cells: list[int], k: int, condition: Condition | None, exact: bool, m: int) -> None:
        queries = self._vectors(cells, m)
        allowed = [i for i, (_, _, p) in self.model.items() if condition is None or condition[1](p)]
        answer = self.replica.search(queries, k, condition=None if condition is None else condition[0], exact=exact)
        for number in range(m):
            hits = answer.picked(number).ids().to_list()
            got = np.asarray(answer.distances[number, : len(hits)], np.float64)
            assert len(hits) == len(set(hits)) == min(k, len(allowed)) and set(hits) <= set(allowed)
            if not hits:
                continue
            truth = distances(np.stack([self.model[i][0] for i in allowed]), queries[number], self.metric)
            by_id = dict(zip(allowed, truth.tolist(), strict=True))
            size = max(1.0, float(np.abs(truth).max()))
            np.testing.assert_allclose(got, [by_id[i] for i in hits], atol=2e-5 * size, rtol=1e-5)
            assert (np.diff(got) >= 0).all(), "hits are not in the order of their distance"
            if exact:
                np.testing.assert_allclose(got, np.sort(truth)[: len(hits)], atol=2e-5 * size, rtol=1e-5)

    @rule()
    def hold(self) -> None:
        self.held = (self.replica.snapshot(), state_of(self.replica))

    @precondition(lambda self: self.held is not None)
    @rule()
    def look_again(self) -> None:
        """A snapshot shows what it showed when it was taken, whatever became of its files."""
        snapshot, before = self.held
        assert snapshot.live == len(before)
        universe = list(dict.fromkeys([*self.ids, *before, *self.model]))
        located = snapshot.locate(*IdColumn.of(universe).hashes())
        assert {universe[i] for i in np.flatnonzero(located.found)} == before.keys()
        where = np.flatnonzero(located.found)
        picked = Picked(snapshot, located.part[where], located.row[where])
        assert state_of_picked(picked, self.replica.schema) == before

    @rule(limit=st.sampled_from([1, 2, 5, 100]))
    def scroll(self, limit: int) -> None:
        if self.stable is None:
            self.stable, self.seen, self.cursor = set(self.model), set(), None
        page = self.replica.scroll(self.cursor, limit)
        ids = page.picked.ids().to_list()
        assert len(ids) <= limit and set(ids) <= self.model.keys()
        assert not self.seen & set(ids), "a page repeats a point"
        self.seen |= set(ids)
        self.cursor = page.cursor
        if page.cursor is None:
            assert self.stable <= self.seen, "a point that was there throughout was passed over"
            self.stable = None

    def teardown(self) -> None:
        if self.folder is not None:
            self.folder.close()
            assert self.replica.resources.budget.used_bytes == 0, "memory was not given back"
        shutil.rmtree(self.home)


TestReplica = ReplicaMachine.TestCase
TestReplica.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

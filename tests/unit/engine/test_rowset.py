"""Row sets, sparse and dense, against Python sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_engine.query.rowset import SPARSE_FRACTION, RowSet


def make(n: int, rows: set[int], *, dense: bool) -> RowSet:
    if dense:
        mask = np.zeros(n, np.bool_)
        mask[list(rows)] = True
        return RowSet.of_mask(mask)
    return RowSet.of_rows(np.array(sorted(rows), np.int64), n)


@st.composite
def sets(draw: st.DrawFn) -> tuple[int, set[int], set[int]]:
    n = draw(st.integers(0, 70))
    rows = st.sets(st.integers(0, n - 1)) if n else st.just(set())
    return n, draw(rows), draw(rows)


@given(sets(), st.booleans(), st.booleans())
def test_operations_are_those_of_sets(given_sets: tuple[int, set[int], set[int]], first: bool, second: bool) -> None:
    n, one, two = given_sets
    a, b = make(n, one, dense=first), make(n, two, dense=second)
    expected = {"and": one & two, "or": one | two, "not": set(range(n)) - one, "same": one}
    results = {"and": a & b, "or": a | b, "not": ~a, "same": a}
    for name, result in results.items():
        assert result.rows().tolist() == sorted(expected[name])
        assert result.rows().dtype == np.int64
        assert result.count == len(result) == len(expected[name])
        assert bool(result) == bool(expected[name])
        assert np.flatnonzero(result.mask()).tolist() == sorted(expected[name])
        unpacked = np.unpackbits(result.bits(), bitorder="little")
        assert np.flatnonzero(unpacked).tolist() == sorted(expected[name])
        assert len(result.bits()) == (n + 7) // 8
        assert result.contains(np.arange(n)).tolist() == [i in expected[name] for i in range(n)]
    # The operands are as they were.
    assert a.rows().tolist() == sorted(one)
    assert b.rows().tolist() == sorted(two)


def test_bits_are_what_faiss_reads() -> None:
    faiss = pytest.importorskip("faiss")
    rows = RowSet.of_rows(np.array([0, 3, 8, 15, 16], np.int64), 20)
    bits = rows.bits()
    selector = faiss.IDSelectorBitmap(bits.size, faiss.swig_ptr(bits))
    assert [i for i in range(20) if selector.is_member(i)] == [0, 3, 8, 15, 16]


def test_whole_and_empty() -> None:
    assert RowSet.all(10).count == 10
    assert RowSet.none(10).count == 0
    assert (~RowSet.none(3)).rows().tolist() == [0, 1, 2]
    assert repr(RowSet.none(3)) == "RowSet(0 of 3 rows)"


def test_union_of_sparse_sets_turns_dense_when_it_grows() -> None:
    n = 1600
    limit = n // SPARSE_FRACTION
    half = make(n, set(range(0, limit, 2)), dense=False)
    other = make(n, set(range(1, limit, 2)), dense=False)
    assert (half | other).is_sparse
    one_more = make(n, set(range(1, limit + 2, 2)), dense=False)
    assert not (half | one_more).is_sparse
    assert (half | one_more).count == limit + 1


def test_memory_is_counted_for_what_may_be_computed_later() -> None:
    rows = RowSet.of_mask(np.ones(1000, np.bool_))
    before = rows.nbytes
    held = rows.mask().nbytes + rows.rows().nbytes + rows.bits().nbytes
    assert held <= before == rows.nbytes

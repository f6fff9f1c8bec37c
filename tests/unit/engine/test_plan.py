"""The plan of one part's search: skipped, exact or by index, whichever is certain and cheap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_engine.index.curve import COMPARISONS_PER_EF
from omendb_engine.query.plan import EXACT_ROWS_MIN, Strategy, choose, filtered_effort


def strategy(**changes: int | bool) -> Strategy:
    """The strategy for a big indexed part that nothing is excluded from, with changes."""
    arguments = {"rows": 100_000, "allowed": 100_000, "k": 10, "ef": 64, "has_index": True, "exact": False, **changes}
    return choose(**arguments).strategy  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Strategy.INDEX),
        ({"allowed": 0}, Strategy.SKIP),
        ({"allowed": 0, "exact": True}, Strategy.SKIP),
        ({"exact": True}, Strategy.EXACT),
        ({"has_index": False}, Strategy.EXACT),
        ({"allowed": EXACT_ROWS_MIN}, Strategy.EXACT),
        ({"allowed": 30_000}, Strategy.INDEX),
        ({"allowed": 10_000}, Strategy.EXACT),  # a correlated tenth: the graph found 0.89 of it, and not faster
        ({"allowed": 2_000}, Strategy.EXACT),  # a graph would be cut to pieces
        ({"k": 60_000}, Strategy.EXACT),  # most rows are wanted
        ({"ef": 10_000}, Strategy.EXACT),  # the walk costs more than looking at every row
    ],
)
def test_the_strategy(changes: dict[str, int | bool], expected: Strategy) -> None:
    assert strategy(**changes) is expected


@given(
    rows=st.integers(1, 10**6),
    share=st.floats(0, 1),
    k=st.integers(1, 16_384),
    ef=st.integers(1, 4096),
    has_index=st.booleans(),
    exact=st.booleans(),
)
def test_an_index_is_walked_only_where_it_is_cheaper_and_safe(
    rows: int, share: float, k: int, ef: int, has_index: bool, exact: bool
) -> None:
    allowed = int(rows * share)
    plan = choose(rows=rows, allowed=allowed, k=k, ef=max(ef, k), has_index=has_index, exact=exact)
    assert (plan.strategy is Strategy.SKIP) == (allowed == 0)
    assert plan.comparisons <= allowed, "a plan that costs more than looking at every row"
    if plan.strategy is Strategy.INDEX:
        assert has_index and not exact and plan.ef >= k and allowed > EXACT_ROWS_MIN
        assert plan.comparisons == plan.ef * COMPARISONS_PER_EF


@given(rows=st.integers(1, 10**6), ef=st.integers(1, 4096), a=st.integers(1, 10**6), b=st.integers(1, 10**6))
def test_fewer_allowed_rows_never_mean_less_effort(rows: int, ef: int, a: int, b: int) -> None:
    low, high = sorted((min(a, rows), min(b, rows)))
    assert filtered_effort(rows, low, ef) >= filtered_effort(rows, high, ef)
    assert min(ef, rows) <= filtered_effort(rows, rows, ef) <= ef + 1

"""A short seeded slice of every row of the reliability table; ``make reliability`` runs them at full length."""

from __future__ import annotations

import pytest

from omendb_chaos.__main__ import ROWS, run_row


@pytest.mark.parametrize("row", sorted(ROWS))
def test_row_holds(row: str) -> None:
    """No violation, and the figure that the row prints last says what was tried."""
    outcome = run_row(row, seed=0, budget="small")
    assert outcome.passed, outcome.report()
    assert outcome.report().splitlines()[-1].startswith(f"{row}: ")

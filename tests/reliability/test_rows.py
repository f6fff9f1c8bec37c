"""A short seeded slice of every row of the reliability table; ``make reliability`` runs them at full length."""

from __future__ import annotations

import pytest

from omendb_chaos.__main__ import ROWS, run_row
from omendb_chaos.rows.mutants import is_caught, planted_bugs


# R30 is a test for each bug: as one it would keep a single worker busy for minutes.
@pytest.mark.parametrize("row", sorted(set(ROWS) - {"R30"}))
def test_row_holds(row: str) -> None:
    """No violation, and the figure that the row prints last says what was tried."""
    outcome = run_row(row, seed=0, budget="small")
    assert outcome.passed, outcome.report()
    assert outcome.report().splitlines()[-1].startswith(f"{row}: ")


@pytest.mark.parametrize("name", planted_bugs())
def test_planted_bug_is_caught(name: str) -> None:
    """R30: a row that would not notice the bug that it is there for proves nothing."""
    mutant = planted_bugs()[name]
    assert is_caught(mutant, seed=0), f"{name!r} was not caught by {mutant.row}"

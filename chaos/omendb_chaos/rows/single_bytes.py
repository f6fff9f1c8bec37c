"""R4: every byte of every file of a database is changed in three ways; every change must be noticed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from omendb_chaos.rows.fixture import Fixture, build, kinds_of_files, noticed, served
from omendb_chaos.rows.outcome import Budget, Outcome, dice

_SMALL_STEP = 97
# A change in so many is also served to a user who checks nothing: refused or right, never wrong.
_SERVED_EVERY = {"small": 3, "full": 40}
_ROOM = {"buffer.buffer_rows_max": 200}
_OTHER_INDEXES: tuple[Mapping[str, Any], ...] = (
    {**_ROOM, "index.kind": "ivf"},
    {**_ROOM, "index.quantization": "product"},
    {**_ROOM, "index.quantization": "scalar8"},
)


def run(seed: int, budget: Budget) -> Outcome:
    """Change bytes, one at a time."""
    outcome = Outcome("R4", seed, budget)
    rng = dice("R4", seed)
    counts: Counter[str] = Counter()
    unnoticed: Counter[str] = Counter()
    whole = build(seed)
    swept = [(whole, whole.files())]
    # Beside it, of the other kinds of index only what they bring.
    for changes in _OTHER_INDEXES:
        other = build(seed, rows=72, changes=changes)
        swept.append((other, [path for path in other.files() if "/index." in path]))
    for fixture, files in swept:
        _sweep(fixture, files, outcome, rng, counts, unnoticed)
    paths = [path for _, files in swept for path in files]
    size = sum(fixture.disk.size(path) for fixture, files in swept for path in files)
    changed = counts["check"] + counts["refused"] + counts["unnoticed"] + counts["WRONG CONTENT"]
    outcome.notes.append(f"files: {', '.join(kinds_of_files(paths))}")
    outcome.notes.append(f"bytes proven unused: {dict(unnoticed) or 'none'}")
    outcome.figure = (
        f"{changed} single-byte changes in {len(paths)} files of {size} bytes, "
        f"{changed - counts['unnoticed'] - counts['WRONG CONTENT']} noticed, {counts['served']} also served, "
        f"{len(outcome.violations)} violations"
    )
    return outcome


def _sweep(
    fixture: Fixture,
    files: list[str],
    outcome: Outcome,
    rng: random.Random,
    counts: Counter[str],
    unnoticed: Counter[str],
) -> None:
    """Every byte of some files of a database."""
    seed, budget = outcome.seed, outcome.budget
    for path in files:
        original = fixture.disk.peek(path)
        step = 1 if budget == "full" else _SMALL_STEP
        for offset in range(seed % step, len(original), step):
            for value in sorted({original[offset] ^ (1 << rng.randrange(8)), 0, 255} - {original[offset]}):
                how = _tried(fixture, path, offset, value, original[offset])
                counts[how or "unnoticed"] += 1
                if how in (None, "WRONG CONTENT"):
                    unnoticed[path] += 1
                    outcome.violated(
                        f"{path} byte {offset} {original[offset]:#04x} -> {value:#04x}: {how or 'unnoticed'}"
                    )
                if rng.randrange(_SERVED_EVERY[budget]) == 0:
                    counts["served"] += 1
                    problem = _served(fixture, path, offset, value, original[offset])
                    if problem is not None:
                        outcome.violated(f"{path} byte {offset} -> {value:#04x}: {problem}")


def _tried(fixture: Fixture, path: str, offset: int, value: int, original: int) -> str | None:
    fixture.disk.damage(path, offset, bytes([value]))
    try:
        return noticed(fixture, path)
    finally:
        fixture.disk.damage(path, offset, bytes([original]))


def _served(fixture: Fixture, path: str, offset: int, value: int, original: int) -> str | None:
    fixture.disk.damage(path, offset, bytes([value]))
    try:
        return served(fixture, verify_on_open=offset % 2 == 0)
    finally:
        fixture.disk.damage(path, offset, bytes([original]))


__all__ = ["run"]

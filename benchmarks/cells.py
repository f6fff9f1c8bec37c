"""What the cells of the reports' Markdown tables hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def value(found: Any, *names: str) -> Any:
    """What lies at the end of a path of names; None where it breaks off."""
    for name in names:
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def number(value: float | None, form: str, scale: float = 1.0) -> str:
    """A number as ``form`` writes it; a dash for None."""
    show: Callable[[float], str] = form.format
    return NONE if value is None else show(value * scale)


def ratio(value: float | None, reference: float | None) -> str:
    """A value in units of the reference; a dash where one of them is missing or 0."""
    return NONE if not value or not reference else f"{value / reference:.2f}"

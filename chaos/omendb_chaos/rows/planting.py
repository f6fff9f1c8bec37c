"""Planting a bug into the running code, and taking it out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

Probe = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: ``planted`` puts it into the code, ``caught`` runs what must notice it."""

    name: str
    row: str
    planted: Callable[[], AbstractContextManager[None]]
    caught: Probe


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put ``value`` in the place of an attribute for a while."""
    original = vars(owner).get(name, getattr(owner, name))
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


__all__ = ["Mutant", "Probe", "replaced"]

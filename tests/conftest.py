"""The order of the tests: what takes long comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent
# Each worker begins with one of them, so that two workers seldom have a fleet of processes each.
_LONG = (_HERE / "cluster", _HERE / "reliability")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests: one of minutes that begins last has every other worker wait for it.

    Workers get contiguous shares of the list and steal from each other's ends (``--dist worksteal``): the long tests
    of one folder stand at the beginning, those of the other in the middle, where the second worker begins.
    """
    first, second = ([item for item in items if folder in item.path.parents] for folder in _LONG)
    long = {id(item) for item in (*first, *second)}
    rest = [item for item in items if id(item) not in long]
    before = max(0, len(items) // 2 - len(first))
    items[:] = first + rest[:before] + second + rest[before:]

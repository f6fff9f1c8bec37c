"""Two data nodes come back with each other's disk: neither serves, and put right again nothing is missing (P16)."""

from __future__ import annotations

from pathlib import Path

import pytest

from omendb_chaos.fleet.disk_stories import STORIES
from omendb_chaos.fleet.traffic import fleet_of


def test_swapped_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = STORIES["swapped"]
    for name, value in story.environment.items():
        monkeypatch.setenv(name, value)
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        story.tell(fleet, client)

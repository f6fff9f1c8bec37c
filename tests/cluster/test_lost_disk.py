"""A data node loses its disk: its replicas are made anew from the others while clients write and search."""

from __future__ import annotations

from pathlib import Path

import pytest

from omendb_chaos.fleet.disk_stories import STORIES
from omendb_chaos.fleet.traffic import fleet_of


def test_lost_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = STORIES["lost"]
    for name, value in story.environment.items():
        monkeypatch.setenv(name, value)
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        story.tell(fleet, client)

"""A data node is put back on an old image of its disk: what it forgot comes from the others, and nothing comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from omendb.cli.main import app
from omendb_chaos.fleet.disk_stories import STORIES
from omendb_chaos.fleet.traffic import NAME, fleet_of


def test_old_disk_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = STORIES["old"]
    for name, value in story.environment.items():
        monkeypatch.setenv(name, value)
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        story.tell(fleet, client)
        told = CliRunner().invoke(app, ["cluster", "verify", NAME, "--dir", str(fleet.folder)])
        assert told.exit_code == 0 and "all replicas are equal" in told.output

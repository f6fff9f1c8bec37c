"""Settings: from the environment, within bounds, and in the component's page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import omendb_coordinator
from omendb_common.config import load_groups
from omendb_common.errors import InvalidArgumentError
from omendb_coordinator.__main__ import GROUPS
from omendb_coordinator.config import CoordinatorSettings
from omendb_coordinator.process import parse_address, parse_peers, written


def test_settings_come_from_the_environment_and_keep_their_order() -> None:
    def settings_from(environment: dict[str, str]) -> CoordinatorSettings:
        found: CoordinatorSettings = load_groups(GROUPS, None, environment)["coordinator"]
        return found

    assert settings_from({"OMENDB_COORDINATOR_DOWN_S": "9", "PATH": "x"}).down_s == 9.0
    assert settings_from({"OMENDB_COORDINATOR_PROPOSALS_MAX": "9"}).proposals_max == 9
    # What Kubernetes puts into every pod beside a service called omendb-coordinator.
    assert settings_from({"OMENDB_COORDINATOR_PORT": "tcp://10.0.0.1:8490", "OMENDB_COORDINATOR_SERVICE_HOST": "x"})
    for wrong in ({"DOWN_S": "x"}, {"DOWN_S": "2"}, {"NOTHING": "1"}, {"DECIDE_S": "nan"}, {"WATCHERS_MAX": "1.5"}):
        with pytest.raises(InvalidArgumentError):
            settings_from({f"OMENDB_COORDINATOR_{name}": text for name, text in wrong.items()})


def test_every_setting_stands_in_the_page_of_the_component() -> None:
    page = Path(omendb_coordinator.__file__).parents[1] / "README.md"
    text = page.read_text(encoding="utf-8")
    missing = [f.name for f in dataclasses.fields(CoordinatorSettings) if f"`{f.name}`" not in text]
    assert not missing


def test_addresses_and_peers_are_read_or_refused() -> None:
    assert parse_address("[::1]:80", "listen") == ("::1", 80)
    assert written(("::1", 80)) == "[::1]:80"
    peers = parse_peers("c1=a:1/a:2,c2=b:1/b:2,")
    assert {n: (p.raft, p.serves) for n, p in peers.items()} == {
        "c1": (("a", 1), ("a", 2)),
        "c2": (("b", 1), ("b", 2)),
    }
    for wrong in ("c1", "c1=a:1", "c1=a:1/a", "=a:1/a:2", "c1=a:1/a:2,c1=b:1/b:2", "c1=a:1/a:99999"):
        with pytest.raises(InvalidArgumentError):
            parse_peers(wrong)

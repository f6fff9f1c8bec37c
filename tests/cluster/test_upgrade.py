"""A fleet of the level before is upgraded process by process while clients write and read, and may go back.

The old processes are this release told to speak the level before: they refuse, stop at and do not write what it brings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omendb.cli.main import app
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.fleet.traffic import DIMENSION, NAME, check_available, check_kept, traffic_on, wait_rest
from omendb_common.errors import InvalidArgumentError
from omendb_common.feature_level import CURRENT, VARIABLE

EVERYBODY = ("c1", "c2", "c3", "d1", "d2", "d3", "r1", "r2")
BEFORE = CURRENT - 1


def cluster(fleet: Fleet, *arguments: str, refused: bool = False) -> str:
    told = CliRunner().invoke(app, ["cluster", *arguments, "--dir", str(fleet.folder)])
    assert (told.exit_code != 0) == refused, told.output
    return " ".join(told.output.split())


def replace_by(fleet: Fleet, name: str, level: int, patch: pytest.MonkeyPatch) -> None:
    """Stop a process and start it as a release of some level, with the folder that it had."""
    fleet.process(name).stop(15)
    patch.setenv(VARIABLE, str(level))
    fleet.start(name)

    def known(status: dict[str, Any]) -> bool:
        return any((m["node_id"], m["state"], m["feature_level"]) == (name, "up", level) for m in status["members"])

    fleet.wait_status(known, 30, f"{name} to be known at level {level}")
    fleet.leader()


def is_refused(fleet: Fleet, name: str, patch: pytest.MonkeyPatch) -> None:
    """A process of the level before ends, and says why."""
    process = fleet.process(name)
    process.stop(15)
    patch.setenv(VARIABLE, str(BEFORE))
    process.start()
    process.wait_ended(30)
    assert f"understands level {BEFORE}, and the cluster was finalised at {CURRENT}" in process.log.read_text()
    patch.setenv(VARIABLE, str(CURRENT))
    fleet.start(name)
    fleet.wait_serving(30)


def test_upgrade_node_by_node_back_and_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(3, 2, 3), tls=False, usual_ports=False)
    try:
        monkeypatch.setenv(VARIABLE, str(BEFORE))
        fleet.up()
        with fleet.client(timeout=10) as client:
            client.create_collection(NAME, DIMENSION, replication=3, shards=2)
            with traffic_on(fleet, client) as traffic:
                assert fleet.status()["feature_level"] == BEFORE
                for name in ("c1", "d1", "r1"):
                    replace_by(fleet, name, CURRENT, monkeypatch)
                told = cluster(fleet, "finalize-upgrade", refused=True)
                assert "c2" in told and "d2" in told and "c1" not in told
                with pytest.raises(InvalidArgumentError, match="finalize-upgrade"):
                    client.create_collection("of-the-new-level", DIMENSION, replication=3, index="ivf")
                # Back, as long as nothing is finalised.
                for name in ("c1", "d1", "r1"):
                    replace_by(fleet, name, BEFORE, monkeypatch)
                for name in EVERYBODY:
                    replace_by(fleet, name, CURRENT, monkeypatch)
                assert fleet.status()["feature_level"] == BEFORE, "that is for the operator to say"
                assert f"every member understands {CURRENT}" in cluster(fleet, "status")
                assert f"at feature level {CURRENT}" in cluster(fleet, "finalize-upgrade")
                assert f"at feature level {CURRENT}" in cluster(fleet, "finalize-upgrade"), "twice is once"
                client.create_collection("of-the-new-level", DIMENSION, replication=3, index="ivf")
                for name in ("r2", "d3", "c3"):
                    is_refused(fleet, name, monkeypatch)
                wait_rest(fleet, {"d1", "d2", "d3"})
            report = traffic.stop()
            assert fleet.status()["feature_level"] == CURRENT
            check_kept(fleet, report)
            check_available("an upgrade, there, back and there again", report)
    finally:
        Fleet.open(tmp_path / "fleet").down(5)

"""Every process of a fleet is restarted in turn, as an upgrade does, while clients write and search."""

from __future__ import annotations

from pathlib import Path

from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.fleet.traffic import DIMENSION, NAME, check_available, check_kept, traffic_on, wait_rest


def test_rolling_restart(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(3, 2, 3), tls=False, usual_ports=False)
    try:
        fleet.up()
        with fleet.client(timeout=20) as client:
            client.create_collection(NAME, DIMENSION, replication=3, shards=2)
            with traffic_on(fleet, client) as traffic:
                for name in ("c1", "c2", "c3", "d1", "d2", "d3", "r1", "r2"):
                    fleet.process(name).stop(15)
                    fleet.start(name)
                    fleet.wait_serving(30)
                    fleet.leader()
                wait_rest(fleet, {"d1", "d2", "d3"})
            report = traffic.stop()
            check_kept(fleet, report)
            check_available("every process restarted", report)
    finally:
        Fleet.open(tmp_path / "fleet").down(5)

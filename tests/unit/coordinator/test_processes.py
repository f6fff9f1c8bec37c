"""Real coordinator processes: start, end, kill -9, TLS."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from omendb_chaos.coordinators import Coordinators, read_ready
from omendb_common.errors import DeadlineExceededError, PermissionDeniedError, UnavailableError
from omendb_common.feature_level import CURRENT
from omendb_common.security.dev_certificates import DevAuthority
from omendb_common.wire.coordinator_client import CoordinatorClient
from tests.unit.coordinator.catalog_cases import node
from tests.unit.coordinator.loopback import CLOCK, collection, in_a_loop, soon, until

_KILLS = 3


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Coordinators]:
    group = Coordinators(tmp_path, 3)
    group.start()
    group.wait_ready()
    yield group
    group.stop()


def test_a_lone_coordinator_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "omendb_coordinator", "--dir", str(tmp_path / "c1"), "--node-id", "c1"]
    command += ["--listen", "127.0.0.1:0", "--raft-listen", "127.0.0.1:0", "--bootstrap"]
    command += ["--metrics-listen", "127.0.0.1:0"]

    async def use(address: str, *, first: bool) -> None:
        client = CoordinatorClient([address], None, CLOCK)
        await client.start()
        try:
            await client.register(node("d1", feature_level=CURRENT), soon(30))
            if first:
                await client.create_collection(collection("docs"), soon(30))
            await until(lambda: "docs" in client.topology.collections)
            members = {m["node_id"]: m["state"] for m in (await client.status(soon(30)))["members"]}
            assert members["d1"] == "up"
        finally:
            await client.close()

    for first in (True, False):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            told = read_ready(process, "")
            assert told["role"] == "coordinator"
            asyncio.run(use(str(told["address"]), first=first))
            metrics = httpx.get(f"http://{told['metrics']}/metrics").text
            for line in (
                "omendb_raft_leads 1.0",
                "omendb_active_collections 1.0",
                'omendb_members{role="datanode",state="up"} 1.0',
                'omendb_request_seconds_count{code="OK",method="Register"}',
            ):
                assert line in metrics, metrics
            assert httpx.get(f"http://{told['metrics']}/readyz").status_code == 200
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0
            assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "nowhere"], "listen"),
        (["--peers", "c1=127.0.0.1:1"], "peers"),
        (["--peers", "c2=127.0.0.1:1/127.0.0.1:2"], "node_id"),
        (["--tls-ca", "ca.pem"], "tls"),
        ([], "no member"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_a_sentence(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    command = [sys.executable, "-m", "omendb_coordinator", "--dir", str(tmp_path / "c1"), "--node-id", "c1"]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr
    assert says in ended.stderr, ended.stderr


def _grown(names: list[str], least: int) -> bool:
    return len(names) >= least


def test_acknowledged_changes_survive_every_leader(group: Coordinators, capsys: pytest.CaptureFixture[str]) -> None:
    gaps: list[float] = []

    @in_a_loop
    async def run() -> None:
        client = CoordinatorClient(group.addresses, None, CLOCK)
        await client.start()
        acknowledged: list[str] = []
        ended = asyncio.Event()

        async def write(writer: int) -> None:
            number = 0
            while not ended.is_set():
                name = f"w{writer}-{number}"
                await client.create_collection(collection(name, replication=1), soon(30))
                acknowledged.append(name)
                number += 1

        try:
            await client.register(node("d1", feature_level=CURRENT), soon(30))
            client.start_heartbeats()
            async with asyncio.TaskGroup() as writers:
                for writer in range(3):
                    writers.create_task(write(writer))
                for _ in range(_KILLS):
                    await until(partial(_grown, acknowledged, len(acknowledged) + 5), 30.0)
                    leader = (await client.status(soon(30)))["leader"]
                    group.kill(leader)
                    killed_s = time.monotonic()
                    await client.lease_origin(f"after {len(gaps)}", 1, soon(30))
                    gaps.append(time.monotonic() - killed_s)
                    group.start(leader)
                    await asyncio.to_thread(group.wait_ready, leader)
                ended.set()
            topology = await client.refresh(0, soon(30))
            assert set(topology.collections) == set(acknowledged)
            assert len(acknowledged) == len(set(acknowledged))
        finally:
            await client.close()

    run()
    with capsys.disabled():
        told = ", ".join(f"{gap:.2f}" for gap in gaps)
        print(f"\n{_KILLS} leaders killed; the next acknowledged change came after {told} s")
    assert max(gaps) < 15.0


def test_a_group_that_lost_its_majority_refuses_and_comes_back(group: Coordinators) -> None:
    @in_a_loop
    async def run() -> None:
        client = CoordinatorClient(group.addresses, None, CLOCK)
        await client.start()
        try:
            await client.register(node("d1", feature_level=CURRENT), soon(30))
            await client.create_collection(collection("before"), soon(30))
            for node_id in ("c1", "c2"):
                group.signal(node_id, signal.SIGSTOP)
            with pytest.raises((UnavailableError, DeadlineExceededError)):
                await client.create_collection(collection("meanwhile"), soon(2))
            assert "before" in client.topology.collections
            for node_id in ("c1", "c2"):
                group.signal(node_id, signal.SIGCONT)
            await client.create_collection(collection("after"), soon(30))
            assert {"before", "after"} <= set(client.topology.collections)
        finally:
            await client.close()

    run()
    assert group.stop() == {"c1": 0, "c2": 0, "c3": 0}


def test_with_tls_only_who_has_a_certificate_is_heard_and_only_as_itself(tmp_path: Path) -> None:
    authority = DevAuthority.open(tmp_path / "tls", "test", CLOCK)
    ids = ("c1", "c2", "c3")
    files = {node_id: authority.issue("coordinator", node_id, CLOCK) for node_id in ids}
    group = Coordinators(tmp_path, 3, tls=files)
    group.start()
    try:
        group.wait_ready()

        @in_a_loop
        async def run() -> None:
            own = CoordinatorClient(group.addresses, authority.issue("datanode", "d1", CLOCK), CLOCK)
            stranger = CoordinatorClient(
                group.addresses, DevAuthority.open(tmp_path / "other", "test", CLOCK).issue("datanode", "d1", CLOCK)
            )
            naked = CoordinatorClient(group.addresses, None, CLOCK)
            await own.start()
            try:
                await own.register(node("d1", feature_level=CURRENT), soon(30))
                with pytest.raises(PermissionDeniedError):
                    await own.register(node("d2"), soon(30))
                for nobody in (stranger, naked):
                    with pytest.raises((UnavailableError, DeadlineExceededError)):
                        await nobody.register(node("d1"), soon(1))
                await own.create_collection(collection("docs"), soon(30))
            finally:
                for client in (own, stranger, naked):
                    await client.close()

        run()
    finally:
        group.stop()
    assert os.listdir(tmp_path / "c1")

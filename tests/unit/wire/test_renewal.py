"""Certificates that change on disk: new connections have the new ones, what is broken is passed over."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop
from cryptography import x509

from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.security.dev_certificates import DevAuthority
from omendb_common.security.grpc_credentials import channel_credentials, server_credentials
from omendb_common.security.renewal import RenewedTls, renewed
from omendb_common.security.tls import TlsFiles
from omendb_common.telemetry.metrics import Metrics
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_proto.v1 import coordinator_pb2 as pb
from tests.unit.wire.frame_cases import CLOCK, calling, serving, soon, until

LOOPS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@pytest.fixture
def authority(tmp_path: Path) -> DevAuthority:
    return DevAuthority.open(tmp_path / "tls", "c1", CLOCK)


def other_authority(authority: DevAuthority, tmp_path: Path) -> DevAuthority:
    """Another authority whose files stand where the first one's stood."""
    other = DevAuthority.open(tmp_path / "other", "c1", CLOCK)
    for name in ("ca.key", "ca.pem"):
        shutil.copy(other.folder / name, authority.folder / name)
    return DevAuthority.open(authority.folder, "c1", CLOCK)


def serial(files: TlsFiles) -> int:
    return x509.load_pem_x509_certificate(Path(files.cert).read_bytes()).serial_number


@LOOPS
def test_frames_take_new_certificates_and_another_authority(
    authority: DevAuthority, tmp_path: Path, runner: Any
) -> None:
    ours, theirs = authority.issue("router", "r1", CLOCK), authority.issue("datanode", "d1", CLOCK)
    client, server = RenewedTls(ours), RenewedTls(theirs)
    before = client.client

    async def scene() -> None:
        async with serving(tls=server.server) as node, calling(node.address, tls=client) as standing:
            await standing.call(1, b"x", deadline=soon())
            again = other_authority(authority, tmp_path)
            assert again.issue("router", "r1", CLOCK) == ours
            assert again.issue("datanode", "d1", CLOCK) == theirs
            await standing.call(1, b"what stands, stands", deadline=soon())
            async with calling(node.address, tls=client) as new:
                await new.call(1, b"x", deadline=soon())
            # The old authority's clients are strangers now.
            async with calling(node.address, tls=before) as stranger:
                with pytest.raises(OmenDBError):
                    await stranger.call(1, b"x", deadline=soon(2.0))

    runner(scene())
    assert client.current().generation == server.current().generation == 2


def test_what_is_broken_is_passed_over_until_it_is_whole(
    authority: DevAuthority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.issue("router", "r1", CLOCK)
    watched = RenewedTls(files)
    first = watched.current()
    new = DevAuthority.open(authority.folder, "c1", CLOCK)
    old_key = Path(files.key).read_bytes()
    new.issue("router", "r1", CLOCK)
    new_key = Path(files.key).read_bytes()
    Path(files.key).write_bytes(old_key)
    for broken in (b"", b"nothing", old_key):
        Path(files.key).write_bytes(broken)
        caplog.clear()
        assert watched.current() is watched.current() is first
        assert [record.levelno for record in caplog.records] == [logging.ERROR], "said once, and not again"
    Path(files.key).unlink()
    assert watched.current() is first
    Path(files.key).write_bytes(new_key)
    assert watched.current().generation == 2
    authority.issue("router", "r1", CLOCK, days=-1)
    caplog.clear()
    assert watched.current().generation == 2 and "has ended" in caplog.text


def test_files_that_never_worked_are_named(authority: DevAuthority, tmp_path: Path) -> None:
    files = authority.issue("router", "r1", CLOCK)
    with pytest.raises(InvalidArgumentError) as caught:
        renewed(TlsFiles(files.ca, files.cert, str(tmp_path / "none")))
    assert caught.value.field == "tls_cert"
    assert renewed(files) is renewed(files)


def test_a_metric_tells_how_long_a_certificate_is_good_for(authority: DevAuthority) -> None:
    watched = RenewedTls(authority.issue("router", "r1", CLOCK, days=30))
    metrics = Metrics("router", "r1", CLOCK, release="1")
    metrics.watch_certificate("cluster", watched.left_s)
    metrics.watch_certificate("face", lambda: 5.0)
    told = {
        line.split(" ")[0]: float(line.split(" ")[1])
        for line in metrics.render().decode().splitlines()
        if line.startswith("omendb_tls_certificate_expiry_seconds")
    }
    assert 29.9 < told['omendb_tls_certificate_expiry_seconds{certificate="cluster"}'] / 86_400 <= 30
    assert told['omendb_tls_certificate_expiry_seconds{certificate="face"}'] == 5.0


class Coordinator:
    """Answers one call and lets itself be watched, over TLS."""

    def __init__(self, files: TlsFiles) -> None:
        self.watches: list[Any] = []

        async def echo(request: bytes, context: Any) -> bytes:
            return request

        async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
            self.watches.append(context)
            while True:
                yield pb.WatchEvent().SerializeToString()
                await asyncio.sleep(0.01)

        self.server = grpc.aio.server()
        do = grpc.method_handlers_generic_handler("t.T", {"Do": grpc.unary_unary_rpc_method_handler(echo)})
        methods = {"Watch": grpc.unary_stream_rpc_method_handler(watch)}
        members = grpc.method_handlers_generic_handler("omendb.v1.CoordinatorMembers", methods)
        self.server.add_generic_rpc_handlers((do, members))
        self.port = self.server.add_secure_port("127.0.0.1:0", server_credentials(files))


async def answers(port: int, credentials: Any) -> bool:
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        try:
            await channel.unary_unary("/t.T/Do")(b"x", timeout=20)
        except grpc.aio.AioRpcError:
            return False
        return True


def test_grpc_servers_take_new_certificates_and_another_authority(authority: DevAuthority, tmp_path: Path) -> None:
    ours, theirs = authority.issue("router", "r1", CLOCK), authority.issue("coordinator", "k1", CLOCK)

    async def scene() -> None:
        served = Coordinator(theirs)
        await served.server.start()
        old = channel_credentials(ours)
        assert await answers(served.port, old)
        again = other_authority(authority, tmp_path)
        again.issue("router", "r1", CLOCK)
        again.issue("coordinator", "k1", CLOCK)
        assert await answers(served.port, channel_credentials(ours))
        assert not await answers(served.port, old)
        await served.server.stop(None)

    asyncio.run(scene())


def test_a_coordinators_client_goes_on_with_new_certificates(
    authority: DevAuthority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = authority.issue("router", "r1", CLOCK), authority.issue("coordinator", "k1", CLOCK)

    async def scene() -> None:
        served = Coordinator(theirs)
        await served.server.start()
        address = f"127.0.0.1:{served.port}"
        client = CoordinatorClient([address], tls=ours, clock=CLOCK)
        await client.start()
        await until(lambda: len(served.watches) == 1)
        first = client._at(address).channel
        assert client._at(address).channel is first
        again = other_authority(authority, tmp_path)
        again.issue("router", "r1", CLOCK)
        again.issue("coordinator", "k1", CLOCK)
        second = client._at(address).channel
        assert second is not first
        await second.unary_unary("/t.T/Do")(b"x", timeout=20)
        # The watch ends by itself and begins on the new channel, before the old one is cut.
        await until(lambda: len(served.watches) == 2)
        await until(lambda: not client._closing)
        await client.close()
        await served.server.stop(None)

    asyncio.run(scene())
    # Not gRPC's own: it sometimes logs that the end of this test's server cancelled a watch.
    told = [record for record in caplog.records if not record.name.startswith("grpc")]
    assert not [record for record in told if record.levelno >= logging.ERROR]

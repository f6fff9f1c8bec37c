"""Mutual TLS: whoever has no good certificate is not spoken to, and a certificate is only good for its own name."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from omendb_common.errors import InvalidArgumentError, OmenDBError, UnavailableError
from omendb_common.security.dev_certificates import DevAuthority
from omendb_common.security.grpc_credentials import channel_credentials, peer_name_of_call, server_credentials
from omendb_common.security.tls import (
    PeerName,
    TlsFiles,
    client_context,
    name_uri,
    parse_name,
    peer_name,
    server_context,
)
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frames import FrameLimits
from tests.unit.wire.frame_cases import CLOCK, ROUTER, calling, serving, soon, until

LOOPS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> DevAuthority:
    return DevAuthority.open(tmp_path_factory.mktemp("tls"), "c1", CLOCK)


def server_files(authority: DevAuthority) -> TlsFiles:
    return authority.issue("datanode", "d1", CLOCK)


async def try_call(authority: DevAuthority, client: Any, identity: FrameIdentity = ROUTER) -> tuple[Any, Any]:
    """Call a TLS server with a client's context; what came back, and the server's counts."""
    async with serving(tls=server_context(server_files(authority))) as server:
        async with calling(server.address, tls=client, identity=identity) as calls:
            try:
                reply = await calls.call(1, b"hello", [b"x" * 300_000], deadline=soon())
                came: Any = (reply.message, bytes(reply.attachments[0]))
            except OmenDBError as error:
                came = error
        await until(lambda: server.connections == 0)
        return came, server.stats


@LOOPS
def test_the_right_certificate_is_welcome(authority: DevAuthority, runner: Any) -> None:
    files = authority.issue("router", "r1", CLOCK)
    came, stats = runner(try_call(authority, client_context(files)))
    assert came == (b"hello", b"x" * 300_000) and not stats.broken


@LOOPS
@pytest.mark.parametrize(
    ("role", "node_id"), [("router", "r2"), ("datanode", "r1"), ("coordinator", "r1")], ids=lambda v: v
)
def test_a_certificate_is_good_for_its_own_name_alone(
    authority: DevAuthority, runner: Any, role: str, node_id: str
) -> None:
    files = authority.issue(role, node_id, CLOCK)
    came, stats = runner(try_call(authority, client_context(files)))
    assert isinstance(came, UnavailableError) and came.outcome == "none"
    assert "certificate" in came.message and stats.broken["refused"] == 1 and stats.calls == 0


def unverified(authority: DevAuthority, files: TlsFiles | None) -> ssl.SSLContext:
    """A client that does not care who the server is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if files is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def old_tls(authority: DevAuthority) -> ssl.SSLContext:
    context = unverified(authority, authority.issue("router", "r1", CLOCK))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def foreign(authority: DevAuthority) -> ssl.SSLContext:
    other = DevAuthority.open(authority.folder / "other", "c1", CLOCK)
    return unverified(authority, other.issue("router", "r1", CLOCK))


BAD_CLIENTS: dict[str, Callable[[DevAuthority], ssl.SSLContext | None]] = {
    "no certificate": lambda a: unverified(a, None),
    "another authority": foreign,
    "expired": lambda a: unverified(a, a.issue("router", "r1", CLOCK, days=-1)),
    "TLS 1.2": old_tls,
    "no TLS": lambda a: None,
}


@LOOPS
@pytest.mark.parametrize("name", BAD_CLIENTS)
def test_bad_clients_get_nowhere(authority: DevAuthority, runner: Any, name: str) -> None:
    came, stats = runner(try_call(authority, BAD_CLIENTS[name](authority)))
    assert isinstance(came, UnavailableError) and came.outcome == "none"
    assert stats.calls == 0 and stats.frames_in == 0


@LOOPS
@pytest.mark.parametrize("fault", ["another authority", "expired", "in the clear", "another node"])
def test_a_client_does_not_speak_to_a_bad_server(authority: DevAuthority, runner: Any, fault: str) -> None:
    other = DevAuthority.open(authority.folder / "elsewhere", "c1", CLOCK)
    makers: dict[str, Callable[[], ssl.SSLContext | None]] = {
        "another authority": lambda: server_context(other.issue("datanode", "d1", CLOCK)),
        "expired": lambda: server_context(authority.issue("datanode", "d1", CLOCK, days=-1)),
        "in the clear": lambda: None,
        "another node": lambda: server_context(authority.issue("datanode", "d2", CLOCK)),
    }
    tls = makers[fault]()

    async def scene() -> None:
        async with serving(tls=tls) as server:
            files = authority.issue("router", "r1", CLOCK)
            async with calling(server.address, tls=client_context(files)) as calls:
                with pytest.raises(UnavailableError) as caught:
                    await calls.call(1, b"secret", deadline=soon())
                assert caught.value.outcome == "none"
            assert server.stats.calls == 0

    runner(scene())


@LOOPS
def test_a_stranger_cannot_sit_in_a_handshake(authority: DevAuthority, runner: Any) -> None:
    async def scene() -> None:
        limits = FrameLimits(hello_timeout_s=0.2)
        async with serving(tls=server_context(server_files(authority)), limits=limits) as server:
            host, port = server.address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"\x16\x03\x01\x02")
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()

    runner(scene())


def test_bad_files_are_named(authority: DevAuthority, tmp_path: Path) -> None:
    good, other = authority.issue("router", "r1", CLOCK), authority.issue("router", "r9", CLOCK)
    junk = tmp_path / "junk.pem"
    junk.write_text("no PEM")
    for files, field in (
        (TlsFiles(str(tmp_path / "none"), good.cert, good.key), "tls_ca"),
        (TlsFiles(str(junk), good.cert, good.key), "tls_ca"),
        (TlsFiles(good.ca, str(junk), good.key), "tls_cert"),
        (TlsFiles(good.ca, good.cert, other.key), "tls_cert"),
    ):
        for make in (server_context, client_context):
            with pytest.raises(InvalidArgumentError) as caught:
                make(files)
            assert caught.value.field == field
    with pytest.raises(InvalidArgumentError):
        server_credentials(TlsFiles(good.ca, good.cert, str(tmp_path / "none")))


def test_keys_are_for_their_owner_alone(authority: DevAuthority) -> None:
    files = authority.issue("router", "r7", CLOCK)
    again = authority.issue("router", "r7", CLOCK)
    assert files == again
    for key in (files.key, str(authority.folder / "ca.key")):
        assert stat.S_IMODE(Path(key).stat().st_mode) == 0o600


def test_an_authority_is_opened_again(authority: DevAuthority) -> None:
    before = (authority.folder / "ca.pem").read_bytes()
    assert DevAuthority.open(authority.folder, "c1", CLOCK).issue("router", "r1", CLOCK).ca
    assert (authority.folder / "ca.pem").read_bytes() == before


def test_names_in_certificates() -> None:
    assert parse_name(name_uri("c1", "router", "r/1 ä")) == PeerName("c1", "router", "r/1 ä")
    for text in (
        "",
        "spiffe://",
        "spiffe://c/r",
        "spiffe://c/r/n/x",
        "https://c/r/n",
        "spiffe://[/r/n",
        "spiffe://c//n",
    ):
        assert parse_name(text) is None
    assert PeerName("", "", "d1").covers("any", "datanode", "d1")
    assert not PeerName("", "", "").covers("c", "r", "")
    assert not PeerName("c2", "datanode", "d1").covers("c1", "datanode", "d1")
    assert peer_name(None) is None


def test_grpc_speaks_with_the_same_files(authority: DevAuthority) -> None:
    seen: list[PeerName | None] = []

    async def scene() -> tuple[bytes, str]:
        async def handle(request: bytes, context: Any) -> bytes:
            seen.append(peer_name_of_call(context.auth_context()))
            return request

        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(handle)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Do": method}),))
        port = server.add_secure_port("127.0.0.1:0", server_credentials(authority.issue("coordinator", "k1", CLOCK)))
        await server.start()
        ca = Path(authority.folder / "ca.pem").read_bytes()
        good = channel_credentials(authority.issue("router", "r1", CLOCK))
        bad = grpc.ssl_channel_credentials(root_certificates=ca)
        try:
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", good) as channel:
                answer = await channel.unary_unary("/t.T/Do")(b"x", timeout=20)
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", bad) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/t.T/Do")(b"x", timeout=20)
            return answer, caught.value.code().name
        finally:
            await server.stop(None)

    assert asyncio.run(scene()) == (b"x", "UNAVAILABLE")
    assert seen == [PeerName("c1", "router", "r1")]
    assert peer_name_of_call({}) is None
    assert peer_name_of_call({"transport_security_type": [b"ssl"], "x509_common_name": [b"n"]}) == PeerName("", "", "n")

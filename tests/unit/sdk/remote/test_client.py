"""The client over real connections, of frames and of gRPC: errors, sessions, deadlines, parts, connecting."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omendb
from omendb.remote.backend import RemoteBackend
from omendb_common import errors
from omendb_common.errors import (
    AlreadyExistsError,
    CorruptionError,
    DatabaseClosedError,
    DeadlineExceededError,
    DiskFullError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    PermissionDeniedError,
    ReplicaFailedError,
    UnavailableError,
)
from tests.unit.sdk.remote.face_server import FaceServer, face_server

V = np.array([[0, 0], [1, 1]], np.float32)


def link_of(client: omendb.Client) -> Any:
    backend = client._session.backend
    assert isinstance(backend, RemoteBackend)
    return backend._link


RAISED: list[OmenDBError] = [
    InvalidArgumentError("bad", field="k", bound="1..9", mend="less"),
    NotFoundError("none", field="ids"),
    AlreadyExistsError("there"),
    PermissionDeniedError("no"),
    CorruptionError("damaged", path="segments/1", offset=7),
    DeadlineExceededError("late", outcome="unknown", acked=1, required=2),
    UnavailableError("1 of 2", outcome="unknown", acked=1, required=2),
    ReplicaFailedError("sync failed", outcome="unknown"),
    errors.UnauthenticatedError("who"),
]


@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was_raised(server: FaceServer, raised: OmenDBError) -> None:
    with omendb.Client(server.url) as client:
        client.add_batch(V)
        server.router.fail = raised
        with pytest.raises(type(raised)) as caught:
            client.upsert([1], V[:1])
        assert type(caught.value) is type(raised) and caught.value.message == raised.message
        told = {name: value for name, value in vars(caught.value).items() if name != "__notes__"}
        assert told == vars(raised)


def test_what_passes_by_itself_is_not_seen(server: FaceServer) -> None:
    with omendb.Client(server.url) as client:
        client.add_batch(V)
        for error in (UnavailableError("later"), DiskFullError("full", retry_after=0.01)):
            server.router.fail = error
            assert client.count() >= 2
            server.router.fail = error
            assert client.upsert([7], V[:1]).written == 1
        server.router.fail = UnavailableError("1 of 2", outcome="unknown", acked=1, required=2, stamp=4711)
        assert client.upsert([8], V[:1]).written == 1
        assert server.router.retry_stamp == 4711


def test_reads_ask_to_see_this_clients_writes(server: FaceServer) -> None:
    def shown(client: omendb.Client, **arguments: Any) -> Any:
        client.search(V[0], k=1, **arguments)
        assert server.router.seen is not None
        return server.router.seen.consistency, bool(server.router.seen.session)

    with omendb.Client(server.url) as writer, omendb.Client(server.url) as reader:
        writer.add_batch(V)
        assert shown(writer) == (None, True) and shown(reader) == (None, False)
        assert shown(writer, consistency="one") == ("one", False)
        assert shown(writer, consistency="majority") == ("quorum", False)
        assert shown(writer, consistency="quorum") == ("quorum", False)
        assert shown(writer, consistency="verified") == ("verified", False)
        assert shown(writer, consistency="session") == ("session", True)
        assert shown(reader, consistency="session") == (None, False), "it wrote nothing that it could miss"
        writer.rename_collection("default", "other")
        assert shown(writer, collection="other") == (None, True)
        writer.drop_collection("other")
        writer.create_collection("other", 2)
        assert shown(writer, collection="other") == (None, False)
    with omendb.Client(server.url, consistency="majority") as client:
        assert shown(client, collection="other") == ("quorum", False)


def test_a_timeout_reaches_the_server_and_ends_the_call(server: FaceServer) -> None:
    async def hang(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(30)

    with omendb.Client(server.url) as client:
        client.add_batch(V)
        client.search(V[0], k=1, timeout=5.0)
        assert server.router.deadline is not None and 3.0 < server.router.deadline.left_s < 5.1
        server.router.search = hang  # type: ignore[method-assign]
        started = time.perf_counter()
        with pytest.raises(DeadlineExceededError):
            client.search(V[0], k=1, timeout=0.1)
        assert time.perf_counter() - started < 5


def test_a_big_write_is_sent_in_parts(server: FaceServer) -> None:
    vectors = np.random.default_rng(0).random((1000, 8), np.float32)
    ids = np.arange(1000) % 900  # the last of each wins, in whatever part it is
    with omendb.Client(server.url) as client:
        link_of(client).part_bytes = 2000
        written = client.upsert(ids, vectors, {"n": np.arange(1000)})
        assert written.written == 900 and len(written) == 1000 and client.count() == 900
        found = client.get(np.arange(900), include=["metadata", "vector"])
        last = {int(i): row for row, i in enumerate(ids)}
        for record in found:
            assert record is not None and record.metadata == {"n": last[record.id]}  # type: ignore[index]
            assert np.array_equal(record.vector, vectors[last[record.id]])  # type: ignore[index, arg-type]
        assert [r[0].id for r in client.search(vectors=vectors[500:900], k=1)] == list(range(500, 900))
        automatic = client.add_batch(vectors)
        assert len(set(automatic.to_list())) == 1000 and client.count() == 1900
        by_id = client.get(automatic.to_list(), include=["vector"])
        assert all(np.array_equal(r.vector, v) for r, v in zip(by_id, vectors, strict=True))  # type: ignore[union-attr, arg-type]
        assert client.delete(automatic.to_list()) == 1000
        with pytest.raises(InvalidArgumentError, match="create_only"):
            link_of(client).message_bytes_max = 2000
            client.add_batch(vectors, create_only=True)


def test_a_part_that_fails_is_told_with_what_was_written(server: FaceServer) -> None:
    vectors = np.zeros((50, 2), np.float32)
    with omendb.Client(server.url) as client:
        client.create_collection("c", 2)
        link_of(client).part_bytes = 320
        link_of(client).sender._at_a_time = 1
        client.upsert(np.arange(50), vectors, collection="c")
        replica = server.router._replica("c")
        upsert, calls = replica.upsert, []

        def third_fails(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise UnavailableError("1 of 2", outcome="unknown", acked=1, required=2)
            return upsert(*arguments, **options)

        replica.upsert = third_fails  # type: ignore[method-assign]
        with pytest.raises(UnavailableError, match=r"of which \d were written") as caught:
            client.upsert(np.arange(50), vectors, collection="c")
        assert caught.value.outcome == "unknown" and caught.value.stamp is None


def test_hits_carry_what_was_asked_for_and_fetch_the_rest(server: FaceServer) -> None:
    with omendb.Client(server.url) as client:
        client.upsert([1, 2], V, {"n": [1, 2]})
        results = client.search(V[1], k=2)
        client.update([2], vectors=[[9, 9]])
        assert [hit.metadata for hit in results] == [{"n": 2}, {"n": 1}]
        assert results.vectors is not None and results.vectors.tolist() == [[9, 9], [0, 0]], "as they are now"
        named = client.search([9, 9], k=1, include=["vector"])
        client.delete([2])
        assert named[0].vector is not None and named[0].vector.tolist() == [9, 9]
        gone = client.search([0, 0], k=1)
        client.delete([1])
        with pytest.raises(NotFoundError, match="include"):
            _ = gone[0].vector


def test_another_clients_changes_of_the_catalog(server: FaceServer) -> None:
    with omendb.Client(server.url) as one, omendb.Client(server.url) as two:
        first = one.create_collection("c", 2)
        second = two.collection("c")
        first.upsert([1], V[:1])
        assert second.count() == 1
        one.drop_collection("c")
        with pytest.raises(NotFoundError):
            second.count()
        one.create_collection("c", 3)
        assert two.collection("c").dimension == 3 and second.dimension == 3
        with pytest.raises(AlreadyExistsError):
            two.create_collection("c", 4)
        assert two.create_collection("c", 3, if_not_exists=True) is second


def test_a_default_collection_that_two_clients_make_at_once(server: FaceServer) -> None:
    barrier = threading.Barrier(4)
    failed: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with omendb.Client(server.url) as client:
                barrier.wait()
                client.upsert([f"{number}-{i}" for i in range(10)], np.zeros((10, 2), np.float32))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with omendb.Client(server.url) as client:
        assert client.count() == 40


def test_several_routers_stand_in_for_each_other(tmp_path: Path, server: FaceServer) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        lost = f"grpc://127.0.0.1:{nobody.getsockname()[1]}"
        with omendb.Client([lost, server.url], timeout=10) as client:
            client.add_batch(V)
            for _ in range(5):
                assert client.count() == 2
        with pytest.raises(UnavailableError, match="cannot be reached"):
            omendb.Client(lost, timeout=0.5)
    with face_server(tmp_path / "second") as second:
        client = omendb.Client(f"{second.url},{server.url}", timeout=10)
    # The second one has ended.
    with client:
        assert client.list_collections() == ["default"]
        assert client.upsert([5], V[:1]).written == 1, "a write that was not sent goes to the other router"


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://x/path", "http://u:p@x", 5, [], b"x", None],
)
def test_bad_urls(url: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="url"):
        omendb.Client(url)


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout": 0},
        {"timeout": "1"},
        {"consistency": "strong"},
        {"dimension": 0},
        {"metric": "l1"},
        {"tls_cert": "x"},
    ],
)
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        omendb.Client("grpc://localhost:1", **arguments)


def test_hints_of_the_default_collection(server: FaceServer) -> None:
    with omendb.Client(server.url, dimension=2, metric="cosine") as client:
        client.add_batch([[1.0, 0.0]])
        assert client.schema is not None and client.schema.vectors[0].metric == "cosine"
    with pytest.raises(AlreadyExistsError):
        omendb.Client(server.url, metric="dot")


def test_a_closed_client(server: FaceServer) -> None:
    client = omendb.Client(server.url)
    client.add_batch(V)
    results = client.search(V[0], k=1)
    client.close()
    client.close()
    with pytest.raises(DatabaseClosedError):
        client.count()
    with pytest.raises(DatabaseClosedError):
        _ = results[0].vector
    with pytest.raises(DatabaseClosedError):
        client.cluster_status()


def test_the_cluster_tells_its_state(server: FaceServer) -> None:
    with omendb.Client(server.url) as client:
        assert client.cluster_status() == {"cluster_id": "test"}
        assert repr(client) == f"<Client 'default' of '{server.url}', empty>"


_WITHOUT = """
import sys
sys.modules["grpc"] = None
import omendb
assert omendb.open is not None
omendb.{name}
try:
    {call}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("Client", "omendb.Client('http://localhost:1')"),
        ("AsyncClient", "import asyncio; asyncio.run(omendb.AsyncClient('http://localhost:1').count())"),
    ],
)
def test_without_grpcio_the_extra_is_named(name: str, call: str) -> None:
    program = _WITHOUT.format(name=name, call=call)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "omendb[client]" in done.stdout, done.stderr

"""The command over a network: the same subcommands with a URL, collections, and processes that end as told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import omendb
from omendb.cli.main import app
from tests.unit.sdk.remote.face_server import FaceServer, face_server

N, D = 40, 4
VECTORS = np.random.default_rng(5).random((N, D), np.float32)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaceServer]:
    with face_server(tmp_path / "served") as running:
        yield running


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def ok(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def ok_json(*arguments: object) -> Any:
    return json.loads(ok(*arguments, "--json"))


def points_file(folder: Path) -> Path:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), D)
    table = pa.table({"id": [f"p{i}" for i in range(N)], "vector": vectors, "rank": list(range(N))})
    pq.write_table(table, folder / "points.parquet")
    return folder / "points.parquet"


def test_import_search_stats_export_over_a_url(server: FaceServer, tmp_path: Path) -> None:
    assert ok_json("import", points_file(tmp_path), "--url", server.url, "--batch-rows", 15)["rows"] == N
    found = ok_json("search", server.url, "--id", "p3", "-k", 2, "--filter", '{"rank": {"$lt": 10}}')
    assert found[0]["hits"][0]["id"] == "p3" and found[0]["hits"][0]["metadata"] == {"rank": 3}
    stats = ok_json("stats", "--url", server.url)
    assert stats["default"]["points"] == N and stats["default"]["schema"]["vectors"][0]["dimension"] == D
    assert "40" in ok("stats", server.url)
    assert ok_json("export", server.url, tmp_path / "out.parquet")["rows"] == N
    assert ok_json("export", "--url", server.url, tmp_path / "out.jsonl")["rows"] == N
    exported = pq.read_table(tmp_path / "out.parquet").sort_by("rank")
    np.testing.assert_array_equal(np.stack(exported["vector"].to_numpy(zero_copy_only=False)), VECTORS)


@pytest.mark.parametrize("where", ["folder", "url"])
def test_collections(server: FaceServer, tmp_path: Path, where: str) -> None:
    place = ["--url", server.url] if where == "url" else [str(tmp_path / "db")]
    if where == "folder":
        omendb.open(tmp_path / "db").close()
    assert "no collections" in ok("collections", "list", *place)
    ok("collections", "create", "books", *place, "--dimension", 8, "--metric", "cosine", "--index", "flat")
    assert run("collections", "create", "books", *place, "--dimension", 8).exit_code == 4
    listed = ok_json("collections", "list", *place)
    assert [(c["name"], c["points"], c["options"]) for c in listed] == [("books", 0, {"index": "flat"})]
    ok("collections", "rename", "books", "tomes", *place)
    assert "tomes" in ok("collections", "list", *place)
    assert "replication 1" in ok("collections", "alter", "tomes", *place, "--replication", 1)
    assert run("collections", "alter", "tomes", *place).exit_code == 2
    assert run("collections", "alter", "books", *place, "--replication", 1).exit_code == 3
    assert run("collections", "alter", "tomes", *place, "--write-quorum", 8).exit_code == 2
    if where == "folder":
        assert run("collections", "alter", "tomes", *place, "--replication", 3).exit_code == 2
    assert run("collections", "drop", "books", *place, "--yes").exit_code == 3
    ok("collections", "drop", "tomes", *place, "--yes")
    assert ok_json("collections", "list", *place) == []


def test_bad_places(server: FaceServer, tmp_path: Path) -> None:
    assert run("stats").exit_code == 2
    assert run("stats", tmp_path, "--url", server.url).exit_code == 2
    assert run("import", points_file(tmp_path), server.url, "--durability", "os").exit_code == 2
    assert run("export", server.url).exit_code == 2
    assert run("cluster", "status").exit_code == 2
    assert run("cluster", "status", "--dir", tmp_path / "none").exit_code == 3
    assert run("cluster", "down", "--dir", tmp_path / "none").exit_code == 3
    for wrong in (["--coordinators", "2"], ["--routers", "0"], ["--datanodes", "99"]):
        assert run("cluster", "up", "--dir", tmp_path / "fleet", *wrong).exit_code == 2
    assert not (tmp_path / "fleet").exists()


def test_serve_serves_a_folder_that_opens_afterwards(tmp_path: Path) -> None:
    with omendb.open(tmp_path / "db") as database:
        database.upsert([1, 2], VECTORS[:2])
    command = [sys.executable, "-m", "omendb.cli.main", "serve", str(tmp_path / "db")]
    child = subprocess.Popen(
        [*command, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline().removeprefix("ready "))
        with omendb.Client(f"http://{told['http']}") as client:
            assert client.count() == 2 and client.cluster_status()
            client.upsert([3], VECTORS[2:3])
        assert "default" in ok("cluster", "status", "--url", f"grpc://{told['grpc']}")
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    with omendb.open(tmp_path / "db") as database:
        assert database.count() == 3


def test_processes_pass_their_flags_through(tmp_path: Path) -> None:
    for name in ("coordinator", "router"):
        done = subprocess.run(
            [sys.executable, "-m", "omendb.cli.main", name, "--help"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0 and f"omendb {name}" in done.stdout and "--node-id" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "omendb.cli.main", "router"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "--coordinators" in done.stderr


def test_without_the_servers_packages_the_extra_is_named(tmp_path: Path) -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from omendb.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", str(tmp_path / "db")], capture_output=True, text=True
    )
    assert done.returncode == 2 and "omendb[server]" in done.stderr

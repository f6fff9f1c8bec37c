"""The server as a process: the folder comes and goes, the lock is held, what was acknowledged stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import omendb
from omendb_common.clock import SystemClock
from omendb_common.security.dev_certificates import DevAuthority
from tests.unit.server.serving_process import ServingProcess


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "my.db")


def test_a_folder_goes_from_embedded_to_served_and_back(path: str) -> None:
    with omendb.open(path) as db:
        db.add_batch([[0.0, 0.0], [1.0, 1.0]], [{"by": "folder"}, {"by": "folder"}])
        db.create_collection("other", dimension=2)
        db.delete(1)
    with ServingProcess(path) as served:
        post = served.client.post
        assert [c["name"] for c in served.client.get("/collections").json()["collections"]] == ["default", "other"]
        assert post("/collections/default/count").json() == {"count": 1}
        found = post("/collections/default/search", json={"vector": [0, 0], "k": 1}).json()["hits"]
        assert found == [{"id": 0, "distance": 0.0, "score": 1.0, "metadata": {"by": "folder"}}]
        written = post("/collections/default/points", json={"vectors": [[2, 2]], "metadata": [{"by": "server"}]}).json()
        assert written["ids"] == [2]
        # The deleted id comes again under a stamp that the deletion must not beat.
        assert post("/collections/default/points", json={"ids": [1], "vectors": [[3, 3]]}).json()["written"] == 1
        assert post("/collections/other/rename", json={"new_name": "renamed"}).status_code == 200
        assert post("/collections", json={"name": "made", "dimension": 4, "metric": "cosine"}).status_code == 201
        assert served.stop() == 0
    with omendb.open(path) as db:
        assert db.list_collections() == ["default", "made", "renamed"]
        assert {r.id: r.metadata for r in db.iterate()} == {0: {"by": "folder"}, 1: {}, 2: {"by": "server"}}
        assert db.add_batch([[4.0, 4.0]]) == [3]
        db.update([1], metadata=[{"by": "folder"}])
        schema = db.collection("made").schema
        assert schema is not None and schema.vectors[0].metric == "cosine"
    with ServingProcess(path) as served:
        got = served.client.post("/collections/default/points/get", json={"ids": [1, 3]}).json()["points"]
        assert all(int(point.pop("version")) for point in got)
        assert got == [{"id": 1, "metadata": {"by": "folder"}}, {"id": 3, "metadata": {}}]


def test_the_folder_is_locked_as_long_as_it_is_served(path: str) -> None:
    with ServingProcess(path) as served:
        with pytest.raises(omendb.DatabaseLockedError):
            omendb.open(path)
        with pytest.raises(RuntimeError, match="DatabaseLockedError"):
            ServingProcess(path)
        with omendb.open(path, mode="r") as reader:
            assert reader.list_collections() == []
        assert served.client.get("/readyz").status_code == 200
    omendb.open(path).close()


def test_a_kill_loses_nothing_that_was_acknowledged(path: str) -> None:
    acknowledged: list[Any] = []
    with ServingProcess(path) as served:
        assert served.client.post("/collections", json={"name": "c", "dimension": 2}).status_code == 201
        base = str(served.client.base_url)

        def write(worker: int) -> None:
            with httpx.Client(base_url=base, timeout=30) as client:
                for number in range(10_000):
                    ids = [f"{worker}-{number}-{row}" for row in range(3)]
                    try:
                        answer = client.post(
                            "/collections/c/points", json={"ids": ids, "vectors": [[worker, number]] * 3}
                        )
                    except httpx.HTTPError:
                        return
                    if answer.status_code == 200:
                        acknowledged.extend(ids)
                    if worker == 0 and number == 30:
                        served.process.kill()

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(write, range(3)))
        served.kill()
    assert len(acknowledged) > 90
    with omendb.open(path) as db:
        found = db.collection("c").get(acknowledged)
        assert [record.id for record in found if record is not None] == acknowledged
        everything = [str(record.id) for record in db.collection("c").iterate()]
        # A batch is there whole or not at all.
        batches = {point.rsplit("-", 1)[0] for point in everything}
        assert len(everything) == len(set(everything)) == 3 * len(batches)


def test_health_and_metrics_have_a_port_of_their_own(path: str) -> None:
    with ServingProcess(path, "--metrics-listen", "127.0.0.1:0") as served:
        served.client.post("/collections", json={"name": "c", "dimension": 2})
        served.client.post("/collections/c/points", json={"vectors": [[0, 0], [1, 1]]})
        served.client.post("/collections/c/search", json={"vectors": [[0, 0], [1, 1]]})
        told = httpx.get(f"http://{served.told['metrics']}/metrics").text
        values = dict(line.rsplit(" ", 1) for line in told.splitlines() if not line.startswith("#"))
        assert float(values["omendb_active_collections"]) == 1
        assert float(values["omendb_total_vectors"]) == 2
        assert float(values["omendb_daily_searches"]) == 2
        assert float(values["omendb_insertion_rate_per_sec"]) > 0
        assert float(values["omendb_search_latency_p95"]) > 0
        assert float(values['omendb_request_seconds_count{code="200",method="rest.search"}']) == 1
        assert httpx.get(f"http://{served.told['metrics']}/readyz").status_code == 200


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--http", "nonsense"], "--http"),
        (["--set", "nonsense"], "--set"),
        (["--set", "storage.durability=never"], "durability"),
        (["--set", "no_such_setting=1"], "no_such_setting"),
        (["--face-tls-cert", "cert.pem"], "--face-tls-key"),
        (["--face-tls-cert", "no.pem", "--face-tls-key", "no.key"], "face_tls"),
    ],
)
def test_flags_that_make_no_sense_are_named(path: str, flags: list[str], word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "omendb_server", path, *flags], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and word in done.stderr and "Traceback" not in done.stderr
    assert not Path(path).exists()


def test_both_faces_speak_tls_when_told_to(path: str, tmp_path: Path) -> None:
    files = DevAuthority.open(tmp_path / "tls", "dev", SystemClock()).issue("router", "r1", SystemClock())
    flags = ["--face-tls-cert", files.cert, "--face-tls-key", files.key, "--metrics-listen", "127.0.0.1:0"]
    with ServingProcess(path, *flags) as served:
        for url in (f"https://{served.told['http']}", f"grpcs://{served.told['grpc']}"):
            with omendb.Client(url, tls_ca=files.ca) as client:
                if "c" not in client.list_collections():
                    client.create_collection("c", 2)
                client.collection("c").upsert([1], [[1.0, 2.0]])
                assert client.collection("c").search([1.0, 2.0], k=1)[0].id == 1
        with pytest.raises(omendb.OmenDBError), omendb.Client(f"http://{served.told['http']}", timeout=2) as client:
            client.list_collections()
        values = httpx.get(f"http://{served.told['metrics']}/metrics").text
        assert "omendb_tls_certificate_expiry_seconds{" in values
        assert served.stop() == 0


def test_it_never_looks_for_pandas(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow imports it, where it is installed, for a second in which nobody is answered."""
    package, told = tmp_path / "packages" / "pandas", tmp_path / "told"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import traceback\n"
        f"with open({str(told)!r}, 'a') as file:\n    traceback.print_stack(file=file)\n"
        "raise ImportError('not here')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]))
    vectors = np.random.default_rng(0).random((200, 2), np.float32)
    with ServingProcess(path) as served, omendb.Client(f"http://{served.told['http']}") as client:
        c = client.create_collection("c", 2)
        c.upsert(range(200), vectors, {"n": list(range(200)), "t": ["x", "y"] * 100})
        c.upsert(["a"], vectors[:1], [{"n": 1, "o": {"p": [1]}}])
        c.update([1], metadata={"n": [5]})
        c.delete([2])
        for _ in range(2):
            for filters in (None, {"n": 5}, {"t": {"$in": ["x", "z"]}}, {"n": {"$gt": 100}}):
                assert c.search(vectors[0], k=3, filters=filters)[0].metadata
                assert c.count(filters)
            assert len(c.get([1, "a"])) == 2
            c.scroll(limit=10)
            body = {"vector": [0.5, 0.5], "k": 2, "include": ["id", "distance", "metadata", "vector"]}
            for accept in ("application/json", "application/vnd.apache.arrow.stream"):
                answer = served.client.post("/collections/c/search", json=body, headers={"accept": accept})
                assert answer.status_code == 200
            c.flush()
    assert not told.exists(), told.read_text()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    done = subprocess.run(
        [sys.executable, "-m", "omendb_server", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "letter.txt" in done.stderr and "Traceback" not in done.stderr


def test_a_drain_lets_calls_end_and_refuses_new_ones(path: str) -> None:
    with ServingProcess(path, "--log-format", "json") as served:
        served.client.post("/collections", json={"name": "c", "dimension": 2})
        rows = {"vectors": [[0.0, 1.0]] * 20_000}
        with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=served.client.base_url, timeout=30) as other:
            writing = pool.submit(lambda: other.post("/collections/c/points", json=rows))
            while served.client.post("/collections/c/count").json()["count"] == 0 and not writing.done():
                pass
            assert served.stop() == 0
            assert writing.result().json()["written"] == 20_000
    with omendb.open(path) as db:
        assert db.collection("c").count() == 20_000


def test_log_lines_may_be_json(path: str) -> None:
    with ServingProcess(path, "--log-format", "json") as served:
        served.client.close()
        served.process.terminate()
        _, said = served.process.communicate(timeout=60)
    lines = [json.loads(line) for line in said.splitlines()]
    assert any(line["message"] == "draining" and line["role"] == "server" for line in lines)

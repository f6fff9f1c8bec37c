"""The command: every subcommand does its work, fails in one line, and ends with the documented code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import omendb
from omendb.cli import processes, scrub
from omendb.cli.config import ALL_GROUPS
from omendb.cli.main import app
from omendb_common.settings import fields_of

N, D = 30, 4
VECTORS = np.random.default_rng(5).random((N, D), np.float32)
IDS = [f"p{i:02}" for i in range(N)]
KINDS = ["even" if i % 2 == 0 else "odd" for i in range(N)]
TABLE = pa.table(
    {
        "id": IDS,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), D),
        "kind": KINDS,
        "rank": list(range(N)),
    }
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def ok(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def ok_json(*arguments: object) -> Any:
    return json.loads(ok(*arguments, "--json"))


def write_parquet(folder: Path) -> list[object]:
    pq.write_table(TABLE, folder / "points.parquet")
    return [folder / "points.parquet"]


def write_arrow(folder: Path) -> list[object]:
    with pa.ipc.new_file(str(folder / "points.arrow"), TABLE.schema) as file:
        file.write_table(TABLE)
    return [folder / "points.arrow"]


def write_stream(folder: Path) -> list[object]:
    with pa.ipc.new_stream(str(folder / "points.ipc"), TABLE.schema) as file:
        file.write_table(TABLE)
    return [folder / "points.ipc"]


def write_feather(folder: Path) -> list[object]:
    pyarrow.feather.write_feather(TABLE, folder / "points.feather", compression="uncompressed")
    return [folder / "points.feather"]


def write_csv(folder: Path) -> list[object]:
    texts = pa.array([json.dumps(row) for row in VECTORS.tolist()])
    pyarrow.csv.write_csv(TABLE.set_column(1, "vector", texts), folder / "points.csv")
    return [folder / "points.csv"]


def write_lines(folder: Path) -> list[object]:
    text = "\n".join(json.dumps(row) for row in TABLE.to_pylist())
    (folder / "points.jsonl").write_text(text + "\n\n")
    return [folder / "points.jsonl"]


def write_npy(folder: Path) -> list[object]:
    np.save(folder / "points.npy", VECTORS)
    (folder / "ids.txt").write_text("\n".join(IDS))
    pq.write_table(TABLE.select(["kind", "rank"]), folder / "meta.parquet")
    return [folder / "points.npy", "--ids", folder / "ids.txt", "--metadata-file", folder / "meta.parquet"]


def write_fvecs(folder: Path) -> list[object]:
    rows = np.hstack([np.full((N, 1), D, np.int32), VECTORS.view(np.int32)])
    rows.tofile(folder / "points.fvecs")
    (folder / "meta.jsonl").write_text(
        "\n".join(json.dumps(r) for r in TABLE.select(["id", "kind", "rank"]).to_pylist())
    )
    return [folder / "points.fvecs", "--metadata-file", folder / "meta.jsonl"]


WRITERS = [write_parquet, write_arrow, write_stream, write_feather, write_csv, write_lines, write_npy, write_fvecs]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.__name__.removeprefix("write_"))
def test_import_of_every_format(tmp_path: Path, writer: Any) -> None:
    done = ok_json("import", *writer(tmp_path), tmp_path / "db", "--batch-rows", 7)
    assert done["rows"] == N and done["durability"] == "fsync"
    with omendb.open(tmp_path / "db", mode="r") as db:
        assert db.count() == N and db.dimension == D
        record = db.get("p03", include=["vector", "metadata"])
        assert record is not None and record.metadata == {"kind": "odd", "rank": 3}
        np.testing.assert_allclose(np.asarray(record.vector), VECTORS[3], rtol=1e-6)


def test_import_of_bytes_without_ids_into_a_named_collection(tmp_path: Path) -> None:
    matrix = np.random.default_rng(1).integers(0, 256, (10, 8), np.uint8)
    rows = np.hstack([np.frombuffer(np.full(10, 8, "<i4").tobytes(), np.uint8).reshape(10, 4), matrix])
    rows.tofile(tmp_path / "points.bvecs")
    text = ok(
        "import", tmp_path / "points.bvecs", tmp_path / "db", "-c", "bytes", "--dtype", "uint8", "--metric", "cosine"
    )
    assert "10 points" in text and "fsync" in text
    with omendb.open(tmp_path / "db", mode="r") as db:
        collection = db.collection("bytes")
        assert collection.count() == 10 and collection.schema is not None
        assert (collection.schema.vectors[0].dtype, collection.schema.vectors[0].metric) == ("uint8", "cosine")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A database with the table in it."""
    with omendb.open(tmp_path / "db", durability="os") as db:
        db.add_batch(TABLE)
    return tmp_path / "db"


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl"])
def test_export_then_import_gives_the_same(stored: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out{suffix}"
    assert ok_json("export", stored, file)["rows"] == N
    assert run("export", stored, file).exit_code == 4
    assert f"{N} points" in ok("export", stored, file, "--force")
    ok("import", file, tmp_path / "copy")
    with omendb.open(stored, mode="r") as one, omendb.open(tmp_path / "copy", mode="r") as two:
        first = {r.id: (r.metadata, r.vector.tolist()) for r in one.iterate(include=["metadata", "vector"])}  # type: ignore[union-attr]
        second = {r.id: (r.metadata, r.vector.tolist()) for r in two.iterate(include=["metadata", "vector"])}  # type: ignore[union-attr]
    assert first == second and len(first) == N
    assert ok_json("export", stored, tmp_path / f"few{suffix}", "--filter", '{"kind": "odd"}')["rows"] == N // 2
    assert not list(tmp_path.glob("*.partial"))


def test_export_of_mixed_kinds_and_mixed_ids(tmp_path: Path) -> None:
    with omendb.open(tmp_path / "db", durability="os") as db:
        db.upsert([1, "b"], [[0.0], [1.0]], [{"v": 1, "id": 5}, {"v": "two"}])
    ok("export", tmp_path / "db", tmp_path / "out.parquet")
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "out.parquet").to_pylist()}
    assert rows["1"]["v#i"] == 1 and rows["b"]["v#s"] == "two" and rows["1"]["id#i"] == 5


def test_search_by_vector_by_id_and_by_file(stored: Path, tmp_path: Path) -> None:
    [found] = ok_json("search", stored, "--vector", json.dumps(VECTORS[4].tolist()), "-k", 3)
    assert found["hits"][0]["id"] == "p04" and len(found["hits"]) == 3
    assert found["hits"][0]["metadata"] == {"kind": "even", "rank": 4} and "latency_ms" in found["performance"]
    [found] = ok_json("search", stored, "--id", "p07", "-k", 2, "--filter", '{"kind": "odd"}', "--exact")
    assert found["hits"][0]["id"] == "p07" and found["hits"][1]["metadata"]["kind"] == "odd"
    np.save(tmp_path / "queries.npy", VECTORS[:3])
    found = ok_json("search", stored, "--query-file", tmp_path / "queries.npy", "-k", 1)
    assert [f["hits"][0]["id"] for f in found] == IDS[:3]
    text = ok("search", stored, "--id", "p07", "-k", 2)
    assert "2 hits" in text and "p07" in text


def test_stats_check_and_config(stored: Path) -> None:
    assert ok_json("stats", stored)["default"]["points"] == N
    assert "default" in ok("stats", stored) and "4 x float32 l2" in ok("stats", stored)
    assert ok_json("check", stored) == {"sound": True, "findings": []}
    assert ok("check", stored) == "sound\n"
    shown = json.loads(ok("config", "show", "--json", "--set", "hnsw_m=24", "--profile", "quality"))
    assert shown["index.hnsw_m"] == {"value": 24, "source": "flag"} and set(shown) == set(fields_of(ALL_GROUPS))
    assert shown["index.recall_target"]["source"] == "profile quality"
    assert "storage.durability" in ok("config", "show") and "durability: fsync" in ok("config", "example")
    assert omendb.__version__ in ok("--version")


def damage(folder: Path) -> Path:
    """Flip one byte in the middle of the stored vectors."""
    file = next(folder.rglob("vectors.arrow"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    return file


def test_scrub_names_what_rotted_beside_a_writer(stored: Path) -> None:
    with omendb.open(stored) as db:
        db.flush()
        said = ok_json("scrub", stored)
        assert said["sound"] and said["findings"] == [] and said["bytes"] > VECTORS.nbytes
        assert "sound" in ok("scrub", stored, "--bytes-per-s", 1 << 30)
        file = damage(stored)
        result = run("scrub", stored, "--json")
        (found,) = json.loads(result.stdout)["findings"]
        assert (result.exit_code, found["collection"], found["path"]) == (1, "default", str(file))
        assert found["offset"] is not None and "checksum" in found["problem"]
        result = run("scrub", stored)
        assert (
            result.exit_code == 1 and str(file.name) in result.stdout.replace("\n", "") and "1 faults" in result.stdout
        )
    for given, code, says in (
        (["scrub", str(stored), "--bytes-per-s", "0"], 2, "bytes-per-s"),
        (["scrub", "http://localhost:8480"], 2, "cluster scrub"),
        (["scrub", str(stored / "nothing")], 3, ""),
    ):
        refused = run(*given)
        assert refused.exit_code == code and says in refused.output, refused.output


def test_scrub_keeps_to_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], list[float]()
    monkeypatch.setattr("omendb.cli.scrub.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("omendb.cli.scrub.time.sleep", slept.append)
    pace = scrub._Pace(1000)
    for count in (500, 1500, 0):
        pace.spend(count)
    now[0] = 110.0
    pace.spend(1000)
    assert slept == [0.5, 2.0, 2.0, 0.0]


def test_check_finds_damage_and_repair_saves_the_rest(stored: Path) -> None:
    with omendb.open(stored) as db:
        db.flush()
    with omendb.open(stored) as db:  # a second segment, which stays sound
        db.add_batch(VECTORS[:5], ids=[f"new{i}" for i in range(5)])
    file = damage(stored)
    result = run("check", stored, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["sound"] and any(f["path"].endswith("vectors.arrow") for f in found["findings"])
    assert run("check", stored).exit_code == 1 and str(file.name) in run("check", stored).stdout
    assert CliRunner().invoke(app, ["repair", str(stored)], input="n\n").exit_code == 1
    assert run("check", stored).exit_code == 1
    result = run("repair", stored, "--yes")
    assert result.exit_code in (0, 1) and "rebuilt" in result.stdout
    assert run("check", stored).exit_code == 0
    with omendb.open(stored) as db:
        assert db.get("new3") is not None
    assert "sound" in ok("repair", stored, "--yes")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["stats", "{no}"], 3, "no database"),
        (["check", "{no}"], 3, "no database"),
        (["search", "{no}", "--vector", "[1]"], 3, "no database"),
        (["search", "{db}"], 2, "exactly one"),
        (["search", "{db}", "--vector", "[1"], 2, "not JSON"),
        (["search", "{db}", "--vector", "[1, 2]"], 2, "dimension 4"),
        (["search", "{db}", "--id", "nobody"], 3, "nobody"),
        (["search", "{db}", "--vector", "[1,2,3,4]", "--filter", '{"a": {"$near": 1}}'], 2, "$near"),
        (["search", "{db}", "--vector", "[1,2,3,4]", "-k", "0"], 2, "1..16384"),
        (["search", "{db}", "--vector", "[1,2,3,4]", "-c", "other"], 3, "other"),
        (["import", "{no}.parquet", "{db}"], 3, "no such file"),
        (["import", "{txt}", "{db}"], 2, "unknown suffix"),
        (["import", "{bad}", "{db}"], 2, "cannot be read"),
        (["import", "{npy}", "{db}", "--ids", "{txt}"], 2, "1 rows"),
        (["import", "{npy}", "{db}", "--batch-rows", "0"], 2, "--batch-rows"),
        (["import", "{npy}", "{db}", "--durability", "maybe"], 2, "storage.durability"),
        (["import", "{lines}", "{db}"], 2, "line 2"),
        (["export", "{db}", "{no}.csv"], 2, ".parquet"),
        (["export", "{db}", "{no}/x.jsonl"], 3, "no such file"),
        (["config", "show", "--set", "nonsense"], 2, "name=value"),
        (["config", "show", "--set", "no_such=1"], 2, "unknown setting"),
        (["demo", "--data", "{no}"], 3, "meta.json"),
    ],
)
def test_failures_are_one_line_and_have_their_code(
    stored: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    places = {"{no}": "nothing", "{txt}": "a.txt", "{bad}": "bad.parquet", "{npy}": "v.npy", "{lines}": "x.jsonl"}
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "x.jsonl").write_text('{"vector": [1, 2, 3, 4]}\nnot json\n')
    np.save(tmp_path / "v.npy", VECTORS)
    filled = [a.replace("{db}", str(stored)) for a in arguments]
    for mark, name in places.items():
        filled = [a.replace(mark, str(tmp_path / name)) for a in filled]
    result = run(*filled)
    assert result.exit_code == code, result.output
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stderr.startswith("error:") and len(result.stderr.strip().splitlines()) == 1


def test_a_locked_database_says_who_holds_it(stored: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    program = f"import omendb,sys; db=omendb.open({str(stored)!r}); print('open',flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        result = run("import", tmp_path / "v.npy", stored)
        holder.stdin.close()
        assert result.exit_code == 6 and str(holder.pid) in result.stderr


def test_the_installed_command_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "omendb.cli.main", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "Exit codes" in done.stdout


@pytest.mark.parametrize("missing", ["grpc_health", "cryptography", "prometheus_client"])
def test_a_fleet_without_the_servers_packages_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(processes, "_is_there", lambda name: name != missing)
    told = run("cluster", "up", "--dir", tmp_path / "fleet")
    assert told.exit_code == 2 and missing in told.output and "omendb[server]" in told.output
    assert not (tmp_path / "fleet").exists()

"""A reader process follows what the writer acknowledges, across manifests, merges, restarts and power cuts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_common.errors import CorruptionError, DatabaseClosedError, NotFoundError, ReadOnlyError
from omendb_engine.follower import Follower
from omendb_engine.lock import ALIVE_NAME, writer_is_alive
from omendb_engine.recovery import BUFFERS, replay
from tests.unit.engine.engine_cases import (
    NAME,
    as_ids,
    ids_of,
    open_folder,
    open_replica,
    put,
    rows_of,
    schema_of,
    settings_of,
    state_of,
    vectors_of,
)


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def wal_of(folder: str) -> Path:
    """The one collection's log folder."""
    return next((Path(folder) / "collections").iterdir()) / "wal"


def test_it_follows_every_kind_of_change(tmp_path: Path) -> None:
    folder, writer = open_replica(tmp_path / "db", settings_of(rows=7, flat=8))
    reader = open_folder(tmp_path / "db", mode="r").replica(NAME)
    rng = np.random.default_rng(1)
    for step in range(120):
        ids = rng.integers(0, 60, 4).tolist()
        match step % 8:
            case 0 | 1 | 2:
                put(writer, ids, seed=step, payload=[{"a": step}] * 4)
            case 3:
                writer.delete(as_ids(ids))
            case 4:
                have = ids_of(writer)[:3]
                writer.update(as_ids(have), {}, rows_of(*[{"b": step}] * len(have)))
            case 5:
                writer.flush()
            case 6:
                writer.maintenance.merge_one(idle=True)
            case 7:
                writer.maintenance.index_one(hurry=True)
        assert state_of(reader) == state_of(writer), f"step {step}"
        assert reader.count() == writer.count()
    query = vectors_of(1, seed=9)
    assert reader.search(query, 5).picked(0).ids().to_list() == writer.search(query, 5).picked(0).ids().to_list()
    folder.close()
    assert len(ids_of(reader)) == reader.count()


def test_a_snapshot_outlives_the_segments_it_shows(tmp_path: Path) -> None:
    _, writer = open_replica(tmp_path / "db", settings_of(rows=7))
    vectors = put(writer, range(30), payload=[{"a": i} for i in range(30)])
    writer.flush()
    reading = open_folder(tmp_path / "db", mode="r")
    reader = reading.replica(NAME)
    page = reader.scroll(None, 100)
    answer = reader.search(vectors[:1], 3)
    before = {p.name for p in wal_of(str(tmp_path / "db")).parent.glob("segments/*")}
    for seed in range(1, 6):  # enough generations for the old files to go
        put(writer, range(30), seed=seed)
        writer.compact()
    after = {p.name for p in wal_of(str(tmp_path / "db")).parent.glob("segments/*")}
    assert not before & after, "nothing was removed: the test shows nothing"
    assert page.picked.payload() == [{"a": i} for i in page.picked.ids().to_list()]
    got = page.picked.vectors("", reader.schema)
    np.testing.assert_array_equal(got, vectors[np.array(page.picked.ids().ints, np.int64)])
    assert answer.picked(0).payload()[0] == {"a": 0}
    assert state_of(reader) == state_of(writer)


def test_collections_come_go_and_change_their_names(tmp_path: Path) -> None:
    writing, writer = open_replica(tmp_path / "db")
    put(writer, [1])
    reading = open_folder(tmp_path / "db", mode="r")
    reader = reading.replica(NAME)
    assert ids_of(reader) == [1]
    other = writing.create("other", schema_of())
    put(other, [7])
    assert reading.names() == ["other", NAME] and ids_of(reading.replica("other")) == [7]
    writing.rename(NAME, "renamed")
    assert ids_of(reading.replica("renamed")) == [1]
    with pytest.raises(NotFoundError):
        reading.replica(NAME)
    writing.drop("renamed")
    with pytest.raises(NotFoundError):
        reader.count()
    put(writing.create(NAME, schema_of()), [9])
    assert ids_of(reading.replica(NAME)) == [9], "a new collection under an old name"
    with pytest.raises(DatabaseClosedError):
        reader.count()  # the handle of the dropped one


def test_only_reads_are_offered(tmp_path: Path) -> None:
    _, writer = open_replica(tmp_path / "db")
    reading = open_folder(tmp_path / "db", mode="r")
    for call in (
        lambda: reading.create("x", schema_of()),
        lambda: reading.drop(NAME),
        lambda: reading.rename(NAME, "x"),
        lambda: reading.replica(NAME).wait_until_indexed(1),
    ):
        with pytest.raises(ReadOnlyError):
            call()
    put(writer, [1])
    stats = reading.replica(NAME).stats()
    assert (stats.points, stats.growing_rows, stats.durability) == (1, 1, "read-only")
    reading.close()
    with pytest.raises(DatabaseClosedError):
        reading.names()


def test_no_file_and_no_memory_is_left_behind(tmp_path: Path) -> None:
    _, writer = open_replica(tmp_path / "db")
    put(writer, range(5))
    before = open_files()
    reading = open_folder(tmp_path / "db", mode="r")
    reader = reading.replica(NAME)
    for seed in range(30):
        put(writer, range(5), seed=seed, payload=[{"a": "x" * 1000}] * 5)
        writer.flush()
        put(writer, [1])
        assert reader.count() == 5
    assert open_files() <= before + 4, "descriptors of old logs stay open"
    assert len(reader._segments) == len(reader.stats().segments)  # type: ignore[attr-defined]
    reading.close()
    assert open_files() <= before + 2  # the writer may have opened some of its own
    assert reader.resources.budget.used_bytes == 0


@pytest.mark.parametrize("damage", ["missing", "stale", "garbage"])
def test_without_a_writer_all_durable_records_are_read(tmp_path: Path, damage: str) -> None:
    """COMMIT is not synced: after a power cut it says less than what was acknowledged."""
    writing, writer = open_replica(tmp_path / "db")
    put(writer, range(3))
    commit = wal_of(str(tmp_path / "db")) / "COMMIT"
    old = commit.read_bytes()
    put(writer, range(3, 9))
    writer.delete(as_ids([1]))
    expected = state_of(writer)
    cut = tmp_path / "cut"  # the same folder as the power cut left it, with no process at work in it
    shutil.copytree(tmp_path / "db", cut)
    commit = wal_of(str(cut)) / "COMMIT"
    if damage == "missing":
        commit.unlink()
    else:
        commit.write_bytes(old if damage == "stale" else bytes(len(old)))
    reader = open_folder(cut, mode="r").replica(NAME)
    assert state_of(reader) == expected
    # A writer that comes back goes on from there, and is followed.
    again, writer_again = open_replica(cut)
    assert state_of(reader) == state_of(writer_again) == expected
    put(writer_again, [100])
    assert state_of(reader) == state_of(writer_again)
    again.close()
    assert state_of(reader).keys() == {*expected, 100}
    writing.close()


def test_what_a_living_writer_has_not_published_is_not_seen(tmp_path: Path) -> None:
    writing, writer = open_replica(tmp_path / "db")
    put(writer, [1])
    commit = wal_of(str(tmp_path / "db")) / "COMMIT"
    published = commit.read_bytes()
    put(writer, [2])
    newer = commit.read_bytes()
    commit.write_bytes(published)  # as between the write of a record and the sync of it
    reader = open_folder(tmp_path / "db", mode="r").replica(NAME)
    assert ids_of(reader) == [1]
    commit.write_bytes(newer)
    assert sorted(map(str, ids_of(reader))) == ["1", "2"]
    writing.close()


def test_a_writer_that_starts_while_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read beyond COMMIT may then be unacknowledged, so it is not shown."""
    folder, writer = open_replica(tmp_path / "db")
    put(writer, [1])
    reading = open_folder(tmp_path / "db", mode="r")
    reader = reading.replica(NAME)
    assert isinstance(reader, Follower)
    answers = iter([False, True])
    monkeypatch.setattr(reader, "_writer_alive", lambda: next(answers, True))
    assert ids_of(reader) == [1]
    assert reader._view is not None and not reader._view.at_end
    folder.close()


def test_an_error_in_the_middle_of_the_records_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, writer = open_replica(tmp_path / "db", settings_of(rows=50))
    put(writer, [0])
    reader = open_folder(tmp_path / "db", mode="r").replica(NAME)
    assert ids_of(reader) == [0]
    for i in range(1, 6):
        put(writer, [i])
    calls = iter(range(100))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return replay(*arguments)

    monkeypatch.setattr("omendb_engine.follower.replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reader.count()
    assert state_of(reader) == state_of(writer)
    assert reader.resources.budget.account()[BUFFERS] > 0


def test_damage_is_reported_and_not_tried_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, writer = open_replica(tmp_path / "db")
    put(writer, range(20))
    writer.flush()
    folder.close()
    keys = next((tmp_path / "db").glob("collections/*/segments/*/keys.arrow"))
    content = bytearray(keys.read_bytes())
    content[700] ^= 1
    keys.write_bytes(content)
    loads: list[int] = []
    load = Follower._load

    def counting(follower: Follower, newest: int) -> Any:
        loads.append(newest)
        return load(follower, newest)

    monkeypatch.setattr(Follower, "_load", counting)
    with pytest.raises(CorruptionError):
        open_folder(tmp_path / "db", mode="r").replica(NAME)
    assert len(loads) == 1


def test_a_damaged_newest_manifest_does_not_make_every_read_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, writer = open_replica(tmp_path / "db")
    put(writer, range(3))
    writer.flush()
    put(writer, range(3, 5))
    writer.flush()
    folder.close()
    newest = max((tmp_path / "db").glob("collections/*/manifest-*.json"))
    older = sorted((tmp_path / "db").glob("collections/*/manifest-*.json"))[-2]
    shutil.copy(older, newest)  # the wrong generation inside
    reader = open_folder(tmp_path / "db", mode="r").replica(NAME)
    assert len(ids_of(reader)) == 5
    monkeypatch.setattr(Follower, "_load", None)
    assert reader.count() == 5


_CHILD = """
import json, sys
sys.path[:0] = {paths!r}
from tests.unit.engine.engine_cases import NAME, ids_of, open_folder
folder = open_folder({path!r}, mode="r")
for line in sys.stdin:
    if line.strip() == "names":
        print(json.dumps(folder.names()), flush=True)
    else:
        print(json.dumps(sorted(ids_of(folder.replica(NAME)))), flush=True)
"""


def test_another_process_follows(tmp_path: Path) -> None:
    folder, writer = open_replica(tmp_path / "db", settings_of(rows=7))
    put(writer, range(3))
    code = _CHILD.format(paths=sys.path, path=str(tmp_path / "db"))
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None

    def ask(line: str) -> Any:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(line + "\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    try:
        assert ask("ids") == [0, 1, 2]
        put(writer, range(2, 40))
        assert ask("ids") == list(range(40))
        writer.compact()
        writer.delete(as_ids(range(30)))
        assert ask("ids") == list(range(30, 40))
        writer.compact()
        folder.create("other", schema_of())
        assert ask("names") == ["other", NAME]
        folder.close()
        assert ask("ids") == list(range(30, 40))
    finally:
        child.stdin.close()
        assert child.wait(20) == 0


def test_readers_are_told_whether_there_is_a_writer(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    assert not writer_is_alive(path)
    folder, _ = open_replica(path)
    assert writer_is_alive(path) and (tmp_path / "db" / ALIVE_NAME).exists()
    folder.close()
    assert not writer_is_alive(path)
    assert not writer_is_alive(path), "asking must leave nothing locked"
    open_replica(path)[0].close()

"""Makes the golden files of the feature levels: `python -m tests.compat.golden FOLDER`.

A set that is there is never made again: what it holds is what the release of its time wrote.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import omendb
from omendb_common.catalog_copy import pack_copy, write_copy
from omendb_common.disk import RealDisk
from omendb_common.hlc import EPOCH_MS
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.consensus.effects import Save
from omendb_coordinator.consensus.identity import Identity
from omendb_coordinator.consensus.messages import COMMAND, NOOP, Entry, Snapshot
from omendb_coordinator.consensus.storage import Storage
from omendb_coordinator.restored_changes import restore
from omendb_datanode.node_folder import Held, open_identity, write_held
from tests.unit.coordinator.catalog_cases import Log, node

HERE = Path(__file__).parent / "golden"
TAKEN_MS = EPOCH_MS + 86_400_000_000
POINTS = 40
RENUMBERED = 4
DELETED = (3, 5)


def vectors() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Those of the points, in their order."""
    return np.arange(POINTS * 4, dtype=np.float32).reshape(POINTS, 4)


def point_ids() -> list[int | str]:
    """30 integers, then 10 strings."""
    return [*range(30), *(f"s{n}" for n in range(POINTS - 30))]


def make_database(path: Path) -> None:
    """Two segments, one with deletions and fields of their own, and a log with a tail that is in no segment."""
    ids = point_ids()
    with omendb.open(path) as db:
        payload = {"n": list(range(30)), "name": [f"p{n}" for n in range(30)]}
        db.add_batch(vectors=vectors()[:30], ids=ids[:30], metadata=payload)
        db.flush()
        db.delete([DELETED[0]])
        db.update([RENUMBERED], metadata=[{"n": 400}])
        db.flush()
        db.add_batch(vectors=vectors()[30:], ids=ids[30:], metadata={"n": list(range(30, POINTS))})
        db.delete([DELETED[1]])


def log_of_commands() -> Log:
    """A catalog of two collections, an alias, a move under way, members and leases."""
    log = Log()
    log.add("name_cluster", cluster_id="golden cluster")
    log.register(*(node(f"d{n}") for n in (1, 2, 3, 4)))
    log.create("docs", ["d1", "d2", "d3"], shards=2)
    log.create("notes", ["d2", "d3", "d4"])
    log.add("set_alias", alias="papers", collection="docs")
    log.add("lease_origin", holder="r1/1", stamp=1 << 50)
    shard = log.catalog.topology.collections["docs"].shards[0]
    log.add("begin_move", uuid="uuid of docs", shard_id=0, epoch=shard.epoch, source="d1", target="d4")
    log.add("drain", node_id="d3", draining=True)
    return log


def make_coordinator(path: Path, log: Log) -> None:
    """A snapshot of the first half of the log, the second half as entries, a vote, and the lives of the others."""
    disk = RealDisk()
    members = ("c1", "c2", "c3")
    Storage.create(disk, str(path), Identity("golden group", "c1", members, "birth of c1"))
    storage = Storage.open(disk, str(path))
    entries = [Entry(i, 2, COMMAND, command) for i, command in enumerate(log.entries, 1)]
    entries.append(Entry(len(entries) + 1, 3, NOOP, b""))
    storage.save([Save(vote=(3, "c2"), entries=entries)])
    half = len(log.entries) // 2
    catalog = Catalog()
    for entry in entries[:half]:
        catalog.apply(entry.index, entry.command)
    storage.compact(Snapshot.of(half, 2, catalog.snapshot()), half - 2, 2)
    storage.meet("c2", "birth of c2", "bootstrap")
    storage.close()


def make_restored(path: Path, log: Log) -> Catalog:
    """The folder of a member whose group was restored from a copy."""
    state = restore(log.catalog.state, TAKEN_MS, TAKEN_MS + 1000)
    revision = state.topology.revision
    catalog = Catalog.of(state, revision)
    identity = Identity("golden group, restored", "c1", ("c1", "c2", "c3"), "another birth of c1")
    Storage.create(RealDisk(), str(path), identity, Snapshot.of(revision, 1, catalog.snapshot()))
    return catalog


def make_data_node(path: Path, held: Held) -> None:
    """What a data node says of itself."""
    path.mkdir()
    open_identity(RealDisk(), str(path), "golden cluster", "d1", "folder of d1")
    write_held(RealDisk(), str(path), held)


def packed(source: Path, target: Path) -> None:
    """A folder as one small file, with nothing of this machine in it."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(target, "w:xz") as archive:
        archive.add(source, source.name, filter=plain)


def unpacked(archive: Path, folder: Path) -> Path:
    """The folder that was packed."""
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.xz")


def make(target: Path) -> None:
    """Write the golden files of both levels below ``target``."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        log = log_of_commands()
        make_database(work / "database")
        make_coordinator(work / "coordinator", log)
        make_data_node(work / "datanode", Held(frozenset({"u.0", "u.1.77"}), 14))
        level_1, level_2 = target / "level_1", target / "level_2"
        for folder in (level_1, level_2):
            folder.mkdir(parents=True)
        for name in ("database", "coordinator", "datanode"):
            packed(work / name, level_1 / f"{name}.tar.xz")
            shutil.rmtree(work / name)
        (level_1 / "catalog.json").write_text(_readable(log.catalog))
        write_copy(RealDisk(), str(level_1 / "catalog.copy"), pack_copy(TAKEN_MS, log.catalog.snapshot()))
        restored = make_restored(work / "coordinator", log)
        kept = Held(
            frozenset({"u.0", "v.0"}), restored.topology.revision, restored.topology.restored, frozenset({"v.0"})
        )
        make_data_node(work / "datanode", kept)
        for name in ("coordinator", "datanode"):
            packed(work / name, level_2 / f"{name}.tar.xz")
        (level_2 / "catalog.json").write_text(_readable(restored))


def _readable(catalog: Catalog) -> str:
    return json.dumps(catalog.state.to_json(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)

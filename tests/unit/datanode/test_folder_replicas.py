"""A database folder as a node's replicas: found without a wait, whatever is made or dropped beside it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from omendb_common.shard_calls import ShardRef
from omendb_datanode.folder_replicas import FolderReplicas
from omendb_engine.folder import Folder
from tests.unit.engine.engine_cases import UnsyncedDisk, schema_of, settings_of

PATIENCE_S = 20


class SlowDisk(UnsyncedDisk):
    """A disk whose renames wait while ``gate`` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def rename(self, src: str, dst: str) -> None:
        """As the real disk, sooner or later."""
        if not self.gate.is_set():
            self.waiting.set()
            assert self.gate.wait(3 * PATIENCE_S)
        super().rename(src, dst)


def test_a_replica_is_found_while_another_is_made(tmp_path: Path) -> None:
    """The event loop asks: were it to wait for the disk, so would every call of the server."""
    disk = SlowDisk()
    folder = Folder.open(str(tmp_path), mode="rw", settings=settings_of(), disk=disk)
    first, second = schema_of(), schema_of()
    replica = folder.create("first", first)
    replicas = FolderReplicas(folder)
    with ThreadPoolExecutor(2) as threads:
        disk.gate.clear()
        try:
            making = threads.submit(folder.create, "second", second)
            assert disk.waiting.wait(PATIENCE_S)
            found = threads.submit(replicas.find, ShardRef(first.uuid, 0, 1, 1)).result(PATIENCE_S)
            none = threads.submit(replicas.find, ShardRef(second.uuid, 0, 1, 1)).result(PATIENCE_S)
        finally:
            disk.gate.set()
        assert found is not None and found.replica is replica and none is None
        made = making.result()
    again = replicas.find(ShardRef(second.uuid, 0, 1, 1))
    assert again is not None and again.replica is made
    assert replicas.find(ShardRef(first.uuid, 1, 1, 1)) is None, "there is one shard"
    folder.drop("first")
    assert replicas.find(ShardRef(first.uuid, 0, 1, 1)) is None
    folder.close()

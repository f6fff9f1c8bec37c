"""Repairing a damaged database: save what can be proven good, say exactly what is lost, keep the evidence.

Each damaged collection is written anew, through the ordinary write path, from whatever its segments and log still
prove; stamps decide between versions, as always. The damaged files move to ``quarantine/`` inside the
database folder, where nothing touches them. A sound collection is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from omendb_common.clock import Clock, SystemClock
from omendb_common.config import EngineSettings, WorkerSettings
from omendb_common.disk import Disk, RealDisk, make_folder
from omendb_common.errors import CorruptionError, FormatVersionError, NotFoundError
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema
from omendb_engine.apply import take_batch
from omendb_engine.catalog import CATALOG_NAME, Catalog, read_catalog, write_catalog
from omendb_engine.check import check_replica
from omendb_engine.folder import COLLECTIONS, random_uuid
from omendb_engine.lock import WriterLock
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from omendb_engine.salvage import Loss, Salvage, salvage_log, salvage_segment
from omendb_engine.segment.check import Finding
from omendb_engine.segment.manifest import ManifestStore, ReplicaManifest

QUARANTINE = "quarantine"
_BATCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class CollectionRepair:
    """What became of one collection. ``points``: saved; ``quarantine``: where the damaged files lie now."""

    name: str
    findings: tuple[Finding, ...]
    losses: tuple[Loss, ...]
    points: int
    quarantine: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did; ``sound`` collections were left as they are."""

    repaired: tuple[CollectionRepair, ...]
    sound: tuple[str, ...]


def repair_folder(
    path: str,
    *,
    settings: EngineSettings | None = None,
    disk: Disk | None = None,
    clock: Clock | None = None,
    lock: bool = True,
    new_uuid: Callable[[], str] = random_uuid,
) -> RepairReport:
    """Repair every damaged collection of the database in ``path``.

    Raises:
        NotFoundError: there is no database.
        DatabaseLockedError: a process writes to it.
        OSError: the disk cannot be read or written.
    """
    settings = replace(settings or EngineSettings(), workers=WorkerSettings(background_threads=0))
    disk = disk or RealDisk(no_mmap=True)
    if not disk.exists(f"{path}/{COLLECTIONS}"):
        raise NotFoundError("no database here", field=path, mend="check the path")
    held = WriterLock(path) if lock else None
    try:
        return _Repair(path, settings, disk, clock or SystemClock(), new_uuid).run()
    finally:
        if held is not None:
            held.release()


class _Repair:
    def __init__(
        self, path: str, settings: EngineSettings, disk: Disk, clock: Clock, new_uuid: Callable[[], str]
    ) -> None:
        self._path = path
        self._settings = settings
        self._disk = disk
        self._clock = clock
        self._new_uuid = new_uuid
        self._lost_names: list[Loss] = []

    def run(self) -> RepairReport:
        catalog = self._catalog()
        repaired = []
        sound = []
        for name, replica_uuid in sorted(catalog.collections.items()):
            folder = self._folder(replica_uuid)
            findings = check_replica(self._disk, folder, replica_uuid)
            if not findings:
                sound.append(name)
                continue
            catalog, report = self._collection(catalog, name, replica_uuid, findings)
            repaired.append(report)
        return RepairReport(tuple(repaired), tuple(sound))

    def _folder(self, replica_uuid: str) -> str:
        return f"{self._path}/{COLLECTIONS}/{replica_uuid}"

    def _catalog(self) -> Catalog:
        try:
            return read_catalog(self._disk, self._path)
        except (CorruptionError, FileNotFoundError) as error:
            found = [
                name
                for name in self._disk.listdir(f"{self._path}/{COLLECTIONS}")
                if any(f.startswith("manifest-") for f in self._disk.listdir(self._folder(name)))
            ]
            names = ["default"] if len(found) == 1 else [f"recovered_{i + 1}" for i in range(len(found))]
            self._lost_names = [Loss(f"{self._path}/{CATALOG_NAME}", f"the collections' names ({error})")]
            catalog = Catalog(self._new_uuid(), dict(zip(names, found, strict=True)))
            write_catalog(self._disk, self._path, catalog)
            return catalog

    def _collection(
        self, catalog: Catalog, name: str, old_uuid: str, findings: list[Finding]
    ) -> tuple[Catalog, CollectionRepair]:
        salvage = Salvage(list(self._lost_names))
        old = self._folder(old_uuid)
        manifest = self._manifest(old, salvage)
        catalog = catalog.removed(name)
        points = 0
        if manifest is not None:
            schema = replace(CollectionSchema.from_json(manifest.schema), uuid=self._new_uuid())
            points = self._rebuild(old, manifest, schema, salvage)
            catalog = catalog.added(name, schema.uuid)
        quarantine = f"{self._path}/{QUARANTINE}/{old_uuid}"
        make_folder(self._disk, f"{self._path}/{QUARANTINE}")
        # The evidence moves last: until the catalog names the rebuilt replica, the old one is what there is.
        write_catalog(self._disk, self._path, catalog)
        if self._disk.exists(old):
            self._disk.rename(old, quarantine)
            self._disk.sync_dir(f"{self._path}/{QUARANTINE}")
            self._disk.sync_dir(f"{self._path}/{COLLECTIONS}")
        return catalog, CollectionRepair(name, tuple(findings), tuple(salvage.losses), points, quarantine)

    def _manifest(self, folder: str, salvage: Salvage) -> ReplicaManifest | None:
        """The newest generation that can be read, whatever became of its files."""
        names = self._disk.listdir(folder) if self._disk.exists(folder) else []
        numbers = [
            n[len("manifest-") : -len(".json")] for n in names if n.startswith("manifest-") and n.endswith(".json")
        ]
        store = ManifestStore(self._disk, folder)
        newest = True
        for generation in sorted((int(n) for n in numbers if n.isdigit()), reverse=True):
            try:
                manifest = store.read(generation)
            except (CorruptionError, FormatVersionError) as error:
                salvage.lost(folder, f"manifest generation {generation}: {error}")
                newest = False
                continue
            if not newest:
                salvage.lost(
                    folder, f"structure newer than manifest generation {generation}; the log was replayed from it"
                )
            return manifest
        salvage.lost(folder, "the whole collection: no manifest can be read")
        return None

    def _rebuild(self, old: str, manifest: ReplicaManifest, schema: CollectionSchema, salvage: Salvage) -> int:
        path = self._folder(schema.uuid)
        Replica.create(self._disk, path, schema, self._clock)
        replica = Replica.open(self._disk, path, schema.uuid, Resources(self._settings), self._settings, self._clock)
        try:
            for ref in manifest.segments:
                batch = salvage_segment(self._disk, old, ref, schema, salvage)
                if batch is not None:
                    _feed(replica, batch)
            for batch in salvage_log(self._disk, f"{old}/wal", manifest.checkpoint_lsn, salvage):
                _feed(replica, batch)
            replica.flush()
            return replica.count()
        finally:
            replica.close()


def _feed(replica: Replica, batch: WriteBatch) -> None:
    """Write a batch whose rows carry their stamps, in pieces."""
    if batch.op is Op.UPDATE:
        _, found = replica.get(batch.ids)
        batch = take_batch(batch, found)
    for start in range(0, batch.rows, _BATCH_ROWS):
        replica.apply_stamped(take_batch(batch, np.arange(start, min(start + _BATCH_ROWS, batch.rows))))


__all__ = ["QUARANTINE", "CollectionRepair", "RepairReport", "repair_folder"]

"""Checking a whole database folder: catalog, every file of every replica, and the logs."""

from __future__ import annotations

from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_engine.catalog import CATALOG_NAME, read_catalog
from omendb_engine.lock import WriterLock
from omendb_engine.recovery import identity_of
from omendb_engine.segment.check import Finding, check_replica_files
from omendb_engine.segment.manifest import ManifestStore
from omendb_engine.wal.reader import read_wal
from omendb_engine.wal.record import COMMIT_NAME, decode_commit

_COLLECTIONS = "collections"


def check_folder(disk: Disk, path: str, *, lock: bool = False) -> list[Finding]:
    """Read every byte of a database; an empty list means sound.

    Args:
        lock: hold the writer lock meanwhile, because files that a writer is changing look damaged.

    Raises:
        DatabaseLockedError: a process writes to the database.
        OSError: a file could not be read.
    """
    held = WriterLock(path) if lock else None
    try:
        return _check_folder(disk, path)
    finally:
        if held is not None:
            held.release()


def _check_folder(disk: Disk, path: str) -> list[Finding]:
    try:
        catalog = read_catalog(disk, path)
    except (CorruptionError, FormatVersionError) as error:
        return [as_finding(error, f"{path}/{CATALOG_NAME}")]
    except FileNotFoundError:
        return [Finding(f"{path}/{CATALOG_NAME}", "the catalog is missing")]
    findings = []
    for replica_uuid in catalog.collections.values():
        findings += check_replica(disk, f"{path}/{_COLLECTIONS}/{replica_uuid}", replica_uuid)
    return findings


def check_replica(disk: Disk, path: str, replica_uuid: str) -> list[Finding]:
    """Check one replica's files and its log."""
    if not disk.exists(path):
        return [Finding(path, "the replica's folder is missing")]
    return check_replica_files(disk, path) + _check_log(disk, path, replica_uuid)


def _check_log(disk: Disk, path: str, replica_uuid: str) -> list[Finding]:
    folder = f"{path}/wal"
    identity = identity_of(replica_uuid)
    findings = []
    commit = f"{folder}/{COMMIT_NAME}"
    if disk.exists(commit) and decode_commit(disk.read(commit), identity) is None:
        findings.append(Finding(commit, "the commit point does not verify", 0))
    manifests = ManifestStore(disk, path)
    try:
        manifest = manifests.load(lambda found: True)
        if manifest is None:
            return [*findings, Finding(path, "the replica has no manifest")]
        kept = manifests.kept
        oldest = min(m.checkpoint_lsn for m in kept)
        scan = read_wal(disk, folder, identity=identity, after_lsn=oldest, known_durable_lsn=manifest.durable_lsn)
        if scan.end.torn is not None:
            # Not damage: a write that was never acknowledged. Recovery leaves it behind.
            return findings
    except (CorruptionError, FormatVersionError) as error:
        findings.append(as_finding(error, folder))
    return findings


def as_finding(error: CorruptionError | FormatVersionError, path: str) -> Finding:
    """An error as a line of a report."""
    if isinstance(error, CorruptionError):
        bound = f" (expected {error.bound})" if error.bound else ""
        return Finding(error.path, error.message + bound, error.offset)
    return Finding(error.field or path, str(error))


__all__ = ["Finding", "as_finding", "check_folder", "check_replica"]

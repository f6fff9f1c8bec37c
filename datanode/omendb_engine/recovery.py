"""Opening a replica: the newest good manifest, its segments, and the log after its checkpoint."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from omendb_common.clock import Clock
from omendb_common.config import EngineSettings
from omendb_common.disk import Disk, make_folder
from omendb_common.errors import CorruptionError
from omendb_common.records import Op, WriteBatch, decode_batch
from omendb_common.schema import CollectionSchema
from omendb_engine.apply import PartStore
from omendb_engine.growing import row_bytes
from omendb_engine.parts import SegmentPart
from omendb_engine.resources import Resources
from omendb_engine.segment.deletes import Deletes, read_deletes
from omendb_engine.segment.manifest import GENERATIONS_KEPT, ManifestStore, ReplicaManifest, SegmentRef
from omendb_engine.segment.reader import Segment
from omendb_engine.wal.reader import WalEnd, read_wal, wal_covers
from omendb_engine.wal.record import RecordType, WalIdentity, WalRecord

BUFFERS = "growing buffers"
FIRST_LOG_ID = 1


@dataclass(slots=True)
class Recovered:
    """A replica's state as read from its folder."""

    schema: CollectionSchema
    manifests: ManifestStore
    manifest: ReplicaManifest
    checkpoint_dead: dict[int, Deletes]
    store: PartStore
    identity: WalIdentity
    wal_end: WalEnd
    last_stamp: int


def buffer_rows(schema: CollectionSchema, settings: EngineSettings) -> int:
    """Rows of a growing buffer: the row limit, or what fits the byte limit and an eighth of memory."""
    room = min(settings.buffer.buffer_bytes_max, settings.memory.memory_limit_bytes // 8)
    return max(1, min(settings.buffer.buffer_rows_max, room // row_bytes(schema)))


def identity_of(replica_uuid: str) -> WalIdentity:
    """Whose log belongs to a replica."""
    return WalIdentity(replica=uuid.UUID(replica_uuid).bytes)


def create_replica(disk: Disk, path: str, schema: CollectionSchema, clock: Clock) -> None:
    """Make the folder of an empty replica with its first manifest, durably."""
    make_folder(disk, f"{path}/wal")
    make_folder(disk, f"{path}/segments")
    manifest = ReplicaManifest(
        replica_uuid=schema.uuid, created_ms=clock.wall_ms(), schema=schema.to_json(), log_id=FIRST_LOG_ID
    )
    ManifestStore(disk, path).commit(manifest)


def open_parts(
    disk: Disk,
    path: str,
    schema: CollectionSchema,
    manifest: ReplicaManifest,
    resources: Resources,
    *,
    verify: bool = True,
    reuse: dict[str, Segment] | None = None,
) -> list[SegmentPart]:
    """Open every segment that a manifest names, with its delete set."""
    parts = []
    for ref in manifest.segments:
        segment = (reuse or {}).get(segment_key(ref))
        if segment is None:
            segment = Segment.open(disk, path, ref, cache=resources.columns, verify=verify)
        dead = Deletes.none(ref.rows)
        if ref.deletes is not None:
            dead = read_deletes(disk, path, ref.deletes, segment_id=ref.segment_id, rows=ref.rows)
        parts.append(SegmentPart(segment, schema, dead))
    return parts


def segment_key(ref: SegmentRef) -> str:
    """What makes an open segment the one a manifest names: its content and its index."""
    return f"{ref.manifest_hash}/{ref.index_hash}"


def load_manifest(
    disk: Disk, path: str, replica_uuid: str, *, keep: int = GENERATIONS_KEPT
) -> tuple[ManifestStore, ReplicaManifest]:
    """The newest usable manifest of the replica in ``path``."""
    identity = identity_of(replica_uuid)
    manifests = ManifestStore(disk, path, keep=keep)
    manifest = manifests.load(lambda found: wal_covers(disk, f"{path}/wal", identity, found.checkpoint_lsn))
    if manifest is None:
        raise CorruptionError("the replica has no manifest", path=path, mend="run omendb repair, or restore a backup")
    if manifest.replica_uuid != replica_uuid:
        raise CorruptionError(f"this is replica {manifest.replica_uuid}", path=path, bound=replica_uuid)
    return manifests, manifest


def recover(disk: Disk, path: str, replica_uuid: str, resources: Resources, settings: EngineSettings) -> Recovered:
    """Read a replica's folder and replay its log.

    Raises:
        CorruptionError: damage recovery must not pass over.
        FormatVersionError: a newer release wrote it.
        ResourceExhaustedError: the log holds more than the memory limit allows.
    """
    manifests, manifest = load_manifest(disk, path, replica_uuid, keep=settings.storage.manifest_generations)
    identity = identity_of(replica_uuid)
    schema = CollectionSchema.from_json(manifest.schema)
    parts = open_parts(disk, path, schema, manifest, resources, verify=settings.storage.verify_on_open)
    store = PartStore(
        schema,
        parts,
        lsn=manifest.checkpoint_lsn,
        buffer_rows=buffer_rows(schema, settings),
        extra_bytes_max=settings.buffer.buffer_bytes_max,
        max_stamp=manifest.hlc,
        next_auto_id=manifest.next_auto_id,
    )
    resources.budget.reserve(BUFFERS, store.active.reserved_bytes)
    scan = read_wal(
        disk,
        f"{path}/wal",
        identity=identity,
        after_lsn=manifest.checkpoint_lsn,
        known_durable_lsn=manifest.durable_lsn,
    )
    for record in scan:
        replay(store, record, resources)
    dead = {part.part_id: part.dead for part in parts}
    return Recovered(schema, manifests, manifest, dead, store, identity, scan.end, store.max_stamp)


def replay(store: PartStore, record: WalRecord, resources: Resources) -> WriteBatch | None:
    """Apply one log record; returns its batch, None for a record that changes no point."""
    if record.type is not RecordType.OPS:
        store.skip(record.lsn)
        return None
    batch = decode_batch(record.body, own=True)
    rows = 0 if batch.op is Op.DELETE else batch.rows
    if not store.has_room(rows):
        capacity = store.next_capacity(rows)
        resources.budget.reserve(BUFFERS, store.buffer_bytes(capacity))
        store.freeze(capacity)
    plan = store.plan_update(batch, record.stamp) if batch.op is Op.UPDATE else None
    extra = store.extra_bytes(batch, plan)
    resources.budget.reserve(BUFFERS, extra)
    store.active.reserved_bytes += extra
    store.apply(batch, record.stamp, record.lsn, plan=plan)
    return batch


__all__ = [
    "BUFFERS",
    "FIRST_LOG_ID",
    "Recovered",
    "buffer_rows",
    "create_replica",
    "identity_of",
    "load_manifest",
    "open_parts",
    "recover",
    "replay",
    "segment_key",
]

"""A replica opened for reading, which follows what another process commits to the same folder.

Before each read it asks, with one small read of the log's COMMIT file, whether anything was acknowledged since;
if so it replays that. When the writer commits a new manifest, the follower takes the new segments (keeping
those it has open) and replays the log after the new checkpoint. It writes nothing.
"""

from __future__ import annotations

import threading

from omendb_common.clock import Clock
from omendb_common.config import EngineSettings
from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError, ReadOnlyError
from omendb_common.schema import CollectionSchema
from omendb_engine.apply import PartStore
from omendb_engine.parts import BufferPart, SegmentPart, Snapshot
from omendb_engine.query.reads import Reader
from omendb_engine.recovery import (
    BUFFERS,
    buffer_rows,
    identity_of,
    load_manifest,
    open_parts,
    replay,
    segment_key,
)
from omendb_engine.resources import Resources
from omendb_engine.segment.manifest import ReplicaManifest
from omendb_engine.statistics import ReplicaStats, growing_rows, segment_stats
from omendb_engine.wal.tail import WalGapError, WalTail

_ATTEMPTS = 20


class Follower(Reader):
    """Reads of a folder that another process may be writing. Thread-safe."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        replica_uuid: str,
        resources: Resources,
        settings: EngineSettings,
        clock: Clock,
    ) -> None:
        self._disk = disk
        self.path = path
        self._replica_uuid = replica_uuid
        self._settings = settings
        self._lock = threading.Lock()
        self._closed = False
        self._store: PartStore | None = None
        self._resources = resources
        self._manifest, self._store, self._tail = self._load(None)
        super().__init__(self._store.schema, resources, clock, settings.index.recall_target)

    def snapshot(self) -> Snapshot:
        """The newest state that the writer has acknowledged."""
        with self._lock:
            if self._closed:
                raise self._closed_error()
            assert self._store is not None
            self._refresh()
            return self._store.snapshot

    def _refresh(self) -> None:
        if self._current_generation() != self._manifest.generation:
            self._manifest, self._store, self._tail = self._load(self._store)
            return
        assert self._store is not None
        try:
            for record in self._tail.poll():
                replay(self._store, record, self._resources)
        except (FileNotFoundError, WalGapError, CorruptionError):
            # The writer dropped log that a newer manifest covers.
            self._manifest, self._store, self._tail = self._load(self._store)

    def _current_generation(self) -> int:
        names = [n for n in self._disk.listdir(self.path) if n.startswith("manifest-") and n.endswith(".json")]
        return max((int(n[len("manifest-") : -len(".json")]) for n in names), default=0)

    def _load(self, old: PartStore | None) -> tuple[ReplicaManifest, PartStore, WalTail]:
        """Open the newest manifest; tried again while the writer replaces files under our hands."""
        failure: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                return self._load_once(old)
            except (FileNotFoundError, WalGapError, CorruptionError) as error:
                failure = error
        assert failure is not None
        raise failure

    def _load_once(self, old: PartStore | None) -> tuple[ReplicaManifest, PartStore, WalTail]:
        _, manifest = load_manifest(self._disk, self.path, self._replica_uuid)
        schema = CollectionSchema.from_json(manifest.schema)
        known = {}
        if old is not None:
            known = {segment_key(p.segment.ref): p.segment for p in old.snapshot.parts if isinstance(p, SegmentPart)}
        parts = open_parts(self._disk, self.path, schema, manifest, self._resources, reuse=known)
        store = PartStore(
            schema,
            parts,
            lsn=manifest.checkpoint_lsn,
            buffer_rows=buffer_rows(schema, self._settings),
            max_stamp=manifest.hlc,
        )
        self._resources.budget.reserve(BUFFERS, store.active.reserved_bytes)
        try:
            tail = WalTail(
                self._disk, f"{self.path}/wal", identity_of(self._replica_uuid), after_lsn=manifest.checkpoint_lsn
            )
            for record in tail.poll():
                replay(store, record, self._resources)
        except BaseException:
            self._release(store)
            raise
        if old is not None:
            self._release(old)
        return manifest, store, tail

    def _release(self, store: PartStore) -> None:
        for part in store.snapshot.parts:
            if isinstance(part, BufferPart):
                self._resources.budget.release(BUFFERS, part.buffer.reserved_bytes)

    def stats(self) -> ReplicaStats:
        """Numbers about the replica as this process sees it."""
        snapshot = self.snapshot()
        budget = self.resources.budget
        segments = segment_stats(snapshot)
        return ReplicaStats(
            points=snapshot.live,
            growing_rows=growing_rows(snapshot),
            segments=segments,
            unindexed_rows=growing_rows(snapshot),
            index_queue=0,
            index_progress=1.0,
            durable_lsn=snapshot.lsn,
            applied_lsn=snapshot.lsn,
            durability="read-only",
            disk_bytes=sum(s.bytes_on_disk for s in segments),
            memory_bytes=budget.account(),
            memory_limit_bytes=budget.limit_bytes,
            failed=False,
            last_error=None,
        )

    def wait_until_indexed(self, timeout_s: float) -> bool:
        """A reader builds no index."""
        raise ReadOnlyError("this handle only reads", field="mode", bound='"rw"', mend="wait in the writing process")

    def close(self) -> None:
        """Let go of the files; twice is fine."""
        with self._lock:
            if not self._closed:
                self._closed = True
                assert self._store is not None
                self._release(self._store)


__all__ = ["Follower"]

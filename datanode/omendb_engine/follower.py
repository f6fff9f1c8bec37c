"""A replica opened for reading, which follows what another process commits to the same folder.

Before each read it asks, with one small read of the log's COMMIT file, whether anything was acknowledged since;
if so it replays that. When the writer commits a new manifest, the follower takes the new segments (keeping
those it has open) and replays the log after the new checkpoint. It writes nothing.

COMMIT is not synced, so after a power cut it may say less than was acknowledged. While there is no writer, whose
unfinished writes must not be seen, the follower therefore reads the log to its end, by the rule of recovery.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from omendb_common.clock import Clock
from omendb_common.config import EngineSettings
from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError, NotFoundError, ReadOnlyError
from omendb_common.schema import CollectionSchema
from omendb_engine.apply import PartStore
from omendb_engine.parts import BufferPart, Snapshot
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
from omendb_engine.segment.reader import Segment
from omendb_engine.statistics import ReplicaStats, growing_rows, segment_stats
from omendb_engine.wal.reader import read_wal
from omendb_engine.wal.tail import WalGapError, WalTail

_ATTEMPTS = 20


@dataclass(slots=True)
class _View:
    """What was read so far. ``at_end``: the log was read to its end, which is beyond what COMMIT says."""

    manifest: ReplicaManifest
    store: PartStore
    tail: WalTail
    newest_generation: int
    at_end: bool = False


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
        *,
        writer_alive: Callable[[], bool] = lambda: False,
        listed: Callable[[], bool] = lambda: True,
    ) -> None:
        """Open the replica in ``path``.

        Args:
            writer_alive: whether a process writes to it now.
            listed: whether the collection still exists; its files vanish when it is dropped.
        """
        self._disk = disk
        self.path = path
        self._replica_uuid = replica_uuid
        self._wal = f"{path}/wal"
        self._identity = identity_of(replica_uuid)
        self._segments: dict[str, Segment] = {}
        self._settings = settings
        self._lock = threading.Lock()
        self._closed = False
        self._resources = resources
        self._writer_alive = writer_alive
        self._listed = listed
        self._view: _View | None = None
        self._view = self._reload()
        super().__init__(self._view.store.schema, resources, clock, settings.index.recall_target)

    def snapshot(self) -> Snapshot:
        """The newest state that the writer has acknowledged.

        Raises:
            NotFoundError: the collection was dropped.
        """
        with self._lock:
            if self._closed:
                raise self._closed_error()
            self._view = self._refresh()
            return self._view.store.snapshot

    def _refresh(self) -> _View:
        view = self._view
        if view is None or self._newest_generation() != view.newest_generation:
            return self._reload()
        # Until all that was read is applied, the view is of no use: an error in between means to start afresh.
        self._view = None
        try:
            self._follow(view)
        except (FileNotFoundError, WalGapError, CorruptionError):
            # The writer dropped log that a newer manifest covers.
            self._discard(view)
            return self._reload()
        except BaseException:
            self._discard(view)
            raise
        return view

    def _follow(self, view: _View) -> None:
        """Apply what was published since, and what was not while nobody writes."""
        records = view.tail.poll()
        for record in records:
            replay(view.store, record, self._resources)
        if records:
            view.at_end = False
        elif not view.at_end and not self._writer_alive():
            self._read_to_end(view)

    def _read_to_end(self, view: _View) -> None:
        before = view.store.snapshot.lsn
        scan = read_wal(
            self._disk,
            self._wal,
            identity=self._identity,
            after_lsn=before,
            known_durable_lsn=view.manifest.durable_lsn,
        )
        for record in scan:
            replay(view.store, record, self._resources)
        if self._writer_alive():
            # It started meanwhile, and some of that may be what it has not acknowledged yet.
            raise WalGapError("a writer opened the database", field=self.path)
        view.at_end = True
        if view.store.snapshot.lsn > before:
            view.tail.close()
            view.tail = WalTail(self._disk, self._wal, self._identity, after_lsn=view.store.snapshot.lsn)

    def _newest_generation(self) -> int:
        try:
            names = self._disk.listdir(self.path)
        except FileNotFoundError:
            return 0
        found = [n for n in names if n.startswith("manifest-") and n.endswith(".json")]
        return max((int(n[len("manifest-") : -len(".json")]) for n in found), default=0)

    def _reload(self) -> _View:
        """Open the newest manifest; tried again when the writer has changed files under our hands."""
        for attempt in range(_ATTEMPTS):
            newest, alive = self._newest_generation(), self._writer_alive()
            try:
                return self._load(newest)
            except (FileNotFoundError, WalGapError, CorruptionError, NotFoundError):
                if not self._listed():
                    raise NotFoundError("the collection was dropped", field=self.path) from None
                unchanged = self._newest_generation() == newest and self._writer_alive() == alive
                if unchanged or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _load(self, newest_generation: int) -> _View:
        old = self._view
        _, manifest = load_manifest(self._disk, self.path, self._replica_uuid)
        schema = CollectionSchema.from_json(manifest.schema)
        parts = open_parts(self._disk, self.path, schema, manifest, self._resources, reuse=self._segments)
        store = PartStore(
            schema,
            parts,
            lsn=manifest.checkpoint_lsn,
            buffer_rows=buffer_rows(schema, self._settings),
            extra_bytes_max=self._settings.buffer.buffer_bytes_max,
            max_stamp=manifest.hlc,
        )
        self._resources.budget.reserve(BUFFERS, store.active.reserved_bytes)
        tail = WalTail(self._disk, self._wal, self._identity, after_lsn=manifest.checkpoint_lsn)
        view = _View(manifest, store, tail, newest_generation)
        try:
            self._follow(view)
            if not view.at_end:
                self._follow(view)
        except BaseException:
            self._discard(view)
            raise
        self._segments = {segment_key(p.segment.ref): p.segment for p in parts}
        if old is not None:
            self._discard(old)
        return view

    def _discard(self, view: _View) -> None:
        view.tail.close()
        for part in view.store.snapshot.parts:
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
            self._closed = True
            if self._view is not None:
                self._discard(self._view)
                self._view = None


__all__ = ["Follower"]

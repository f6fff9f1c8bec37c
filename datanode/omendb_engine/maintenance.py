"""Work behind the writes: sealing buffers, merging segments, building indexes, removing what nothing names.

Every change of structure has the same shape: build files beside the living ones (long, no lock), THEN commit a
manifest that names them, THEN swap the parts in memory between two write groups. A crash at any point
leaves the old or the new manifest, both complete; readers hold snapshots and never see a half state.

Locks, always taken in this order: one per kind of job (so a job runs once at a time), then ``_structure``
(manifest commits), then the commit group's exclusivity (microseconds).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from omendb_common.errors import OmenDBError, ResourceExhaustedError
from omendb_engine.compaction import CompactionPolicy, SegmentSize
from omendb_engine.index.base import BuildCancelledError
from omendb_engine.index.kinds import IndexBuild, build_bytes, build_index, may_grow
from omendb_engine.index.policy import IndexPolicy, IndexSpec, merged_options
from omendb_engine.interrupts import uninterrupted
from omendb_engine.parts import BufferPart, SegmentPart
from omendb_engine.recovery import BUFFERS, Recovered, buffer_rows
from omendb_engine.seal import Build, build_from_buffer, build_from_segments
from omendb_engine.segment.deletes import Deletes, write_deletes
from omendb_engine.segment.index_files import write_index
from omendb_engine.segment.manifest import ReplicaManifest, SegmentRef
from omendb_engine.segment.reader import Segment
from omendb_engine.segment.writer import write_segment
from omendb_engine.vectors import vector_row_bytes

if TYPE_CHECKING:
    from omendb_engine.replica import Replica

_MERGE = "compaction"
_INDEX = "index build"
# Under a stream that never pauses, a segment still gets its index after this many index delays.
_BUSY_DELAYS = 30
# Deletes and small updates fill no buffer, but what they log must be replayed at the next start.
_LOG_SEGMENTS_MAX = 4
# Log that only older manifests need is worth a few small files to be rid of, once it is this long.
_STALE_LOG_BYTES = 1 << 20
# Half of what fits an Arrow column of text.
_MERGED_PAYLOAD_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class Progress:
    """How far background work is. ``building_rows`` of ``building_total`` are in the index being built."""

    frozen_buffers: int
    unindexed_rows: int
    index_queue: int
    building_rows: int
    building_total: int
    merging: bool
    last_error: str | None


class Maintenance:
    """Background jobs of one replica; each method does at most one job and says whether it did."""

    def __init__(self, replica: Replica, recovered: Recovered, wake: Callable[[], None]) -> None:
        self._replica = replica
        self._store = recovered.store
        self._schema = recovered.schema
        self._manifests = recovered.manifests
        self._manifest = recovered.manifest
        self._checkpoint_dead = recovered.checkpoint_dead
        self._disk = replica.disk
        self._path = replica.path
        settings = replica.settings
        self._settings = settings
        self._budget = replica.resources.budget
        self._compaction = CompactionPolicy(
            rows_max=self._rows_max(),
            payload_max=min(_MERGED_PAYLOAD_MAX, self._budget.limit_bytes // 8),
            fanin=settings.compaction.merge_fanin,
            dead_percent=settings.compaction.purge_dead_percent,
        )
        self._index_policy = IndexPolicy(flat_rows_max=settings.index.flat_rows_max)
        self._next_segment_id = recovered.manifest.next_segment_id
        self._gc_floor = recovered.manifest.gc_floor
        self._fence_epoch = recovered.manifest.fence_epoch
        self._repaired_through = recovered.manifest.repaired_through
        self._busy_segments: set[int] = set()
        self._made_at: dict[int, float] = {}
        self._structure = threading.Lock()
        self._sealing = threading.Lock()
        self._merging = threading.Lock()
        self._indexing = threading.Lock()
        self._log_bytes_max = _LOG_SEGMENTS_MAX * settings.storage.wal_segment_bytes
        self._stopped = threading.Event()
        self._wake = wake
        self._changed = threading.Event()
        self._hurries = 0
        self._cleaned_generation = 0
        self._building = (0, 0)
        self._last_error: str | None = None
        self.remove_garbage()

    def _rows_max(self) -> int:
        """Rows of the largest merge: the setting, or what fits a quarter of memory."""
        row = vector_row_bytes(self._schema)
        return max(1000, min(self._settings.compaction.segment_rows_max, self._budget.limit_bytes // 4 // row))

    @property
    def manifest(self) -> ReplicaManifest:
        """The manifest in force."""
        return self._manifest

    @property
    def gc_floor(self) -> int:
        """The stamp at or below which deletions may be forgotten: an id that is unknown may have been deleted."""
        return self._gc_floor

    @property
    def fence_epoch(self) -> int:
        """The shard epoch below which callers are refused, as it is on stable storage."""
        return self._manifest.fence_epoch

    @property
    def repaired_through(self) -> int:
        """The stamp up to which this replica was found equal to all others, as it is on stable storage."""
        return self._manifest.repaired_through

    def raise_floors(self, *, gc_floor: int = 0, fence_epoch: int = 0, repaired_through: int = 0) -> None:
        """Raise, durably, the floors that are given; one that is lower already stays."""
        with self._structure:
            self._gc_floor = max(self._gc_floor, gc_floor)
            self._fence_epoch = max(self._fence_epoch, fence_epoch)
            self._repaired_through = max(self._repaired_through, repaired_through)
            was = self._manifest.gc_floor, self._manifest.fence_epoch, self._manifest.repaired_through
            if (self._gc_floor, self._fence_epoch, self._repaired_through) != was:
                checkpoint = self._manifest.checkpoint_lsn
                self._commit(list(self._manifest.segments), self._checkpoint_dead, checkpoint_lsn=checkpoint)

    # -- waking ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Tell the workers that there is something to do."""
        self._wake()

    def cancel(self) -> None:
        """Ask running jobs to end early; no job starts afterwards."""
        self._stopped.set()

    def stop(self) -> None:
        """Cancel what can be cancelled and wait for the rest."""
        self.cancel()
        for lock in (self._indexing, self._merging, self._sealing, self._structure):
            with lock:
                pass

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped.is_set()

    def relieve(self) -> None:
        """Memory is short: end the active buffer so that it can be sealed, and without workers seal here."""
        self._store.pool.clear()
        if not self._store.frozen():
            self._replica.exclusively(self._freeze_active)
        if self._settings.workers.background_threads == 0:
            while self._budget.pressed and self.seal_one():
                pass
        else:
            self.wake()

    def _freeze_active(self) -> None:
        active = self._store.active
        if not active.n and not active.kills and not active.tombstones:
            return
        capacity = buffer_rows(self._schema, self._settings)
        try:
            self._budget.reserve(BUFFERS, self._store.buffer_bytes(capacity))
        except ResourceExhaustedError:
            capacity = 0  # no room for a second buffer before this one is sealed: until then writes are refused
        self._store.freeze(capacity)

    def hurry(self, on: bool) -> None:
        """Treat the replica as idle while somebody waits for its index; each ``True`` is taken back by a ``False``."""
        with self._structure:
            self._hurries += 1 if on else -1
        self.wake()

    def wait_for_change(self, timeout_s: float) -> None:
        """Sleep until a job changed the structure, at most ``timeout_s``."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def work(self) -> bool:
        """Do one job of any kind; for replicas without workers."""
        return self.seal_one() or self.merge_one() or self.index_one()

    @property
    def idle(self) -> bool:
        """Whether no write came for the index delay, or somebody waits."""
        return self._hurries > 0 or self._replica.quiet_s() >= self._settings.index.index_delay_s

    # -- seal --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Seal everything written so far."""
        self._replica.exclusively(self._freeze_active)
        while self._store.frozen() and self.seal_one():
            pass

    def seal_if_due(self) -> bool:
        """Seal a buffer that writes left behind: enough rows for an index, or deletions for a purge, or a long log."""
        log_is_long = self._replica.log_bytes_since(self._manifest.checkpoint_lsn) > self._log_bytes_max
        if log_is_long and not self._store.frozen():
            self._replica.exclusively(self._freeze_active)
            return self.seal_one()
        if not self.idle:
            return False
        self._store.pool.clear()  # memory a pausing stream does not need goes back to the system
        if self._store.active.n > self._settings.index.flat_rows_max or self._purge_is_pending():
            self._replica.exclusively(self._freeze_active)
            return self.seal_one()
        return False

    def _purge_is_pending(self) -> bool:
        """Whether a segment would be purged of dead rows if the manifest knew of all of them."""
        percent = self._settings.compaction.purge_dead_percent
        parts = [p for p in self._store.snapshot.parts if isinstance(p, SegmentPart)]
        full = [p for p in parts if p.dead.count and p.dead.count * 100 >= p.n * percent]
        with self._structure:
            return any(p.dead.count > self._dead_in_manifest(p) for p in full)

    def _dead_in_manifest(self, part: SegmentPart) -> int:
        known = self._checkpoint_dead.get(part.part_id)
        return part.dead.count if known is None else known.count

    def seal_one(self) -> bool:
        """Turn the oldest frozen buffer into a segment and move the checkpoint past it."""
        with self._sealing:
            frozen = self._store.frozen()
            if not frozen or self.stopped:
                return False
            buffer = frozen[0].buffer
            keep = self._replica.keep_tombstones
            build = build_from_buffer(buffer, tombstones_above=self._gc_floor if keep else None)
            if not keep:
                # What is forgotten now must not come back under an old stamp.
                self._gc_floor = max(self._gc_floor, buffer.tombstones.max_stamp)
            segment_id, written = self._write(build)
            try:
                with self._structure, uninterrupted():
                    refs = [*self._manifest.segments, *([written[0]] if written else [])]
                    dead = dict(self._checkpoint_dead)
                    for part_id, rows in buffer.kills.items():
                        dead[part_id] = dead[part_id].with_rows(np.concatenate(rows))
                    if written:
                        dead[segment_id] = Deletes.none(written[0].rows)
                    self._commit(refs, dead, checkpoint_lsn=buffer.end_lsn)
                    part = SegmentPart(written[1], self._schema, Deletes.none(written[0].rows)) if written else None
                    old = [buffer.part_id]
                    self._swap(lambda: self._store.replace(old, part, build.row_maps))
                    self._budget.release(BUFFERS, buffer.reserved_bytes)
            finally:
                self._busy_segments.discard(segment_id)
            self.remove_garbage()
            self._keep_ballast()
            return True

    def _keep_ballast(self) -> None:
        try:
            self._replica.keep_ballast()
        except OSError as error:
            self.note_error(error)

    def _seal_meanwhile(self) -> None:
        """Between two steps of a build that takes minutes: writes must not wait for it, whatever thread does it."""
        if not self._store.frozen() or self.stopped or self._sealing.locked():
            return
        try:
            self.seal_one()
        except (OmenDBError, OSError) as error:
            self.note_error(error)

    def _write(self, build: Build) -> tuple[int, tuple[SegmentRef, Segment] | None]:
        """Write a segment's files and open them again; nothing names them yet."""
        with self._structure:
            segment_id = self._next_segment_id
            self._next_segment_id += 1
            self._busy_segments.add(segment_id)
        if not build.data.n and build.data.tombstones is None:
            return segment_id, None
        try:
            ref = write_segment(self._disk, self._path, segment_id, build.data, schema=self._schema)
            segment = Segment.open(self._disk, self._path, ref, cache=self._replica.resources.columns)
        except BaseException:
            self._busy_segments.discard(segment_id)
            raise
        self._made_at[segment_id] = self._replica.now_s()
        return segment_id, (ref, segment)

    # -- merge -------------------------------------------------------------------------------------

    def merge_one(self, *, idle: bool | None = None) -> bool:
        """Merge the segments that the policy names."""
        with self._merging:
            if self.stopped:
                return False
            chosen = self._choose(self.idle if idle is None else idle)
            if not chosen or (self._replica.disk_is_high() and not self._frees(chosen)):
                return False
            parts = self._inputs(chosen)
            size = sum(p.n for p, _ in parts) * vector_row_bytes(self._schema)
            # As it is decoded, and once more as it is put together.
            size += 2 * sum(p.segment.payload_bytes for p, _ in parts)
            try:
                self._budget.reserve(_MERGE, size)
            except ResourceExhaustedError:
                return False
            try:
                self._merge(parts)
            except BuildCancelledError:
                return False
            finally:
                self._budget.release(_MERGE, size)
            self.remove_garbage()
            return True

    def _choose(self, idle: bool) -> tuple[int, ...]:
        # A merge leaves out what is dead in the manifest. To count later deaths would be to merge for nothing, again
        # and again until the buffer that remembers them is sealed.
        with self._structure:
            sizes = [
                SegmentSize(p.part_id, p.n, self._dead_in_manifest(p), p.index is not None, p.segment.payload_bytes)
                for p in self._store.snapshot.parts
                if isinstance(p, SegmentPart)
            ]
        return self._compaction.choose(sizes, idle=idle)

    def _frees(self, chosen: tuple[int, ...]) -> bool:
        """Whether a merge on a nearly full disk gives back more than it takes, and fits: it writes before it frees."""
        parts = [p for p in self._store.snapshot.parts if isinstance(p, SegmentPart) and p.part_id in chosen]
        size = sum(p.segment.bytes_on_disk for p in parts)
        live = sum(p.segment.bytes_on_disk * (p.n - p.dead.count) // max(p.n, 1) for p in parts)
        return live * 2 <= size and live * 2 <= self._replica.free_disk_bytes()

    def _inputs(self, chosen: tuple[int, ...]) -> list[tuple[SegmentPart, Deletes]]:
        """The chosen segments with their dead rows as of the manifest; a graph that can be grown comes first."""
        with self._structure:
            parts = [p for p in self._store.snapshot.parts if isinstance(p, SegmentPart) and p.part_id in chosen]
            inputs = [(p, self._checkpoint_dead[p.part_id]) for p in parts]
        inputs.sort(key=lambda pair: (not _reusable(*pair), -pair[0].n if _reusable(*pair) else 0))
        return inputs

    def _merge(self, inputs: list[tuple[SegmentPart, Deletes]]) -> None:
        keep = self._replica.keep_tombstones
        build = build_from_segments(self._schema, inputs, tombstones_above=self._gc_floor, digests=keep)
        segment_id, written = self._write(build)
        try:
            if written is not None and any(p.index is not None for p, _ in inputs):
                written = self._indexed(written, inputs[0] if _reusable(*inputs[0]) else None)
            self._swap_merged(inputs, build, segment_id, written)
        finally:
            self._busy_segments.discard(segment_id)

    def _indexed(
        self, written: tuple[SegmentRef, Segment], grown: tuple[SegmentPart, Deletes] | None
    ) -> tuple[SegmentRef, Segment]:
        """A merge of indexed segments gets its index before it takes their place, so searches never slow down."""
        ref, segment = written
        spec = self._spec(segment)
        if spec.kind == "flat":
            return written
        reuse = None
        if grown is not None and spec.kind == "hnsw":
            graph = grown[0].segment.graph_of(self._schema.vectors[0].name)
            reuse = (graph, grown[0].n) if graph is not None else None
        build = self._build_index(segment, spec, reuse)
        index_hash = write_index(self._disk, self._path, ref.segment_id, {(0, self._schema.vectors[0].name): build})
        ref = replace(ref, index_hash=index_hash)
        return ref, segment.with_index(index_hash)

    def _swap_merged(
        self,
        inputs: list[tuple[SegmentPart, Deletes]],
        build: Build,
        segment_id: int,
        written: tuple[SegmentRef, Segment] | None,
    ) -> None:
        gone = [part.part_id for part, _ in inputs]
        with self._structure, uninterrupted():
            dead = {i: d for i, d in self._checkpoint_dead.items() if i not in gone}
            refs = [r for r in self._manifest.segments if r.segment_id not in gone]
            if written is not None:
                refs.append(written[0])
                # Rows whose death was checkpointed while the merge ran.
                late = [build.row_maps[p.part_id][self._checkpoint_dead[p.part_id].rows()] for p, _ in inputs]
                moved = np.concatenate(late)
                dead[segment_id] = Deletes.none(written[0].rows).with_rows(moved[moved >= 0])
            self._commit(refs, dead, checkpoint_lsn=self._manifest.checkpoint_lsn)
            part = SegmentPart(written[1], self._schema, dead[segment_id]) if written is not None else None
            order = [p.part_id for p in self._store.snapshot.parts if p.part_id in gone]
            self._swap(lambda: self._store.replace(order, part, build.row_maps))

    # -- index -------------------------------------------------------------------------------------

    def index_one(self, *, hurry: bool = False) -> bool:
        """Build the index of the largest segment that waits for one."""
        with self._indexing:
            waiting = self._waiting_for_index(hurry)
            if not waiting or self.stopped:
                return False
            part = max(waiting, key=lambda p: p.n)
            if part.segment.index_damage is not None:
                self.note_error(part.segment.index_damage)
            spec, field = self._spec(part.segment), self._schema.vectors[0]
            size = max(part.n * vector_row_bytes(self._schema), build_bytes(spec, part.n, field))
            try:
                self._budget.reserve(_INDEX, size)
            except ResourceExhaustedError:
                return False
            try:
                self._index(part)
            except BuildCancelledError:
                return False
            finally:
                self._building = (0, 0)
                self._budget.release(_INDEX, size)
            return True

    def _index(self, part: SegmentPart) -> None:
        build = self._build_index(part.segment, self._spec(part.segment), None, cancelled=lambda: self._gone(part))
        key = {(0, self._schema.vectors[0].name): build}
        with self._structure:  # or a removal of garbage that has listed the folder already takes the new files away
            self._busy_segments.add(part.part_id)
        try:
            index_hash = write_index(self._disk, self._path, part.part_id, key)
            segment = part.segment.with_index(index_hash)
            with self._structure, uninterrupted():
                if self._gone(part):
                    return
                refs = [
                    replace(r, index_hash=index_hash) if r.segment_id == part.part_id else r
                    for r in self._manifest.segments
                ]
                self._commit(refs, self._checkpoint_dead, checkpoint_lsn=self._manifest.checkpoint_lsn)
                swapped = SegmentPart(segment, self._schema, part.dead)
                self._swap(lambda: self._store.swap_segment(swapped))
        finally:
            self._busy_segments.discard(part.part_id)

    def _gone(self, part: SegmentPart) -> bool:
        return self.stopped or all(p.part_id != part.part_id for p in self._store.snapshot.parts)

    def _spec(self, segment: Segment) -> IndexSpec:
        field = self._schema.vectors[0]
        index = self._settings.index
        options = {
            "index": index.kind,
            "quantization": index.quantization,
            "nlist": index.nlist,
            "M": index.hnsw_m,
            "ef_construction": index.hnsw_ef_construction,
        }
        return self._index_policy.decide(
            segment.n, field.dimension, field.dtype, field.metric, merged_options(options, self._schema.options)
        )

    def _build_index(
        self,
        segment: Segment,
        spec: IndexSpec,
        reuse: tuple[npt.NDArray[np.uint8], int] | None,
        *,
        cancelled: Callable[[], bool] | None = None,
    ) -> IndexBuild:
        field = self._schema.vectors[0]
        given_up = cancelled or self._stopped.is_set

        def progress(rows: int) -> None:
            self._building = (rows, segment.n)

        def asked() -> bool:
            self._seal_meanwhile()
            return given_up()

        return build_index(
            spec,
            field,
            segment.vectors(field.name),
            norms=segment.norms(field.name),
            threads=self._settings.index.build_threads or self._replica.cores,
            cancelled=asked,
            progress=progress,
            reuse=reuse,
        )

    def _waiting_for_index(self, hurry: bool = True) -> list[SegmentPart]:
        delay = self._settings.index.index_delay_s
        now = self._replica.now_s()
        out = []
        for part in self._store.snapshot.parts:
            if not isinstance(part, SegmentPart) or part.index is not None:
                continue
            if self._spec(part.segment).kind == "flat":
                continue
            age = now - self._made_at.get(part.part_id, 0.0)
            if hurry or self.idle or age >= _BUSY_DELAYS * delay:
                out.append(part)
        return out

    # -- manifest ------------------------------------------------------------------------------------

    def _commit(self, refs: list[SegmentRef], dead: Mapping[int, Deletes], *, checkpoint_lsn: int) -> None:
        """Commit a manifest; the caller holds ``_structure``. Delete sets that did not change keep their files."""
        self._replica.check_alive()
        self._replica.exclusively(self._replica.sync_log)
        changed = {i: d for i, d in dead.items() if d.count and d != self._checkpoint_dead.get(i)}
        generation = self._manifest.generation + 1
        written = write_deletes(self._disk, self._path, generation, changed)
        refs = [replace(r, deletes=written[r.segment_id]) if r.segment_id in written else r for r in refs]
        manifest = replace(
            self._manifest,
            segments=tuple(refs),
            checkpoint_lsn=checkpoint_lsn,
            durable_lsn=max(self._manifest.durable_lsn, self._replica.durable_lsn),
            hlc=max(self._manifest.hlc, self._store.max_stamp),
            gc_floor=self._gc_floor,
            fence_epoch=self._fence_epoch,
            repaired_through=self._repaired_through,
            next_segment_id=self._next_segment_id,
            next_auto_id=max(self._manifest.next_auto_id, self._replica.next_auto_id),
        )
        try:
            self._manifest = self._manifests.commit(manifest)
            self._checkpoint_dead = dict(dead)
        except OSError:
            raise  # the old manifest stands
        except BaseException as error:
            self._replica.fail(error)
            raise
        self._changed.set()
        self._replica.drop_log(min(m.checkpoint_lsn for m in self._manifests.kept))

    def _swap(self, action: Callable[[], None]) -> None:
        """Put the parts of the manifest just committed in force."""
        try:
            self._replica.exclusively(action)
        except BaseException as error:
            # Manifest and memory differ (say, by Ctrl-C in ``flush``): the next commit would name rows twice.
            self._replica.fail(error)
            raise

    def retire_one(self) -> bool:
        """When idle, push out an old generation that alone holds on to segments or to much log."""
        if self.stopped or not self.idle:
            return False
        if self._retire():
            return True
        if self._cleaned_generation != self._manifest.generation and not self._busy_segments:
            # A job that ran beside the last removal kept its files from it.
            self._cleaned_generation = self._manifest.generation
            self.remove_garbage()
        return False

    def _retire(self) -> bool:
        with self._structure:
            if not self._holds_stale_files():
                return False
            self._commit(list(self._manifest.segments), self._checkpoint_dead, checkpoint_lsn=self._covered_lsn())
        self.remove_garbage()
        return True

    def _holds_stale_files(self) -> bool:
        kept = self._manifests.kept
        named = {r.segment_id for r in self._manifest.segments}
        if any(r.segment_id not in named for m in kept for r in m.segments):
            return True
        oldest = min(m.checkpoint_lsn for m in kept)
        log_bytes = self._replica.log_bytes_since
        return log_bytes(oldest) - log_bytes(self._covered_lsn()) > _STALE_LOG_BYTES

    def _covered_lsn(self) -> int:
        """How far the log could be forgotten: past everything, when no operation waits for its seal."""
        covered = self._manifest.checkpoint_lsn

        def look() -> None:
            # Between two groups: an operation applied while we look would be forgotten with the log.
            nonlocal covered
            active = self._store.active
            if not (self._store.frozen() or active.n or active.kills or active.tombstones):
                covered = max(covered, self._store.snapshot.lsn)

        self._replica.exclusively(look)
        return covered

    def tidy(self) -> None:
        """At a clean close, after :meth:`stop`: keep no file on disk that the newest manifest does not need."""
        while self._retire():
            pass
        self.remove_garbage()
        covered = self._covered_lsn()
        if self._replica.log_bytes_since(0) > _STALE_LOG_BYTES and all(
            m.checkpoint_lsn >= covered for m in self._manifests.kept
        ):
            self._replica.restart_log()
            self._replica.drop_log(covered)

    def remove_garbage(self) -> None:
        """Remove files that no kept manifest names. Readers keep what they have mapped."""
        with self._structure:
            try:
                self._manifests.remove(self._manifests.garbage(keep_segments=self._busy_segments))
            except OSError as error:
                self.note_error(error)

    # -- reporting -----------------------------------------------------------------------------------

    def note_error(self, error: BaseException | None) -> None:
        """Keep what went wrong last in the background, for ``stats``; None when it went well again."""
        self._last_error = None if error is None else f"{type(error).__name__}: {error}"

    def settled(self) -> bool:
        """Whether all sealed rows are merged and indexed as the policies want them."""
        return not self._store.frozen() and not self._waiting_for_index() and not self._choose(True)

    def progress(self) -> Progress:
        """How far background work is."""
        snapshot = self._store.snapshot
        buffers = [p for p in snapshot.parts if isinstance(p, BufferPart)]
        waiting = self._waiting_for_index()
        return Progress(
            frozen_buffers=len(buffers) - 1,
            unindexed_rows=sum(p.n for p in buffers) + sum(p.n for p in waiting),
            index_queue=len(waiting),
            building_rows=self._building[0],
            building_total=self._building[1],
            merging=self._merging.locked(),
            last_error=self._last_error,
        )


def _reusable(part: SegmentPart, dead: Deletes) -> bool:
    """Whether a merge can start from this segment's graph: it has one and every row of it stays."""
    return part.index is not None and may_grow(part.index.kind) and not dead.count


__all__ = ["Maintenance", "Progress"]

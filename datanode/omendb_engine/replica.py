"""The engine's face: one replica, one folder, one writer.

Order of effects of a write, kept by :meth:`Replica._commit`: validated, THEN memory reserved, THEN appended
to the log, THEN durable, THEN seen by readers, THEN acknowledged. A large group is applied while it is synced, where
no reader looks. Everything else (sealing, indexing, merging) is :mod:`omendb_engine.maintenance`, behind the writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.clock import Clock
from omendb_common.config import EngineSettings
from omendb_common.disk import Disk
from omendb_common.errors import (
    InvalidArgumentError,
    OmenDBError,
    ReplicaFailedError,
    ResourceExhaustedError,
)
from omendb_common.filters import Filter
from omendb_common.hlc import STAMP_MAX, HybridLogicalClock
from omendb_common.ids import IdColumn, U64Array
from omendb_common.records import Buffer, Op, WriteBatch
from omendb_common.schema import CollectionSchema
from omendb_engine.agreement import Agreements
from omendb_engine.apply import take_batch
from omendb_engine.ballast import Ballast, DiskGuard, DiskWatermarks, SpaceLevel, WriteKind
from omendb_engine.beside import Beside
from omendb_engine.claim_writes import take_claims
from omendb_engine.commit import GroupCommit
from omendb_engine.disk_errors import disk_error, translated
from omendb_engine.folding import last_rows
from omendb_engine.hash_tree import HashTrees
from omendb_engine.maintenance import Maintenance
from omendb_engine.operation import Operation, WriteResult, as_exhausted, fail_all
from omendb_engine.parts import BufferPart, Snapshot
from omendb_engine.query.reads import Reader
from omendb_engine.recovery import BUFFERS, Recovered, create_replica, recover
from omendb_engine.resources import Resources
from omendb_engine.stamped import StampedResult, StampedWrite, check_stamped, check_vectors
from omendb_engine.statistics import ReplicaStats, folder_bytes, growing_rows, index_progress, segment_stats
from omendb_engine.verdicts import check_existing, check_versions, judge, refuse_taken
from omendb_engine.wal.prepare import WalFailedError, WalSettings
from omendb_engine.wal.record import RecordType, WalEntry
from omendb_engine.wal.writer import WalWriter

# Below this much log the work that the sync would cover is no more than waking a second thread for it.
_BESIDE_BYTES_MIN = 128 << 10

_KINDS: dict[Op, WriteKind] = {Op.UPSERT: "upsert", Op.UPDATE: "update", Op.DELETE: "delete"}


class Replica(Reader):
    """A replica opened for writing. Thread-safe; see :class:`Reader` for the reads."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        recovered: Recovered,
        resources: Resources,
        settings: EngineSettings,
        clock: Clock,
        *,
        prepare: Executor | None = None,
        wake: Callable[[], None] = lambda: None,
        keep_tombstones: bool = False,
    ) -> None:
        super().__init__(recovered.schema, resources, clock, settings.index.recall_target)
        self.disk = disk
        self.path = path
        self.cores = os.cpu_count() or 1
        self.settings = settings
        self.durability = settings.storage.durability
        self.keep_tombstones = keep_tombstones
        self._store = recovered.store
        self._hlc = HybridLogicalClock(clock, last=recovered.last_stamp)
        self._wal = WalWriter(
            disk,
            f"{path}/wal",
            identity=recovered.identity,
            resume=recovered.wal_end,
            settings=WalSettings(segment_bytes=settings.storage.wal_segment_bytes),
            prepare=prepare,
        )
        marks = DiskWatermarks(settings.storage.disk_high_percent, settings.storage.disk_full_percent)
        self._guard = DiskGuard(disk, path, clock, marks)
        self._ballast = Ballast(disk, path)
        self._commits: GroupCommit[Operation] = GroupCommit(self._commit, group_bytes=settings.storage.wal_group_bytes)
        # Where there are no threads, as in a simulation, there is none for this either.
        self._beside = Beside() if prepare is not None and self.durability == "fsync" else None
        self._beside_bytes_min = _BESIDE_BYTES_MIN
        self._ahead = prepare
        self._failure: BaseException | None = None
        self._closed = False
        self._next_auto_id = self._store.next_auto_id
        self._last_write_s = clock.mono_s()
        self.maintenance = Maintenance(self, recovered, wake)
        self.hash_trees = HashTrees(self.snapshot, self.schema)
        self.agreements = Agreements(self.exclusively)
        self._store.watching = self.agreements

    # -- opening ---------------------------------------------------------------------------------

    @staticmethod
    def create(disk: Disk, path: str, schema: CollectionSchema, clock: Clock) -> None:
        """Make the folder of an empty replica, durably."""
        create_replica(disk, path, schema, clock)

    @staticmethod
    def open(
        disk: Disk,
        path: str,
        replica_uuid: str,
        resources: Resources,
        settings: EngineSettings,
        clock: Clock,
        *,
        prepare: Executor | None = None,
        wake: Callable[[], None] = lambda: None,
        keep_tombstones: bool = False,
    ) -> Replica:
        """Recover the replica in ``path`` and open it for writing.

        Args:
            prepare: makes the next log segment ahead of need; None: made when needed.
            wake: called when there is background work to do.
            keep_tombstones: remember deletions above ``gc_floor`` for as long as it takes; where nothing can arrive
                that is older than what was applied they are forgotten with the next seal.

        Raises:
            CorruptionError: damage that recovery must not pass over; ``omendb repair`` salvages.
            FormatVersionError: a newer release wrote the folder.
        """
        recovered = recover(disk, path, replica_uuid, resources, settings)
        return Replica(
            disk,
            path,
            recovered,
            resources,
            settings,
            clock,
            prepare=prepare,
            wake=wake,
            keep_tombstones=keep_tombstones,
        )

    # -- reads -----------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The newest acknowledged state, immutable."""
        if self._closed:
            raise self._closed_error()
        return self._store.snapshot

    @property
    def failed(self) -> bool:
        """Whether a failed write or fsync stopped this replica."""
        return self._failure is not None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def writing(self) -> bool:
        """Whether the replica takes writes."""
        return not self._closed and self._failure is None

    # -- writes ----------------------------------------------------------------------------------

    def upsert(
        self,
        ids: IdColumn | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        n: int,
        *,
        create_only: bool = False,
        versions: U64Array | None = None,
    ) -> WriteResult:
        """Insert or replace ``n`` points; durable and searchable when it returns.

        Args:
            ids: their ids; None makes integers above every integer id the collection ever had.
            vectors: per vector field an (n, dimension) array of the field's dtype, finite.
            payload: typed columns (see :mod:`omendb_common.payload`).
            create_only: refuse the whole batch if any id exists.
            versions: (n,) refuse it unless each point has this version, 0: it must not exist; the ids differ then.

        Of several rows with one id the last wins. The caller keeps the arrays unchanged until the call returns.

        Raises:
            InvalidArgumentError: shapes, dtypes or sizes do not fit; nothing was written.
            AlreadyExistsError: ``create_only`` and an id exists.
            VersionConflictError: a point has another version than ``versions`` says.
            ResourceExhaustedError: no memory or disk for it now; nothing was written.
            ReplicaFailedError: the log could not be written; the outcome is unknown until reopening.
        """
        self._check_writable()
        self._check_vectors(vectors, n)
        auto = ids is None
        # Automatic ids are drawn when the group is formed: until then other writers may use ids of their own.
        ids = IdColumn(np.zeros(max(n, 0), np.uint64), None) if ids is None else ids
        if len(ids) != n:
            raise InvalidArgumentError(f"{len(ids)} ids for {n} vectors", field="ids", bound=f"{n} ids")
        batch = WriteBatch(Op.UPSERT, ids, vectors, payload)
        if not auto:
            keep = last_rows(ids)
            if keep is not None:
                batch = take_batch(batch, keep)
        result = self._submit(Operation.of(batch, auto=auto, create_only=create_only, versions=versions))
        return WriteResult(ids, result.count, result.stamp, result.lsn, result.durability)

    def update(
        self,
        ids: IdColumn,
        vectors: Mapping[str, npt.NDArray[Any]] | None,
        payload: pa.RecordBatch | None,
        *,
        unset: Sequence[str] = (),
        versions: U64Array | None = None,
    ) -> WriteResult:
        """Change some fields of existing points (that have these ``versions``); all other fields stay.

        A top-level payload key is replaced in the rows that give it a value; keys in ``unset`` are removed from all.

        Raises:
            NotFoundError: an id does not exist; nothing was written.
            InvalidArgumentError, ResourceExhaustedError, ReplicaFailedError, VersionConflictError: as :meth:`upsert`.
        """
        self._check_writable()
        for name, array in (vectors or {}).items():
            check_vectors(self.schema, name, array, len(ids))
        batch = WriteBatch(Op.UPDATE, ids, dict(vectors or {}), payload, None, tuple(unset))
        keep = last_rows(ids)
        if keep is not None:
            batch = take_batch(batch, keep)
        result = self._submit(Operation.of(batch, versions=versions))
        return WriteResult(ids, result.count, result.stamp, result.lsn, result.durability)

    def delete(self, ids: IdColumn, *, versions: U64Array | None = None) -> WriteResult:
        """Delete points (that have these ``versions``). ``count`` is how many did exist."""
        self._check_writable()
        keep = last_rows(ids)
        batch = WriteBatch(Op.DELETE, ids if keep is None else ids.take(keep))
        return self._submit(Operation.of(batch, versions=versions))

    def delete_where(self, condition: Filter) -> WriteResult:
        """Delete the points that match now: the filter is resolved to ids first, so the log holds ids only."""
        self._check_writable()
        return self.delete(self.matching_ids(condition))

    def apply_stamped(self, batch: WriteBatch) -> WriteResult:
        """Write a batch whose rows carry stamps of their own: a row older than what its point has is ignored.

        For repair and replication, which move points with their history. Ids differ within the batch.
        """
        self._check_writable()
        return self._submit(Operation.of(batch))

    def write_at(
        self, batch: WriteBatch, stamp: int, body: Sequence[Buffer] | None = None, *, create_only: bool = False
    ) -> StampedResult:
        """Write a batch under a stamp that somebody else made; see :class:`StampedWrite` and its result.

        Raises:
            AlreadyExistsError: ``create_only`` and an id is live under another stamp; nothing was written.
            InvalidArgumentError, ResourceExhaustedError, ReplicaFailedError: as :meth:`upsert`.
        """
        (outcome,) = self.write_all([StampedWrite(batch, stamp, body, create_only)])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def write_all(self, writes: Sequence[StampedWrite]) -> list[StampedResult | BaseException]:
        """Write several batches that came with their stamps in as few groups as may be; each has its own outcome."""
        found: list[Operation | OmenDBError] = []
        for write in writes:
            try:
                self._check_writable()
                check_stamped(self.schema, write)
                found.append(Operation.of(write.batch, body=write.body, write=write))
            except OmenDBError as error:
                found.append(error)
        if self.resources.budget.pressed:
            self.maintenance.relieve()
        self._commits.submit_all([operation for operation in found if isinstance(operation, Operation)])
        return [(o.error or o.outcome()) if isinstance(o, Operation) else o for o in found]

    # -- the write path ----------------------------------------------------------------------------

    def _submit(self, operation: Operation) -> WriteResult:
        if self.resources.budget.pressed:
            self.maintenance.relieve()
        self._commits.submit(operation)
        assert operation.result is not None
        return operation.result

    def _commit(self, group: Sequence[Operation]) -> None:
        """Log, sync and apply a group; sets the outcome of every operation in it."""
        if any(operation.stamp for operation in group):
            # Who waits together has no order yet. In that of their stamps most rows need no comparison, and none has
            # to wait for the one before it to be applied.
            group = sorted(group, key=lambda operation: operation.stamp or STAMP_MAX)
        try:
            self._check_writable()
            ready = [operation for operation in group if self._admitted(operation)]
            if ready:
                self._make_room(ready)
        except (OmenDBError, MemoryError) as error:
            fail_all(group, as_exhausted(error))
            return
        if not ready:
            return
        try:
            try:
                self._log_and_apply(ready)
            except ResourceExhaustedError as error:  # the log found no space before it wrote a byte
                ready = self._deletes_alone(ready, error)
                self._log_and_apply(ready)
        except ResourceExhaustedError as error:
            self._give_back(ready)
            fail_all(ready, error)
        except WalFailedError as error:
            self.fail(error)
            fail_all(ready, self._failed_error(error))
        except BaseException as error:
            # Log and memory may now differ; only recovery from the log makes them one again.
            self.fail(error)
            fail_all(ready, self._failed_error(error))
            raise

    def _log_and_apply(self, ready: Sequence[Operation]) -> None:
        if not ready:
            return
        first = self._append(ready)
        if self._beside is not None and sum(o.size for o in ready) >= self._beside_bytes_min:
            with self._beside.running(lambda: self._stage(ready, first)):
                self._settle()
        else:
            self._settle()
            self._stage(ready, first)
        self._store.publish()
        self._acknowledge(ready, first)
        self._provide_ahead()

    def _deletes_alone(self, ready: Sequence[Operation], error: ResourceExhaustedError) -> list[Operation]:
        """On a full disk throw off the ballast, and let only those have the space who free some in the end."""
        freed = 0
        with suppress(OSError):
            freed = self._ballast.release()
        deletes = [o for o in ready if o.batch.op is Op.DELETE] if freed else []
        others = [o for o in ready if o not in deletes]
        self._give_back(others)
        fail_all(others, error)
        return deletes

    def _admitted(self, operation: Operation) -> bool:
        """Checks that need the state just before the operation; False when it failed."""
        batch = operation.batch
        try:
            self._guard.check(_KINDS[batch.op], operation.size)
            if operation.stamped:
                if not self._decided(operation):
                    return False
            elif operation.versions is not None:
                check_versions(self._store.snapshot, batch.ids, operation.versions)
            elif operation.solo:
                check_existing(self._store.snapshot, operation.batch, create_only=operation.create_only)
            if operation.auto:
                self._draw_ids(batch.ids)
            elif batch.op is Op.UPSERT:
                self._next_auto_id = max(self._next_auto_id, batch.ids.int_max() + 1)
            elif batch.op is Op.UPDATE:
                # Made before the log has it: a merge that is refused later would be refused at every recovery.
                operation.plan = self._store.plan_update(operation.batch, operation.stamp or None)
        except OSError as error:
            operation.error, operation.done = disk_error(error, "asking the volume for its space"), True
        except OmenDBError as error:
            operation.error, operation.done = error, True
        return not operation.done

    def _decided(self, operation: Operation) -> bool:
        """Decide on every row of a write that came with its stamp; False when nothing is left to be logged."""
        batch, snapshot = operation.batch, self._store.snapshot
        if operation.create_only:
            refuse_taken(snapshot, batch.ids, operation.stamp)
        floor = self.maintenance.gc_floor
        if operation.versions is not None:
            late = check_versions(snapshot, batch.ids, operation.versions, operation.stamp)
            if late is not None:
                operation.conclude(late, snapshot.lsn, self.durability)
                return False
        if operation.claim:
            return take_claims(operation, snapshot, self._store.claims_above(floor), floor, self.durability)
        believed = 0 if operation.settled else floor
        if operation.stamp > max(self._store.max_stamp, believed) and not operation.solo:
            return True  # newer than all that was applied: no row can lose
        claims = self._store.claims_above(floor)
        verdicts = operation.verdicts = judge(snapshot, batch, operation.stamp, believed, claims, tied=operation.tied)
        if not len(verdicts.keep):
            operation.conclude(verdicts, snapshot.lsn, self.durability)
        elif len(verdicts.keep) < batch.rows:
            operation.take(verdicts.keep)
        return not operation.done

    def claims_on(self, ids: IdColumn) -> IdColumn:
        """Ids of the claims on points that are open here, for the thread that writes."""
        return self._store.claims_above(self.maintenance.gc_floor).marked(ids)

    def _make_room(self, ready: Sequence[Operation]) -> None:
        rows = sum(o.batch.rows for o in ready if o.batch.op is not Op.DELETE)
        if not self._store.has_room(rows):
            capacity = self._store.next_capacity(rows)
            self.resources.budget.reserve(BUFFERS, self._store.buffer_bytes(capacity))
            self._store.freeze(capacity)
            self.maintenance.wake()
        for operation in ready:
            operation.extra_bytes = self._store.extra_bytes(operation.batch, operation.plan)
        extra = sum(o.extra_bytes for o in ready)
        self.resources.budget.reserve(BUFFERS, extra)
        self._store.active.reserved_bytes += extra

    def _give_back(self, operations: Sequence[Operation]) -> None:
        """Release what ``_make_room`` took for operations that were not logged."""
        extra = sum(o.extra_bytes for o in operations)
        self._store.active.reserved_bytes -= extra
        self.resources.budget.release(BUFFERS, extra)

    def _append(self, ready: Sequence[Operation]) -> int:
        """Append the group to the log; returns its first LSN."""
        entries = []
        for operation in ready:
            if operation.stamp:
                self._hlc.observe(operation.stamp)
            else:
                operation.stamp = self._hlc.tick()
            entries.append(WalEntry(RecordType.OPS, operation.stamp, operation.batch.rows, operation.parts))
        return self._wal.append(entries) - len(ready) + 1

    def _settle(self) -> None:
        """Make what was appended as durable as asked."""
        if self.durability == "fsync":
            self._wal.sync()
        else:
            self._wal.publish()

    def _stage(self, ready: Sequence[Operation], first: int) -> None:
        """Apply the group behind the readers' backs: whether it is durable may not be known yet."""
        for lsn, o in enumerate(ready, first):
            o.applied = self._store.stage(o.batch, o.stamp, lsn, fresh=o.auto, plan=o.plan)

    def _acknowledge(self, ready: Sequence[Operation], first: int) -> None:
        for lsn, operation in enumerate(ready, first):
            assert operation.applied is not None
            count = operation.applied.count
            operation.result = WriteResult(operation.batch.ids, count, operation.stamp, lsn, self.durability)
            operation.done = True
        self._last_write_s = self._clock.mono_s()

    def _provide_ahead(self) -> None:
        """Have memory for the rows to come provided in the background."""
        if self._ahead is None:
            return
        buffer = self._store.active
        # After a first full buffer more will come.
        first, stop = buffer.cold_rows(whole=buffer.part_id < -1)
        if stop > first:
            self._ahead.submit(buffer.memory.provide, first, stop)

    def _draw_ids(self, ids: IdColumn) -> None:
        """Fill in automatic ids: above every integer id of the operations before."""
        assert ids.ints is not None
        first, stop = self._next_auto_id, self._next_auto_id + len(ids)
        if stop > 1 << 64:
            raise InvalidArgumentError(
                "an id near 2**64 is in use, no automatic ids are left above it", field="ids", mend="give ids"
            )
        ids.ints[:] = np.arange(len(ids), dtype=np.uint64) + np.uint64(first)
        self._next_auto_id = stop

    # -- checks ------------------------------------------------------------------------------------

    def _check_vectors(self, vectors: Mapping[str, npt.NDArray[Any]], n: int) -> None:
        names = {f.name for f in self.schema.vectors}
        if set(vectors) != names:
            raise InvalidArgumentError(
                f"got fields {sorted(vectors)}", field="vectors", bound=f"fields {sorted(names)}"
            )
        if n < 1:
            raise InvalidArgumentError("the batch is empty", field="vectors", bound="at least one point")
        for name, array in vectors.items():
            check_vectors(self.schema, name, array, n)

    def _check_writable(self) -> None:
        if self._closed:
            raise self._closed_error()
        if self._failure is not None:
            raise self._failed_error(self._failure, outcome_unknown=False)

    def _failed_error(self, cause: BaseException, *, outcome_unknown: bool = True) -> ReplicaFailedError:
        return ReplicaFailedError(
            f"a write to the log failed ({cause}); nothing is acknowledged any more",
            field=self.path,
            mend="close the database and open it again: it recovers from the log",
            outcome="unknown" if outcome_unknown else "none",
        )

    # -- background work on demand -----------------------------------------------------------------

    def flush(self) -> None:
        """Turn everything written so far into segments, now."""
        self._check_writable()
        with translated("sealing"):
            self.maintenance.flush()

    def compact(self) -> None:
        """Seal, merge and clean all that the policy would when idle, now."""
        self.flush()
        with translated("merging"):
            while self.maintenance.merge_one(idle=True):
                pass

    def wait_until_indexed(self, timeout_s: float) -> bool:
        """Seal, merge and index everything; whether that was done within ``timeout_s`` seconds."""
        self._check_writable()
        deadline = self._clock.mono_s() + timeout_s
        with translated("indexing"):
            self.maintenance.flush()
            self.maintenance.hurry(True)
            try:
                while not self.maintenance.settled():
                    left = deadline - self._clock.mono_s()
                    if left <= 0:
                        return False
                    self._check_writable()
                    if self.settings.workers.background_threads:
                        self.maintenance.wake()
                    elif self.maintenance.work():
                        continue
                    self.maintenance.wait_for_change(min(left, 0.05))
                return True
            finally:
                self.maintenance.hurry(False)

    def stats(self) -> ReplicaStats:
        """Numbers about this replica."""
        snapshot = self.snapshot()
        progress = self.maintenance.progress()
        segments = segment_stats(snapshot)
        budget = self.resources.budget
        return ReplicaStats(
            points=snapshot.live,
            growing_rows=growing_rows(snapshot),
            segments=segments,
            unindexed_rows=progress.unindexed_rows,
            index_queue=progress.index_queue,
            index_progress=index_progress(progress),
            durable_lsn=self.durable_lsn,
            applied_lsn=snapshot.lsn,
            durability=self.durability,
            disk_bytes=folder_bytes(self.disk, self.path),
            memory_bytes=budget.account(),
            memory_limit_bytes=budget.limit_bytes,
            failed=self.failed,
            last_error=progress.last_error,
        )

    # -- ending --------------------------------------------------------------------------------------

    def fail(self, cause: BaseException) -> None:
        """Stop acknowledging, for good (until reopened)."""
        if self._failure is None:
            self._failure = cause

    def check_alive(self) -> None:
        """ReplicaFailedError once a write to the log failed."""
        if self._failure is not None:
            raise self._failed_error(self._failure, outcome_unknown=False)

    def exclusively(self, action: Callable[[], None]) -> None:
        """Run ``action`` while no group is being committed."""
        self._commits.run_exclusive(action)

    def raise_floors(self, *, gc_floor: int = 0, fence_epoch: int = 0, repaired_through: int = 0) -> None:
        """Raise, durably, the floors of collection, of the shard's epoch and of repair; see :class:`Maintenance`."""
        self._check_writable()
        with translated("writing the manifest"):
            self.maintenance.raise_floors(gc_floor=gc_floor, fence_epoch=fence_epoch, repaired_through=repaired_through)

    def sync(self) -> None:
        """Make everything acknowledged so far durable, whatever the durability mode."""
        self._check_writable()
        self.exclusively(self.sync_log)

    def sync_log(self) -> None:
        """Sync the log if it has anything unsynced; the caller has exclusivity."""
        if self._wal.durable_lsn >= self._wal.last_lsn or self._failure is not None:
            return
        try:
            self._wal.sync()
        except WalFailedError as error:
            self.fail(error)
            raise self._failed_error(error) from error

    # -- what maintenance asks ---------------------------------------------------------------------

    @property
    def durable_lsn(self) -> int:
        """Newest log record known to be on stable storage."""
        return self._wal.durable_lsn

    @property
    def last_stamp(self) -> int:
        """The greatest stamp that was made or seen here."""
        return self._hlc.last

    @property
    def newest_stamp(self) -> int:
        """The greatest stamp of what was applied."""
        return self._store.max_stamp

    @property
    def next_auto_id(self) -> int:
        """The next automatic id."""
        return self._next_auto_id

    def now_s(self) -> float:
        """Monotonic seconds."""
        return self._clock.mono_s()

    def quiet_s(self) -> float:
        """Seconds since the last write."""
        return self._clock.mono_s() - self._last_write_s

    @property
    def space_level(self) -> SpaceLevel:
        """How full the volume is. OSError: it could not be asked."""
        return self._guard.level()

    def disk_is_high(self) -> bool:
        """Whether the volume is past the mark above which nothing may grow."""
        return self.space_level != "ok"

    def log_bytes_since(self, lsn: int) -> int:
        """Bytes of log after a position: what a start would replay."""
        return self._wal.bytes_since(lsn)

    def keep_ballast(self) -> None:
        """Hold space in reserve once the log has outgrown its first file; a small database stays small."""
        if self._wal.rotations and not self.disk_is_high():
            self._ballast.establish(self._wal.segment_bytes, self.settings.storage.ballast_bytes)

    def free_disk_bytes(self) -> int:
        """Space left on the volume."""
        return self.disk.usage(self.path).free_bytes

    def restart_log(self) -> None:
        """Go on in a new log segment, so that the current one can be dropped."""
        self.exclusively(self._wal.rotate)

    def drop_log(self, through_lsn: int) -> None:
        """Remove log segments that no kept manifest needs."""
        self._wal.drop_through(through_lsn)

    def close(self) -> None:
        """Stop the workers, make the log durable, and close; twice is fine."""
        if self._closed:
            return
        self.maintenance.stop()
        if self._failure is None:
            try:
                self.maintenance.tidy()
            except (OmenDBError, OSError) as error:
                # It costs space only; what matters is that the log is closed.
                self.maintenance.note_error(error)
        self._closed = True
        try:
            # After a failure of the log this syncs nothing, and only closes the files.
            self._commits.run_exclusive(self._wal.close)
        finally:
            if self._beside is not None:
                self._beside.close()
            for part in self._store.snapshot.parts:
                if isinstance(part, BufferPart):
                    self.resources.budget.release(BUFFERS, part.buffer.reserved_bytes)


__all__ = ["Replica", "WriteResult"]

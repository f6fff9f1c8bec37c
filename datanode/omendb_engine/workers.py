"""The background threads of one open folder, shared by all its replicas.

The first thread seals and merges, the second builds indexes (minutes long, so it must not hold up a seal);
with one thread it does both, with more the extra ones help with whatever waits. A further thread syncs the
log when durability is ``interval``. A job that fails is noted in the replica's statistics and tried again
after a pause that doubles up to a minute; the replica keeps serving.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Sequence

from omendb_common.config import EngineSettings
from omendb_common.errors import OmenDBError
from omendb_engine.replica import Replica

_PAUSE_MAX_S = 60.0
# What a job may end with and be tried again: our errors, the system's, and what Faiss, Arrow and NumPy raise (a
# thread that died of one would leave the replica without background work for good, and tell nobody).
_SURVIVABLE = (OmenDBError, OSError, MemoryError, RuntimeError, ValueError, LookupError, AssertionError)


class Workers:
    """Runs maintenance until stopped. ``replicas`` returns the replicas open now."""

    def __init__(self, replicas: Callable[[], Sequence[Replica]], settings: EngineSettings) -> None:
        # Weakly, so that threads do not keep a folder alive that its owner forgot to close: they end with it.
        self._find: Callable[[], Callable[[], Sequence[Replica]] | None] = (
            weakref.WeakMethod(replicas) if inspect.ismethod(replicas) else lambda: replicas
        )
        self._settings = settings
        self._condition = threading.Condition()
        self._generation = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads that the settings ask for."""
        count = self._settings.workers.background_threads
        for number in range(count):
            jobs = _JOBS if count == 1 else (_SEAL_JOBS if number % 2 == 0 else _INDEX_JOBS)
            self._spawn(f"omendb-worker-{number}", self._loop, jobs)
        if self._settings.storage.durability == "interval":
            self._spawn("omendb-sync", self._sync_loop)

    def _spawn(self, name: str, target: Callable[..., None], *args: object) -> None:
        # Daemon: a process that ends without close() must not hang; the log makes that safe.
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def wake(self) -> None:
        """Something may be due."""
        with self._condition:
            self._generation += 1
            self._condition.notify_all()

    def stop(self) -> None:
        """End the threads; returns when the last job has ended."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _loop(self, jobs: Sequence[Callable[[Replica], bool]]) -> None:
        pause = interval = self._settings.compaction.interval_s
        while not self._stopping and self._find() is not None:
            seen = self._generation
            worked, failed = self._round(jobs)
            if worked:
                pause = interval
                continue
            pause = min(pause * 2, _PAUSE_MAX_S) if failed else interval
            with self._condition:
                if not self._stopping and (failed or self._generation == seen):
                    self._condition.wait(pause)

    def _open_replicas(self) -> Sequence[Replica]:
        replicas = self._find()
        return () if replicas is None else replicas()

    def _round(self, jobs: Sequence[Callable[[Replica], bool]]) -> tuple[bool, bool]:
        worked = failed = False
        for replica in self._open_replicas():
            for job in jobs:
                if self._stopping or not replica.writing:
                    break
                try:
                    if job(replica):
                        worked = True
                        replica.maintenance.note_error(None)
                except _SURVIVABLE as error:
                    failed = True
                    replica.maintenance.note_error(error)
        return worked, failed

    def _sync_loop(self) -> None:
        pause = self._settings.storage.interval_ms / 1e3
        while not self._stopping and self._find() is not None:
            for replica in self._open_replicas():
                if replica.writing:
                    try:
                        replica.sync()
                    except OmenDBError as error:  # the replica has failed for good; its writers are told
                        replica.maintenance.note_error(error)
            with self._condition:
                if not self._stopping:
                    self._condition.wait_for(lambda: self._stopping, pause)


def _seal(replica: Replica) -> bool:
    return replica.maintenance.seal_one() or replica.maintenance.seal_if_due()


def _merge(replica: Replica) -> bool:
    return replica.maintenance.merge_one()


def _index(replica: Replica) -> bool:
    return replica.maintenance.index_one()


def _retire(replica: Replica) -> bool:
    return replica.maintenance.retire_one()


_SEAL_JOBS = (_seal, _merge)
_INDEX_JOBS = (_index, _retire)
_JOBS = (_seal, _merge, _index, _retire)

__all__ = ["Workers"]

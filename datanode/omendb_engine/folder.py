"""One database folder with many collections: what ``omendb.open`` opens.

::

    my.db/
      catalog.json            which collections exist (checksummed, replaced by rename)
      LOCK                    the writer's lock and pid
      collections/<uuid>/     one replica each
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Literal, cast

from omendb_common.clock import Clock, SystemClock
from omendb_common.config import EngineSettings
from omendb_common.disk import Disk, RealDisk, make_folder, parent_of
from omendb_common.errors import (
    CorruptionError,
    DatabaseClosedError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    Outcome,
    ReadOnlyError,
    UnavailableError,
)
from omendb_common.schema import CollectionSchema, check_collection_name
from omendb_engine.catalog import CATALOG_NAME, Catalog, read_catalog, write_catalog
from omendb_engine.disk_errors import disk_error, translated
from omendb_engine.follower import Follower
from omendb_engine.lock import ALIVE_NAME, LOCK_NAME, WriterLock, writer_is_alive
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from omendb_engine.segment.layout import remove_path
from omendb_engine.workers import Workers

Mode = Literal["rw", "r"]
COLLECTIONS = "collections"
NewUuid = Callable[[], str]


def random_uuid() -> str:
    """A new random uuid, as text."""
    return str(uuid.uuid4())


class Folder:
    """An open database folder. Thread-safe."""

    def __init__(
        self,
        path: str,
        mode: Mode,
        settings: EngineSettings,
        disk: Disk,
        clock: Clock,
        lock: WriterLock | None,
        new_uuid: NewUuid,
        writer_alive: Callable[[], bool],
    ) -> None:
        self.path = path
        self.mode: Mode = mode
        self.settings = settings
        self.resources = Resources(settings)
        self._disk = disk
        self._clock = clock
        self._lock = lock
        self._new_uuid = new_uuid
        self._writer_alive = writer_alive
        self._guard = threading.RLock()
        self._closed = False
        self._replicas: dict[str, Replica | Follower] = {}
        self._catalog = read_catalog(disk, path)
        self._workers: Workers | None = None
        self._prepare: ThreadPoolExecutor | None = None
        if mode == "rw":
            self._start()

    @staticmethod
    def open(
        path: str,
        *,
        mode: Mode = "rw",
        settings: EngineSettings | None = None,
        disk: Disk | None = None,
        clock: Clock | None = None,
        lock: bool = True,
        new_uuid: NewUuid = random_uuid,
    ) -> Folder:
        """Open the database in ``path``; with mode ``rw`` make it when there is none.

        Args:
            disk, clock, new_uuid: the ports, for simulations.
            lock: take the writer lock (a simulated disk has no other processes).

        Raises:
            NotFoundError: mode ``r`` and nothing is there.
            InvalidArgumentError: the path is a file, or a folder with something else in it.
            DatabaseLockedError: another process writes to it.
            CorruptionError, FormatVersionError: see :meth:`Replica.open`.
        """
        if mode not in ("rw", "r"):
            raise InvalidArgumentError(f"got {mode!r}", field="mode", bound='"rw" or "r"')
        settings = settings or EngineSettings()
        disk = disk or RealDisk(no_mmap=settings.storage.no_mmap)
        _check_place(disk, path, mode)
        held = None
        if mode == "rw":
            make_folder(disk, path)
            held = WriterLock(path) if lock else None
        try:
            with translated("opening the database"):
                if mode == "rw" and not disk.exists(f"{path}/{CATALOG_NAME}"):
                    _begin(disk, path, new_uuid)
                alive = (lambda: writer_is_alive(path)) if lock else (lambda: False)
                return Folder(path, mode, settings, disk, clock or SystemClock(), held, new_uuid, alive)
        except BaseException:
            if held is not None:
                held.release()
            raise

    def _start(self) -> None:
        self._remove_orphans()
        if self.settings.workers.background_threads:
            self._prepare = ThreadPoolExecutor(2, thread_name_prefix="omendb-wal")
        self._workers = Workers(self._open_replicas, self.settings)
        try:
            for name in self._catalog.collections:
                self._open(name)
        except BaseException:
            for opened in self._replicas.values():
                opened.close()
            if self._prepare is not None:
                self._prepare.shutdown()
            raise
        self._workers.start()

    def _remove_orphans(self) -> None:
        """Folders of collections whose creation or removal a crash cut short."""
        known = set(self._catalog.collections.values())
        folder = f"{self.path}/{COLLECTIONS}"
        orphans = [n for n in self._disk.listdir(folder) if n not in known] if self._disk.exists(folder) else []
        # On a full or failing disk they stay until the next start.
        with suppress(OSError):
            if orphans:
                # A catalog whose replacement was not synced may still give way to an older one, which names them.
                write_catalog(self._disk, self.path, self._catalog)
            for name in orphans:
                remove_path(self._disk, f"{folder}/{name}")

    def _open_replicas(self) -> list[Replica]:
        with self._guard:
            return [r for r in self._replicas.values() if isinstance(r, Replica)]

    def _replica_path(self, replica_uuid: str) -> str:
        return f"{self.path}/{COLLECTIONS}/{replica_uuid}"

    def _open(self, name: str) -> Replica | Follower:
        replica_uuid = self._catalog.uuid_of(name)
        path = self._replica_path(replica_uuid)
        opened: Replica | Follower
        with translated("opening a collection"):
            if self.mode == "r":
                opened = Follower(
                    self._disk,
                    path,
                    replica_uuid,
                    self.resources,
                    self.settings,
                    self._clock,
                    writer_alive=self._writer_alive,
                    listed=lambda: replica_uuid in read_catalog(self._disk, self.path).collections.values(),
                )
            else:
                assert self._workers is not None
                opened = Replica.open(
                    self._disk,
                    path,
                    replica_uuid,
                    self.resources,
                    self.settings,
                    self._clock,
                    prepare=self._prepare,
                    wake=self._workers.wake,
                )
        self._replicas[replica_uuid] = opened
        return opened

    # -- collections ---------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of the collections, sorted."""
        with self._guard:
            self._check_open()
            self._follow_catalog()
            return sorted(self._catalog.collections)

    def replica(self, name: str) -> Replica:
        """The replica of a collection; NotFoundError when there is none.

        With mode ``r`` this is a follower, which has only the reads.
        """
        with self._guard:
            self._check_open()
            self._follow_catalog()
            replica_uuid = self._catalog.uuid_of(name)
            found = self._replicas.get(replica_uuid)
            return cast(Replica, self._open(name) if found is None else found)

    def by_uuid(self, collection_uuid: str) -> Replica | None:
        """The open replica of the collection with that uuid, None when there is none (any more).

        Never waits: a server's event loop asks, and whoever makes or drops a collection meanwhile waits for the disk.
        """
        found = self._replicas.get(collection_uuid)  # one step, which needs no lock
        return found if isinstance(found, Replica) else None

    def create(self, name: str, schema: CollectionSchema) -> Replica:
        """Create a collection, durably; AlreadyExistsError when the name is taken."""
        check_collection_name(name)
        with self._guard:
            self._check_writable()
            catalog = self._catalog.added(name, schema.uuid)
            with translated("creating a collection"):
                Replica.create(self._disk, self._replica_path(schema.uuid), schema, self._clock)
            self._put_catalog(catalog)
            try:
                opened = self._open(name)
            except OmenDBError as error:
                self._take_back(name, error)
                raise
            assert isinstance(opened, Replica)
            return opened

    def _take_back(self, name: str, cause: OmenDBError) -> None:
        """A collection that was made and cannot be opened goes again, so that its error tells the truth."""
        try:
            self._put_catalog(self._catalog.removed(name))
        except OmenDBError:
            raise UnavailableError(
                f"the collection was made and could not be opened: {cause}", field=name, outcome="unknown"
            ) from cause

    def drop(self, name: str) -> None:
        """Delete a collection: from the catalog first, then its files."""
        with self._guard:
            self._check_writable()
            replica_uuid = self._catalog.uuid_of(name)
            opened = self._replicas.get(replica_uuid)
            try:
                self._put_catalog(self._catalog.removed(name))
            except UnavailableError as error:
                if error.outcome == "unknown" and isinstance(opened, Replica):
                    # It may be gone at the next start, so it must not promise anything any more.
                    opened.fail(error)
                raise
            self._replicas.pop(replica_uuid, None)
        # What cannot be removed now is an orphan, which the next start removes.
        with suppress(OmenDBError):
            if opened is not None:
                opened.close()
        with suppress(OSError):
            remove_path(self._disk, self._replica_path(replica_uuid))

    def rename(self, old: str, new: str) -> None:
        """Give a collection another name; handles stay valid."""
        check_collection_name(new)
        with self._guard:
            self._check_writable()
            self._put_catalog(self._catalog.renamed(old, new))

    def new_schema(self, schema: CollectionSchema) -> CollectionSchema:
        """The schema under a fresh uuid."""
        return replace(schema, uuid=self._new_uuid())

    def _put_catalog(self, catalog: Catalog) -> None:
        try:
            write_catalog(self._disk, self.path, catalog)
        except OSError as error:
            outcome: Outcome = "none" if self._catalog_stands() else "unknown"
            raise disk_error(error, "writing the catalog", outcome=outcome) from error
        self._catalog = catalog

    def _catalog_stands(self) -> bool:
        """Whether the catalog on disk is certainly still the one in memory."""
        try:
            return read_catalog(self._disk, self.path) == self._catalog
        except (OmenDBError, OSError):
            return False

    def _follow_catalog(self) -> None:
        """A reader looks again: the writer may have made or dropped collections."""
        if self.mode == "r":
            self._catalog = read_catalog(self._disk, self.path)
            known = set(self._catalog.collections.values())
            for gone in [u for u in self._replicas if u not in known]:
                self._replicas.pop(gone).close()

    def _check_open(self) -> None:
        if self._closed:
            raise DatabaseClosedError("the database is closed", field="database", mend="open it again")

    def _check_writable(self) -> None:
        self._check_open()
        if self.mode == "r":
            raise ReadOnlyError(
                "the database is open for reading", field="mode", bound='"rw"', mend="open it for writing"
            )

    def close(self) -> None:
        """Stop the workers, make everything durable, close every replica and give up the lock; twice is fine."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            replicas = list(self._replicas.values())
        for opened in replicas:
            if isinstance(opened, Replica):
                opened.maintenance.cancel()
        if self._workers is not None:
            self._workers.stop()
        failures: list[OmenDBError] = []
        try:
            for opened in replicas:
                try:
                    opened.close()
                except OmenDBError as error:  # the others are closed all the same
                    failures.append(error)
        finally:
            if self._prepare is not None:
                self._prepare.shutdown()
            if self._lock is not None:
                self._lock.release()
        if failures:
            raise failures[0]


def _begin(disk: Disk, path: str, new_uuid: NewUuid) -> None:
    """Make an empty database. No collection was ever made before there was a catalog, so none may be here."""
    folder = f"{path}/{COLLECTIONS}"
    make_folder(disk, folder)
    with suppress(PermissionError):
        # Perhaps it was made by a process that died before it could sync the name.
        disk.sync_dir(parent_of(path))
    if disk.listdir(folder):
        raise CorruptionError(
            "the catalog is missing, and there are collections",
            path=f"{path}/{CATALOG_NAME}",
            mend="restore it from a backup, or run omendb repair",
        )
    write_catalog(disk, path, Catalog(new_uuid(), {}))


def _check_place(disk: Disk, path: str, mode: Mode) -> None:
    if not disk.exists(path):
        if mode == "r":
            raise NotFoundError("no database here", field=path, mend='check the path, or open it with mode="rw" first')
        return
    try:
        names = disk.listdir(path)
    except NotADirectoryError:
        raise InvalidArgumentError("this is a file", field=path, bound="a database folder") from None
    if CATALOG_NAME in names:
        return
    if mode == "r":
        raise NotFoundError("no database here", field=path, mend='check the path, or open it with mode="rw" first')
    strangers = [n for n in names if n not in (LOCK_NAME, ALIVE_NAME, COLLECTIONS) and not n.endswith(".tmp")]
    if strangers:
        raise InvalidArgumentError(
            f"the folder holds other things, such as {strangers[0]!r}",
            field=path,
            bound="a database folder, an empty or a new one",
        )


__all__ = ["COLLECTIONS", "Folder", "Mode", "random_uuid"]

"""The replica's manifest: which segments and delete sets exist, and from where the log continues.

``manifest-GGGGGG.json`` is written whole under another name, fsynced, renamed and its folder fsynced; then
``CURRENT`` is replaced the same way. Three generations are kept. The newest intact generation counts;
``CURRENT`` says which one there must be at least, so that a lost manifest is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from omendb_common.disk import Disk, replace_file
from omendb_common.errors import CorruptionError, NotFoundError, ReplicaFailedError
from omendb_engine.segment import layout
from omendb_engine.segment.deletes import DeletesRef
from omendb_engine.wal.prepare import is_full

KIND = "replica"
CURRENT_KIND = "current"
GENERATIONS_KEPT = 3
_NAME = re.compile(r"manifest-(\d{6,})\.json\Z")


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """A segment as the manifest names it.

    manifest_hash: hash of the segment's manifest.json, which sums every file of the segment.
    index_hash: hash of its index.json, None while it has no index.
    size_bytes: of the segment's files, the index not counted.
    """

    segment_id: int
    rows: int
    manifest_hash: str
    index_hash: str | None = None
    deletes: DeletesRef | None = None
    size_bytes: int = 0
    min_stamp: int = 0
    max_stamp: int = 0

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back."""
        return {
            "segment_id": self.segment_id,
            "rows": self.rows,
            "manifest_hash": self.manifest_hash,
            "index_hash": self.index_hash,
            "deletes": self.deletes.to_json() if self.deletes is not None else None,
            "size_bytes": self.size_bytes,
            "min_stamp": self.min_stamp,
            "max_stamp": self.max_stamp,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> SegmentRef:
        """Read what :meth:`to_json` wrote."""
        deletes = value["deletes"]
        return SegmentRef(
            segment_id=int(value["segment_id"]),
            rows=int(value["rows"]),
            manifest_hash=str(value["manifest_hash"]),
            index_hash=None if value["index_hash"] is None else str(value["index_hash"]),
            deletes=None if deletes is None else DeletesRef.from_json(deletes),
            size_bytes=int(value["size_bytes"]),
            min_stamp=int(value["min_stamp"]),
            max_stamp=int(value["max_stamp"]),
        )


@dataclass(frozen=True, slots=True)
class ReplicaManifest:
    """Everything that exists at one generation.

    Stamps (``hlc``, ``gc_floor``, ``repaired_through``) are hybrid-logical-clock integers, LSNs are log positions;
    recovery reads the log after ``checkpoint_lsn``. ``generation``, ``prev_hash`` and ``hash`` are set by the store.
    """

    replica_uuid: str
    created_ms: int
    schema: Mapping[str, Any]
    log_id: int
    segments: tuple[SegmentRef, ...] = ()
    checkpoint_lsn: int = 0
    durable_lsn: int = 0
    hlc: int = 0
    gc_floor: int = 0
    fence_epoch: int = 0
    repaired_through: int = 0
    next_segment_id: int = 1
    next_auto_id: int = 0
    generation: int = 0
    prev_hash: str = ""
    format: int = layout.REPLICA_FORMAT
    hash: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back, without the hash."""
        numbers = {name: getattr(self, name) for name in (*_NUMBERS, "repaired_through")}
        texts = {name: getattr(self, name) for name in _TEXTS}
        segments = [s.to_json() for s in self.segments]
        return {"kind": KIND, **numbers, **texts, "schema": dict(self.schema), "segments": segments}

    @staticmethod
    def from_json(value: Mapping[str, Any], digest: str) -> ReplicaManifest:
        """Read what :meth:`to_json` wrote; ``digest`` becomes ``hash``."""
        fields: dict[str, Any] = {name: int(value[name]) for name in _NUMBERS}
        # Folders written before this was noted were never compared with others.
        fields["repaired_through"] = int(value.get("repaired_through", 0))
        fields |= {name: str(value[name]) for name in _TEXTS}
        segments = tuple(SegmentRef.from_json(s) for s in value["segments"])
        return ReplicaManifest(**fields, schema=dict(value["schema"]), segments=segments, hash=digest)


_NUMBERS = (
    "format",
    "generation",
    "created_ms",
    "log_id",
    "checkpoint_lsn",
    "durable_lsn",
    "hlc",
    "gc_floor",
    "fence_epoch",
    "next_segment_id",
    "next_auto_id",
)
_TEXTS = ("replica_uuid", "prev_hash")
# Going back in any of these would forget a promise (invariant I7).
_NEVER_LOWER = (
    "checkpoint_lsn",
    "durable_lsn",
    "hlc",
    "gc_floor",
    "fence_epoch",
    "repaired_through",
    "next_segment_id",
    "next_auto_id",
    "log_id",
)


def manifest_name(generation: int) -> str:
    """File name of a generation."""
    return f"manifest-{generation:06d}.json"


class ManifestStore:
    """The manifests of one replica folder. One writer; not thread-safe, its owner serialises commits.

    ``keep``: generations to keep, 1 or more.
    """

    def __init__(self, disk: Disk, replica_path: str, *, keep: int = GENERATIONS_KEPT) -> None:
        self._disk = disk
        self._keep = keep
        self._path = replica_path
        self._kept: list[ReplicaManifest] = []  # oldest first
        self._last_generation = 0
        self._failed = False
        self._removal_failed = False
        self.problems: list[CorruptionError] = []
        """Damage that :meth:`load` found and could do without; worth telling the operator."""

    @property
    def kept(self) -> tuple[ReplicaManifest, ...]:
        """The generations on disk that could be opened, oldest first; the last one counts.

        The log must be kept from the smallest ``checkpoint_lsn`` among them.
        """
        return tuple(self._kept)

    def load(self, wal_covers: Callable[[ReplicaManifest], bool]) -> ReplicaManifest:
        """The newest generation that verifies and whose files exist.

        When a newer one is damaged or missing, an older one counts only if ``wal_covers`` says that the log still
        holds everything after its checkpoint.

        Raises:
            NotFoundError: a folder that never had a manifest.
            CorruptionError: no generation can be used without losing data.
            FormatVersionError: the newest is intact, but a newer release wrote it.
        """
        self.problems = []
        pointed = self._read_current()
        found = self._generations()
        self._last_generation = max([*found, pointed])
        if self._last_generation == 0:
            if self.problems:
                raise self.problems[0]
            raise NotFoundError("there is no replica here", field=self._path)
        usable = [m for m in (self._try_read(g) for g in sorted(found)) if m is not None]
        newest = usable[-1].generation if usable else 0
        if not usable or (newest < self._last_generation and not wal_covers(usable[-1])):
            raise self._no_way_back()
        self._kept = usable[-self._keep :]
        return self._kept[-1]

    def _no_way_back(self) -> CorruptionError:
        name = f"{self._path}/{manifest_name(self._last_generation)}"
        cause = CorruptionError("the file is missing", path=name)
        if self._disk.exists(name):
            cause = self.problems[-1]
        cause.mend = "the log does not reach back to an older generation; restore from a replica or a backup"
        return cause

    def _read_current(self) -> int:
        """The generation CURRENT names, 0 when it is absent or damaged (the folder's names then decide)."""
        path = f"{self._path}/{layout.CURRENT}"
        if not self._disk.exists(path):
            return 0
        try:
            body = layout.read_document(self._disk, path, kind=CURRENT_KIND, format_max=layout.REPLICA_FORMAT)
            return int(body["generation"])
        except CorruptionError as error:
            self.problems.append(error)
            return 0

    def _generations(self) -> list[int]:
        names = self._disk.listdir(self._path) if self._disk.exists(self._path) else []
        return [int(match[1]) for match in map(_NAME.match, names) if match]

    def _try_read(self, generation: int) -> ReplicaManifest | None:
        try:
            manifest = self.read(generation)
            self._check_files_exist(manifest)
        except CorruptionError as error:
            self.problems.append(error)
            return None
        return manifest

    def read(self, generation: int) -> ReplicaManifest:
        """One generation, verified; CorruptionError or FormatVersionError otherwise."""
        path = f"{self._path}/{manifest_name(generation)}"
        body = layout.read_document(self._disk, path, kind=KIND, format_max=layout.REPLICA_FORMAT)
        manifest = ReplicaManifest.from_json(body, layout.seal(body)[1])
        if manifest.generation != generation:
            raise CorruptionError(
                f"the manifest of generation {manifest.generation}", path=path, offset=0, bound=f"{generation}"
            )
        return manifest

    def _check_files_exist(self, manifest: ReplicaManifest) -> None:
        for ref in manifest.segments:
            for path in _files_named(self._path, ref):
                if not self._disk.exists(path):
                    raise CorruptionError("the file is missing", path=path)

    def commit(self, manifest: ReplicaManifest) -> ReplicaManifest:
        """Make ``manifest`` the current one; returns it with ``generation``, ``prev_hash`` and ``hash`` set.

        Every file it names must be durable already. When this returns, the manifest is.

        Raises:
            ValueError: a value that must never go back would.
            OSError: nothing changed and the commit may be tried again (say, after a full disk).
            ReplicaFailedError: it is unknown whether the manifest will be there after a crash; nothing may be
                acknowledged any more and the store refuses further commits.
        """
        if self._failed:
            raise ReplicaFailedError("an earlier manifest commit failed", field=self._path, outcome="none")
        previous = self._kept[-1] if self._kept else None
        if previous is not None:
            _check_forward(previous, manifest)
        generation = self._last_generation + 1
        chained = replace(manifest, generation=generation, prev_hash=previous.hash if previous else "")
        data, digest = layout.seal(chained.to_json())
        committed = replace(chained, hash=digest)
        path = f"{self._path}/{manifest_name(generation)}"
        try:
            replace_file(self._disk, path, [data])
        except OSError as error:
            if not self._disk.exists(path):
                raise  # the rename did not happen: the old manifest stands
            self._failed = True
            raise ReplicaFailedError(f"manifest commit: {error}", field=path, outcome="unknown") from error
        self._last_generation = generation
        self._kept.append(committed)
        # In this order: the folder sync behind CURRENT also makes it durable that the old generations are gone, and
        # only then may the files go that they named.
        self._drop_old()
        self._write_current(committed)
        return committed

    def _write_current(self, manifest: ReplicaManifest) -> None:
        body = {"kind": CURRENT_KIND, "format": layout.REPLICA_FORMAT, "generation": manifest.generation}
        data, _ = layout.seal({**body, "manifest": manifest_name(manifest.generation), "manifest_hash": manifest.hash})
        path = f"{self._path}/{layout.CURRENT}"
        try:
            replace_file(self._disk, path, [data])
            return
        except OSError as error:
            cause = error
        try:
            if is_full(cause):
                # CURRENT says which generation there must be at least, so it may lag behind on a full disk.
                self._disk.sync_dir(self._path)
                return
        except OSError as error:
            cause = error
        # The manifest is durable and counts after a restart; but a disk that fails here is not to be trusted.
        self._failed = True
        raise ReplicaFailedError(f"manifest commit: {cause}", field=path, outcome="unknown") from cause

    def _drop_old(self) -> None:
        """Remove old generations. One that cannot be removed stays kept, and is tried again by the next commit."""
        kept = {m.generation for m in self._kept[-self._keep :]}
        stuck: set[int] = set()
        try:
            for generation in self._generations():
                if generation not in kept:
                    stuck.add(generation)
                    self._disk.unlink(f"{self._path}/{manifest_name(generation)}")
                    stuck.discard(generation)
        except OSError:
            # The new manifest is in force whatever becomes of the old ones.
            stuck = {m.generation for m in self._kept} - kept
        self._kept = [m for m in self._kept if m.generation in kept | stuck]

    def garbage(self, keep_segments: Collection[int] = (), keep_deletes: Collection[str] = ()) -> list[str]:
        """Files and folders of the replica that no kept generation names, as absolute paths.

        Args:
            keep_segments: segments being written, or indexed, for a commit to come.
            keep_deletes: names of deletes files written for a commit to come.

        The log, the ballast and the lock are never listed. Unlinking is safe for readers with open maps. After a
        commit or a removal of unknown outcome nothing is listed: a manifest that may be there after a crash, and
        which is not among :attr:`kept`, could name it.
        """
        if self._failed or self._removal_failed:
            return []
        names = self._disk.listdir(self._path)
        out = [f"{self._path}/{name}" for name in names if name.endswith(layout.TEMPORARY_SUFFIX)]
        # Left by a crash between a commit and the removal of what it replaced.
        oldest = min((m.generation for m in self._kept), default=0)
        out += [f"{self._path}/{manifest_name(g)}" for g in self._generations() if g < oldest]
        out += self._garbage_segments(set(keep_segments))
        named = {ref.deletes.name for m in self._kept for ref in m.segments if ref.deletes is not None}
        named |= set(keep_deletes)
        folder = f"{self._path}/{layout.DELETES}"
        names = self._disk.listdir(folder) if self._disk.exists(folder) else []
        return out + [f"{folder}/{name}" for name in names if name not in named]

    def _garbage_segments(self, keep: set[int]) -> list[str]:
        folder = f"{self._path}/{layout.SEGMENTS}"
        if not self._disk.exists(folder):
            return []
        busy = {layout.segment_name(i) for i in keep} | {layout.TEMPORARY + layout.segment_name(i) for i in keep}
        refs = [r for m in self._kept for r in m.segments]
        named = {layout.segment_name(r.segment_id) for r in refs}
        indexed = {layout.segment_name(r.segment_id) for r in refs if r.index_hash is not None}
        out: list[str] = []
        for name in self._disk.listdir(folder):
            path = f"{folder}/{name}"
            if name in busy:
                continue
            if name not in named:
                out.append(path)
                continue
            files = self._disk.listdir(path)
            stale = [f for f in files if f.startswith("index") and name not in indexed]
            stale += [f for f in files if f.endswith(layout.TEMPORARY_SUFFIX) and f not in stale]
            out += [f"{path}/{f}" for f in stale]
        return out

    def remove(self, paths: Collection[str]) -> None:
        """Remove what :meth:`garbage` listed; what is gone already is no error."""
        manifests = [path for path in paths if _NAME.match(path.rpartition("/")[2])]
        for path in manifests:
            layout.remove_path(self._disk, path)
        if manifests:
            # Before the files that they name: a power cut must not bring back a manifest without its files.
            try:
                self._disk.sync_dir(self._path)
            except OSError:
                self._removal_failed = True
                raise
        for path in paths:
            if path not in manifests:
                layout.remove_path(self._disk, path)


def _files_named(replica_path: str, ref: SegmentRef) -> list[str]:
    """The files without which nothing of a segment can be read: its index only saves time."""
    files = [f"{layout.segment_path(replica_path, ref.segment_id)}/{layout.MANIFEST}"]
    if ref.deletes is not None:
        files.append(f"{replica_path}/{layout.DELETES}/{ref.deletes.name}")
    return files


def _check_forward(previous: ReplicaManifest, manifest: ReplicaManifest) -> None:
    for name in _NEVER_LOWER:
        before, after = getattr(previous, name), getattr(manifest, name)
        if after < before:
            raise ValueError(f"{name} would go back from {before} to {after}")
    if manifest.replica_uuid != previous.replica_uuid:
        raise ValueError("the manifest belongs to another replica")


__all__ = ["GENERATIONS_KEPT", "ManifestStore", "ReplicaManifest", "SegmentRef", "manifest_name"]

"""A small database with a file of every kind, and the question whether damage to one of them is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from omendb_chaos.oracle import State, observe
from omendb_chaos.session import DEFAULT, PATH, BusyDisk, Session, open_folder
from omendb_common.errors import CorruptionError, FormatVersionError, OmenDBError
from omendb_common.ids import PointId
from omendb_engine.catalog import CATALOG_NAME, read_catalog
from omendb_engine.check import check_folder, check_replica
from omendb_engine.folder import COLLECTIONS
from omendb_engine.segment.check import check_segment
from omendb_engine.segment.manifest import ManifestStore, SegmentRef


@dataclass(slots=True)
class Fixture:
    """A closed database on a simulated disk: what it holds, and which segment each segment folder is."""

    session: Session
    truth: State
    known: list[PointId]
    segments: dict[str, SegmentRef]

    @property
    def disk(self) -> BusyDisk:
        """The disk it is on."""
        return self.session.disk

    def files(self) -> list[str]:
        """Every file of the database."""
        return [path.lstrip("/") for path in self.disk.paths()]


def build(seed: int, *, rows: int = 14, closed: bool = True, changes: Mapping[str, Any] | None = None) -> Fixture:
    """Segments with payload, field stamps, an index and delete sets, three manifests, and a log with records."""
    session = Session(changes={"compaction.merge_fanin": 4, **(changes or {})}, seed=seed).open()
    session.create()
    session.upsert(session.rows(range(rows)))
    session.update([1, 2], {"n": 5, "fresh": "x"}, vectors=True)
    session.flush()
    session.work()
    session.upsert(session.rows(["a", "b", "c", 3]))
    session.delete([5, 6])
    session.flush()
    session.delete([7, "a"])
    session.update([8], {"tag": "z"})
    session.flush()
    session.upsert(session.rows([40, "d"]))
    session.update([40], unset=["tag"])
    session.delete([9])
    session.upsert(session.rows([41]))
    if closed:
        session.close()
    known = sorted(session.known, key=str)
    return Fixture(session, session.history.newest, known, _segments(session.disk))


def _segments(disk: BusyDisk) -> dict[str, SegmentRef]:
    found: dict[str, SegmentRef] = {}
    folder = f"{PATH}/{COLLECTIONS}"
    for uuid in disk.listdir(folder):
        store = ManifestStore(disk, f"{folder}/{uuid}")
        store.load(lambda manifest: True)
        for manifest in store.kept:
            for ref in manifest.segments:
                known = found.get(f"{folder}/{uuid}/segments/segment_{ref.segment_id:06d}/")
                if known is None or known.index_hash is None:
                    found[f"{folder}/{uuid}/segments/segment_{ref.segment_id:06d}/"] = ref
    return found


def noticed(fixture: Fixture, path: str) -> str | None:
    """How damage to one file is noticed, None when it is not.

    First by that part of ``check_folder`` that reads this file (which is faster than all of it), then by all of it,
    then by opening the database and reading everything.
    """
    return _noticed_near(fixture, path) or noticed_anywhere(fixture)


def _noticed_near(fixture: Fixture, path: str) -> str | None:
    try:
        if path.endswith(CATALOG_NAME):
            read_catalog(fixture.disk, PATH)
            return None
        for prefix, ref in fixture.segments.items():
            if path.startswith(prefix):
                replica = prefix.rpartition("/segments/")[0]
                return "check" if check_segment(fixture.disk, replica, ref) else None
        replica = "/".join(path.split("/")[:3])
        return "check" if check_replica(fixture.disk, replica, replica.rpartition("/")[2]) else None
    except (CorruptionError, FormatVersionError):
        return "refused"


def noticed_anywhere(fixture: Fixture) -> str | None:
    """How damage to any file is noticed, None when it is not."""
    if check_folder(fixture.disk, PATH):
        return "check"
    try:
        folder = open_folder(fixture.disk.copy(), fixture.session.settings)
        return None if observe(folder, fixture.known) == fixture.truth else "WRONG CONTENT"
    except (CorruptionError, FormatVersionError):
        return "refused"


def served(fixture: Fixture, *, verify_on_open: bool = True) -> str | None:
    """What a user gets from the damaged database when nobody checks it first: None when all is well, else in words.

    Fine are: refusing to open, refusing to read, and the right content.
    """
    settings = fixture.session.settings
    settings = replace(settings, storage=replace(settings.storage, verify_on_open=verify_on_open))
    try:
        folder = open_folder(fixture.disk.copy(), settings)
        if observe(folder, fixture.known) != fixture.truth:
            return "wrong content was served"
    except (CorruptionError, FormatVersionError):
        return None
    except (OmenDBError, OSError, ValueError, IndexError, KeyError, TypeError, AssertionError) as error:
        return f"not a typed refusal: {type(error).__name__}: {error}"
    return None


def kinds_of_files(paths: list[str]) -> list[str]:
    """The kinds of files among ``paths``: their names without numbers."""
    return sorted({"".join(c for c in p.rpartition("/")[2] if not c.isdigit()) for p in paths})


__all__ = ["DEFAULT", "Fixture", "build", "kinds_of_files", "noticed", "noticed_anywhere", "served"]

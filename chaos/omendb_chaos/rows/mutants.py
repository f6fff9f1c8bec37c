"""R30: test power. Bugs are planted in the running code, one at a time, and a row must catch each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import omendb_engine.catalog
import omendb_engine.check
import omendb_engine.segment.manifest
import omendb_engine.segment.reader
import omendb_engine.wal.reader
import omendb_engine.wal.record
from omendb_chaos.oracle import Violation
from omendb_chaos.rows import failed_syncs, memory, power
from omendb_chaos.rows.fixture import build, noticed
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_chaos.rows.planting import Mutant, Probe, replaced
from omendb_chaos.rows.replication_mutants import REPLICATION_MUTANTS
from omendb_chaos.rows.sweep import UNTYPED, Planned, chosen, problems_after, run_through
from omendb_chaos.sim.faults import SYNC_KINDS
from omendb_common.checksum import crc32c
from omendb_common.disk import Disk, DiskFile
from omendb_common.errors import OmenDBError
from omendb_engine.apply import PartStore
from omendb_engine.budget import MemoryBudget
from omendb_engine.growing import GrowingBuffer
from omendb_engine.maintenance import Maintenance
from omendb_engine.parts import BufferPart
from omendb_engine.segment import layout
from omendb_engine.wal.reader import TornTail
from omendb_engine.wal.record import CommitPoint, RecordHeader
from omendb_engine.wal.writer import WalWriter

_STATES = 150


def run(seed: int, budget: Budget) -> Outcome:
    """Plant every bug, and see it caught."""
    outcome = Outcome("R30", seed, budget)
    caught = 0
    bugs = planted_bugs()
    for mutant in bugs.values():
        found = is_caught(mutant, seed)
        if found:
            caught += 1
        else:
            outcome.violated(f"{mutant.name!r} was not caught by {mutant.row}")
        outcome.notes.append(f"{mutant.row} {'catches' if found else 'MISSES'}: {mutant.name}")
    outcome.figure = f"{caught} of {len(bugs)} seeded bugs caught"
    return outcome


def planted_bugs() -> dict[str, Mutant]:
    """Every bug by its name."""
    return {mutant.name: mutant for mutant in (*MUTANTS, *REPLICATION_MUTANTS)}


def is_caught(mutant: Mutant, seed: int) -> bool:
    """Plant a bug, and say whether its row notices."""
    with mutant.planted():
        try:
            return mutant.caught(seed)
        except (Violation, OmenDBError, OSError, *UNTYPED):
            return True  # the row ended in an error, which is a violation too


# -- planting


def _skipped_sync() -> AbstractContextManager[None]:
    return replaced(WalWriter, "_datasync", lambda self, file: None)


def _ignored_sync_failure() -> AbstractContextManager[None]:
    def datasync(self: WalWriter, file: DiskFile) -> None:
        with suppress(OSError):
            file.datasync()

    return replaced(WalWriter, "_datasync", datasync)


def _repeated_sync() -> AbstractContextManager[None]:
    def datasync(self: WalWriter, file: DiskFile) -> None:
        try:
            file.datasync()
        except OSError:
            file.datasync()

    return replaced(WalWriter, "_datasync", datasync)


def _late_sync() -> AbstractContextManager[None]:
    """Acknowledged before it is synced: the sync comes with the next write."""
    original = WalWriter.append

    def append(self: WalWriter, entries: Any) -> int:
        file = self._file
        if file is not None:
            file.datasync()
        return original(self, entries)

    stack = replaced(WalWriter, "append", append)

    @contextmanager
    def both() -> Iterator[None]:
        with stack, _skipped_sync():
            yield

    return both()


def _no_folder_sync() -> AbstractContextManager[None]:
    def replace_file(disk: Disk, path: str, parts: Sequence[Any]) -> int:
        if disk.exists(path + ".tmp"):
            disk.unlink(path + ".tmp")
        written = disk.write_file(path + ".tmp", parts)
        disk.rename(path + ".tmp", path)
        return written

    @contextmanager
    def both() -> Iterator[None]:
        with (
            replaced(omendb_engine.segment.manifest, "replace_file", replace_file),
            replaced(omendb_engine.catalog, "replace_file", replace_file),
        ):
            yield

    return both()


def _unsettled_recovery() -> AbstractContextManager[None]:
    return replaced(WalWriter, "_settle", lambda self, resume: None)


def _damage_taken_for_a_tear() -> AbstractContextManager[None]:
    segment = omendb_engine.wal.reader._Segment

    @contextmanager
    def both() -> Iterator[None]:
        with (
            replaced(segment, "_judge_tail", lambda self: TornTail(self.path, self.position)),
            replaced(omendb_engine.wal.reader.WalScan, "_check_marks", lambda self, last: None),
        ):
            yield

    return both()


def _unchecked_bodies() -> AbstractContextManager[None]:
    """A record counts when its header verifies."""
    original = omendb_engine.wal.record.decode_record

    def decode_record(data: memoryview, at: int, header: Any, salt: int) -> Any:
        found = original(data, at, header, salt)
        if found is not None or at + header.total_bytes > len(data):
            return found
        copy = bytearray(data[at : at + header.total_bytes])
        fixed = _with_right_trailer(copy, header, salt)
        return original(memoryview(fixed), 0, header, salt)

    return replaced(omendb_engine.wal.reader, "decode_record", decode_record)


def _with_right_trailer(record: bytearray, header: RecordHeader, salt: int) -> bytes:
    body = bytes(record[:-8])
    return body + crc32c(body, salt).to_bytes(4, "little") + (header.lsn & 0xFFFFFFFF).to_bytes(4, "little")


def _forgotten_kills() -> AbstractContextManager[None]:
    return replaced(GrowingBuffer, "record_kill", lambda self, part_id, rows: None)


def _log_dropped_early() -> AbstractContextManager[None]:
    """The log goes before the manifest that makes it unnecessary is there."""
    original = Maintenance._commit

    def commit(self: Maintenance, refs: Any, dead: Any, *, checkpoint_lsn: int) -> None:
        self._replica.drop_log(checkpoint_lsn)
        original(self, refs, dead, checkpoint_lsn=checkpoint_lsn)

    return replaced(Maintenance, "_commit", commit)


def _deaths_of_the_future() -> AbstractContextManager[None]:
    """The delete sets of the manifest are those of now, not those of its checkpoint."""
    original = Maintenance._commit

    def commit(self: Maintenance, refs: Any, dead: Any, *, checkpoint_lsn: int) -> None:
        now = {p.part_id: p.dead for p in self._store.snapshot.parts if not isinstance(p, BufferPart)}
        later = {i: now.get(i, d) for i, d in dead.items()}
        original(self, refs, later, checkpoint_lsn=checkpoint_lsn)

    return replaced(Maintenance, "_commit", commit)


def _resurrecting_merge() -> AbstractContextManager[None]:
    """Rows that died while a segment was built are alive in it."""
    original = PartStore.replace

    def replace(self: PartStore, old: Any, new: Any, row_maps: Any) -> None:
        before = self.snapshot
        clean = tuple(p.with_dead(type(p.dead).none(p.n)) if p.part_id in row_maps else p for p in before.parts)
        self.snapshot = type(before)(clean, before.lsn, before.live)
        original(self, old, new, row_maps)

    return replaced(PartStore, "replace", replace)


def _unverified_files() -> AbstractContextManager[None]:
    """Neither what is mapped nor what a check reads again is compared with its sums."""

    @contextmanager
    def both() -> Iterator[None]:
        with (
            replaced(layout, "verify", lambda view, entry, path: None),
            replaced(omendb_engine.segment.reader, "verify_blocks", lambda *args, **kwargs: None),
        ):
            yield

    return both()


def _trusted_commit() -> AbstractContextManager[None]:
    """The COMMIT file is believed without its checksum."""

    def decode_commit(data: bytes, identity: object) -> CommitPoint | None:
        if len(data) != 24:
            return None
        return CommitPoint(int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little"))

    @contextmanager
    def both() -> Iterator[None]:
        with (
            replaced(omendb_engine.wal.reader, "decode_commit", decode_commit),
            replaced(omendb_engine.check, "decode_commit", decode_commit),
        ):
            yield

    return both()


def _leaked_memory() -> AbstractContextManager[None]:
    def release(self: MemoryBudget, purpose: str, size: int) -> None:
        if purpose != "compaction":
            original(self, purpose, size)

    original = MemoryBudget.release
    return replaced(MemoryBudget, "release", release)


# -- catching


def _power(*names: str) -> Probe:
    def probe(seed: int) -> bool:
        for workload in chosen(names):
            session = power.run_workload(workload, seed)
            for survivor in session.disk.crash_states(_STATES, dice("R30", seed)):
                if any(True for _ in power.problems_of(session, survivor, deep=True)):
                    return True
        return False

    return probe


def _syncs(*names: str) -> Probe:
    def probe(seed: int) -> bool:
        for workload in chosen(names):
            for nth in range(1, 40):
                session = run_through(workload, seed, Planned(SYNC_KINDS, nth, 5))
                session.disk.faults.clear()
                if session.late_acks or any(failed_syncs.repeated_syncs(session)):
                    return True
                if any(problems_after(session, power_cuts=1)):
                    return True
        return False

    return probe


def _bytes(part: str) -> Probe:
    def probe(seed: int) -> bool:
        fixture = build(seed)
        rng = dice("R30 bytes", seed)
        for path in [p for p in fixture.files() if part in p]:
            data = fixture.disk.peek(path)
            for _ in range(30):
                offset = rng.randrange(len(data))
                fixture.disk.damage(path, offset, bytes([data[offset] ^ (1 << rng.randrange(8))]))
                found = noticed(fixture, path)
                fixture.disk.damage(path, offset, data[offset : offset + 1])
                if found in (None, "WRONG CONTENT"):
                    return True
        return False

    return probe


def _leaks(*names: str) -> Probe:
    def probe(seed: int) -> bool:
        for workload in chosen(names):
            session = run_through(workload, seed, None, tolerant=True)
            if any(memory.leaks(session)):
                return True
        return False

    return probe


MUTANTS: Collection[Mutant] = (
    Mutant("the log is not synced", "R3", _skipped_sync, _power("append")),
    Mutant("acknowledged before it is synced", "R3", _late_sync, _power("append")),
    Mutant("folders are not synced after a rename", "R3", _no_folder_sync, _power("flush_often", "drop")),
    Mutant("what recovery found is not made durable", "R3", _unsettled_recovery, _power("failed_sync", "interval")),
    Mutant("record bodies are not verified", "R3", _unchecked_bodies, _power("append_wide")),
    Mutant("a seal forgets whom its operations killed", "R3", _forgotten_kills, _power("delete_sealed")),
    Mutant("the log is dropped before the manifest is there", "R3", _log_dropped_early, _power("rotate_and_flush")),
    Mutant(
        "delete sets of another checkpoint", "R3", _deaths_of_the_future, _power("late_deletes_in_seal", "mixed_first")
    ),
    Mutant("a build brings back who died meanwhile", "R3", _resurrecting_merge, _power("late_writes_in_merge")),
    Mutant("a failed sync is passed over", "R8", _ignored_sync_failure, _syncs("append")),
    Mutant("a failed sync is tried again", "R8", _repeated_sync, _syncs("append")),
    Mutant("damage in the log is taken for a torn tail", "R4", _damage_taken_for_a_tear, _bytes("/wal/wal-")),
    Mutant("files of segments are not verified", "R4", _unverified_files, _bytes("vectors.arrow")),
    Mutant("COMMIT is believed without its checksum", "R4", _trusted_commit, _bytes("COMMIT")),
    Mutant("a merge keeps its memory", "R9", _leaked_memory, _leaks("merge")),
)

__all__ = ["MUTANTS", "is_caught", "planted_bugs", "run"]

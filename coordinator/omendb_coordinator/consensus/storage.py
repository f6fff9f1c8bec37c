"""One member's folder: identity, vote, log and snapshots, and the order in which they are written and read.

::

    IDENTITY  REJOIN  PEERS  raft.vote  raft.log  snapshot-<index>.snap

``REJOIN`` is there from when a member starts without its disk until it has caught up. ``PEERS`` remembers which life
of every other member's disk was met, so that one that lost its disk and does not say so is found out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from omendb_common.disk import Disk, make_folder, replace_file
from omendb_common.errors import CorruptionError, InvalidArgumentError
from omendb_coordinator.consensus.core import Recovered
from omendb_coordinator.consensus.effects import Save
from omendb_coordinator.consensus.identity import (
    Identity,
    read_births,
    read_identity,
    write_births,
    write_identity,
)
from omendb_coordinator.consensus.journal import Journal
from omendb_coordinator.consensus.log import Log
from omendb_coordinator.consensus.messages import Entry, Snapshot
from omendb_coordinator.consensus.snapshots import read_newest, write_snapshot
from omendb_coordinator.consensus.vote import read_vote, write_vote


class Storage:
    """The open folder. Not thread-safe; an OSError from any method is final. Use :meth:`create`, :meth:`open`."""

    def __init__(self, disk: Disk, folder: str, identity: Identity, journal: Journal, recovered: Recovered) -> None:
        self._disk = disk
        self._folder = folder
        self._journal = journal
        self.identity = identity
        self.recovered = recovered
        self._births = read_births(disk, f"{folder}/PEERS") if disk.exists(f"{folder}/PEERS") else {}

    @staticmethod
    def exists(disk: Disk, folder: str) -> bool:
        """Whether a member lives there."""
        return disk.exists(f"{folder}/IDENTITY")

    @staticmethod
    def create(disk: Disk, folder: str, identity: Identity, snapshot: Snapshot | None = None) -> None:
        """Make a new member's folder, durably; what an attempt that was cut short left is made again.

        With the origin "rejoin" the member will not vote before it has caught up. With a ``snapshot``, which every
        member of the group must be given, the group goes on after it.

        Raises:
            InvalidArgumentError: files of a member are there, without its identity.
        """
        make_folder(disk, folder)
        _check_worthless(disk, folder)
        for name in disk.listdir(folder):
            if name.startswith(("raft.", "snapshot-", "REJOIN", "PEERS")):
                disk.unlink(f"{folder}/{name}")
        if identity.origin == "rejoin":
            _mark_rejoining(disk, folder)
        index, term = (0, 0) if snapshot is None else (snapshot.index, snapshot.term)
        if snapshot is not None:
            write_snapshot(disk, folder, snapshot)
        Journal.create(disk, f"{folder}/raft.log", index, term).close()
        write_vote(disk, f"{folder}/raft.vote", term, None)
        write_identity(disk, f"{folder}/IDENTITY", identity)

    @staticmethod
    def open(disk: Disk, folder: str) -> Storage:
        """Read everything, and mend what a crash may leave.

        Raises:
            CorruptionError: something is missing or damaged that must not be guessed.
            InvalidArgumentError: no member lives there.
            FormatVersionError: a newer release wrote it.
        """
        if not Storage.exists(disk, folder):
            raise InvalidArgumentError(
                "no member of a group lives here",
                field=folder,
                mend="start a new group with bootstrap, or bring back a member that lost its disk with rejoin",
            )
        identity = read_identity(disk, f"{folder}/IDENTITY")
        rejoining = disk.exists(f"{folder}/REJOIN")
        for name in ("raft.vote", "raft.log"):
            if not disk.exists(f"{folder}/{name}"):
                raise CorruptionError("is missing", path=f"{folder}/{name}", mend="empty the folder and rejoin")
        term, voted_for = read_vote(disk, f"{folder}/raft.vote")
        snapshot = read_newest(disk, folder)
        # All of it may be in memory only, if its sync failed; see Journal.open. The marker before anything else.
        if rejoining:
            _mark_rejoining(disk, folder)
        write_identity(disk, f"{folder}/IDENTITY", identity)
        write_vote(disk, f"{folder}/raft.vote", term, voted_for)
        if disk.exists(f"{folder}/PEERS"):
            write_births(disk, f"{folder}/PEERS", read_births(disk, f"{folder}/PEERS"))
        if snapshot is not None:
            write_snapshot(disk, folder, snapshot)
        journal, entries = Journal.open(disk, f"{folder}/raft.log")
        try:
            log = _joined(journal, entries, snapshot, folder)
            if log.last_term > term:
                raise CorruptionError(f"term {term}, older than the log's", path=f"{folder}/raft.vote")
        except BaseException:
            journal.close()
            raise
        return Storage(disk, folder, identity, journal, Recovered(term, voted_for, log, snapshot, rejoining))

    @property
    def log_bytes(self) -> int:
        """Size of the log's file."""
        return self._journal.size_bytes

    def save(self, saves: Sequence[Save]) -> None:
        """Make all of them durable, in order, with one sync where that is enough."""
        votes = [save.vote for save in saves if save.vote is not None]
        if votes:
            # First: no entry may stand in the log with a term that the vote does not know. Only the last: it is
            # newer than the others, so none of their terms can be voted in again.
            write_vote(self._disk, f"{self._folder}/raft.vote", *votes[-1])
        for save in saves:
            if save.snapshot is not None:
                self._install(save.snapshot, keep_suffix=save.keep_suffix)
            if save.truncate_from is not None:
                self._journal.truncate(save.truncate_from)
            if save.entries:
                self._journal.append(save.entries)
        self._journal.sync()
        if any(save.end_rejoin for save in saves):
            self._disk.unlink(f"{self._folder}/REJOIN")
            self._disk.sync_dir(self._folder)

    def compact(self, snapshot: Snapshot, base_index: int, base_term: int) -> None:
        """Make a snapshot of this member's own state durable, then begin the log after ``base_index``."""
        write_snapshot(self._disk, self._folder, snapshot)
        if base_index > self._journal.base_index:
            self._journal.cut(base_index, base_term)

    def meet(self, node: str, birth: str, origin: str) -> bool:
        """Whether another member may be listened to; remembers it, durably.

        Not if it has another disk than before and was not told so: what it promised is on the old one.
        """
        known = self._births.get(node)
        if known is not None and known != birth and origin != "rejoin":
            return False
        if known != birth:
            births = {**self._births, node: birth}
            write_births(self._disk, f"{self._folder}/PEERS", births)
            self._births = births
        return True

    def close(self) -> None:
        """Close without syncing."""
        self._journal.close()

    def _install(self, snapshot: Snapshot, *, keep_suffix: bool) -> None:
        write_snapshot(self._disk, self._folder, snapshot)
        if keep_suffix:
            self._journal.cut(snapshot.index, snapshot.term)
        else:
            self._journal.reset(snapshot.index, snapshot.term)


def _mark_rejoining(disk: Disk, folder: str) -> None:
    replace_file(disk, f"{folder}/REJOIN", [b"this member must not vote before it has caught up\n"])


def _check_worthless(disk: Disk, folder: str) -> None:
    """Refuse unless what is there never took part in anything."""
    worthless = True
    with suppress(FileNotFoundError):
        worthless = read_vote(disk, f"{folder}/raft.vote") == (0, None)
    with suppress(FileNotFoundError):
        journal, entries = Journal.open(disk, f"{folder}/raft.log")
        journal.close()
        worthless = worthless and not entries and journal.base_index == 0
    if not worthless or read_newest(disk, folder) is not None:
        raise InvalidArgumentError(
            "files of a member are here, but not its IDENTITY",
            field=folder,
            mend="bring IDENTITY back, or empty the folder and rejoin",
        )


def _joined(journal: Journal, entries: list[Entry], snapshot: Snapshot | None, folder: str) -> Log:
    """The log, after the snapshot was laid beside it."""
    log = Log(journal.base_index, journal.base_term, entries)
    if snapshot is None:
        if log.base_index:
            raise CorruptionError(f"there is no snapshot, and the log begins after {log.base_index}", path=folder)
        return log
    if snapshot.index < log.base_index:
        raise CorruptionError(f"the snapshot ends at {snapshot.index}, the log begins at {log.base_index}", path=folder)
    if log.term_at(snapshot.index) != snapshot.term:
        # Installed, and cut off before the log was: everything it has is covered, or was replaced.
        journal.reset(snapshot.index, snapshot.term)
        log.reset(snapshot.index, snapshot.term)
    return log


__all__ = ["Storage"]

"""What the log is made of, and what members say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from omendb_common.checksum import crc32c

NOOP: Final = 0
COMMAND: Final = 1
# What an entry costs in a message or a file beside its command, generously.
ENTRY_OVERHEAD_BYTES: Final = 48


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in the log. ``kind`` is NOOP (a leader's first, or a proof for a rejoining member) or COMMAND."""

    index: int
    term: int
    kind: int
    command: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after ``index``, which ``term`` appended; ``checksum`` is the data's CRC32C."""

    index: int
    term: int
    data: bytes
    checksum: int

    @staticmethod
    def of(index: int, term: int, data: bytes) -> Snapshot:
        """With its checksum."""
        return Snapshot(index, term, data, crc32c(data))


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you vote for me in ``term``, which is one after mine? Changes nothing at anybody's."""

    term: int
    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class PreVoteReply:
    """Granted: ``term`` is the one asked about. Refused: it is the answerer's own."""

    term: int
    granted: bool


@dataclass(frozen=True, slots=True)
class Vote:
    """Vote for me. ``transfer``: the leader itself asked me to stand, so do not protect it."""

    term: int
    last_index: int
    last_term: int
    transfer: bool


@dataclass(frozen=True, slots=True)
class VoteReply:
    """``term`` is the answerer's own."""

    term: int
    granted: bool


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """I lead ``term``. Says nothing of the log, and commits nothing.

    ``round`` grows with every one, and comes back. A rejoining member that finds its own ``incarnation`` here votes
    again once it has committed ``rejoin_target``, an entry that was appended after its first contact.
    """

    term: int
    round: int
    incarnation: int
    rejoin_target: int


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """I follow you in ``term``, and have committed up to ``commit_index``. ``incarnation`` 0: not rejoining."""

    term: int
    round: int
    incarnation: int
    commit_index: int


@dataclass(frozen=True, slots=True)
class Append:
    """After ``prev_index`` of ``prev_term`` come ``entries``, consecutive; all to ``commit_index`` is committed."""

    term: int
    round: int
    prev_index: int
    prev_term: int
    commit_index: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class AppendReply:
    """Accepted: everything to ``index`` is as the leader has it, on stable storage.

    Refused: the entry before ``prev_index + 1`` was not there or another; ``index`` is where to try next.
    """

    term: int
    round: int
    incarnation: int
    accepted: bool
    prev_index: int
    index: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a snapshot from ``offset``; ``size`` and ``checksum`` are the whole's."""

    term: int
    round: int
    snapshot_index: int
    snapshot_term: int
    size: int
    checksum: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ChunkReply:
    """I have ``offset`` bytes of that snapshot: go on from there."""

    term: int
    round: int
    incarnation: int
    snapshot_index: int
    offset: int


@dataclass(frozen=True, slots=True)
class Stand:
    """The leader wants the receiver to lead: it has everything; stand at once."""

    term: int


Message: TypeAlias = (
    PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | Heartbeat
    | HeartbeatReply
    | Append
    | AppendReply
    | Chunk
    | ChunkReply
    | Stand
)
FromLeader: TypeAlias = Heartbeat | Append | Chunk
ToLeader: TypeAlias = HeartbeatReply | AppendReply | ChunkReply

__all__ = [
    "COMMAND",
    "ENTRY_OVERHEAD_BYTES",
    "NOOP",
    "Append",
    "AppendReply",
    "Chunk",
    "ChunkReply",
    "Entry",
    "FromLeader",
    "Heartbeat",
    "HeartbeatReply",
    "Message",
    "PreVote",
    "PreVoteReply",
    "Snapshot",
    "Stand",
    "ToLeader",
    "Vote",
    "VoteReply",
]

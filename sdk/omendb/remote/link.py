"""What the handles of one client share: its routers, its tokens, its threads, its limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from omendb.backend import Consistency
from omendb.remote.parts import PART_BYTES, Sender
from omendb.remote.routers import Routers
from omendb.remote.sessions import Sessions
from omendb_common.clock import Clock


@dataclass
class Link:
    """One connected client.

    Attributes:
        consistency: of reads that do not say; None is the server's choice.
        message_bytes_max: what the server takes in one message.
        part_bytes: about the size of one part of a big write.
    """

    routers: Routers
    clock: Clock
    consistency: Consistency | None = None
    message_bytes_max: int = 16 << 20
    part_bytes: int = PART_BYTES
    sessions: Sessions = field(default_factory=Sessions)
    sender: Sender = field(default_factory=Sender)

    def close(self) -> None:
        """Let go of connections and threads."""
        self.routers.close()
        self.sender.close()


__all__ = ["Link"]

"""What the core wants done, in the order in which it must be done."""

from __future__ import annotations

from dataclasses import dataclass, field

from omendb_coordinator.consensus.messages import Entry, Message, Snapshot


@dataclass(slots=True)
class Save:
    """What must be on stable storage before anything of ``Effects.send`` leaves.

    In this order: the vote, the snapshot (with the log cut at it), the truncation, the entries, the end of rejoining.
    """

    vote: tuple[int, str | None] | None = None
    snapshot: Snapshot | None = None
    keep_suffix: bool = False
    truncate_from: int | None = None
    entries: list[Entry] = field(default_factory=list)
    end_rejoin: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.entries
            or self.vote is not None
            or self.snapshot is not None
            or self.truncate_from is not None
            or self.end_rejoin
        )


@dataclass(slots=True)
class Effects:
    """What one event wants done.

    ``send_early`` and ``reads`` may be done at once: they claim nothing about this member's disk. The rest waits its
    turn: ``save`` is made durable AFTER every earlier effect's save, and BEFORE ``send``; then the snapshot of
    ``save`` is restored, and ``apply`` is applied, in order.
    """

    send_early: list[tuple[str, Message]] = field(default_factory=list)
    reads: list[tuple[int, int]] = field(default_factory=list)
    save: Save = field(default_factory=Save)
    send: list[tuple[str, Message]] = field(default_factory=list)
    apply: list[Entry] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether anything is left that takes its turn."""
        return bool(self.save or self.send or self.apply)


__all__ = ["Effects", "Save"]

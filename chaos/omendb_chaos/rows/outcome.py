"""What a row of the table hands back, and the little that all rows share."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Budget = Literal["small", "full"]
VIOLATIONS_SHOWN = 20


@dataclass(slots=True)
class Outcome:
    """The figure of a row, and every violation in words."""

    row: str
    seed: int
    budget: Budget
    figure: str = ""
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was violated."""
        return not self.violations

    def violated(self, what: str) -> None:
        """Note a violation."""
        self.violations.append(what)

    @property
    def command(self) -> str:
        """The command that gives the same run again."""
        return f"python -m omendb_chaos {self.row} --seed {self.seed} --budget {self.budget}"

    def report(self) -> str:
        """Everything in words; the figure is the last line."""
        lines = list(self.notes)
        lines += [f"VIOLATION: {what}" for what in self.violations[:VIOLATIONS_SHOWN]]
        hidden = len(self.violations) - VIOLATIONS_SHOWN
        if hidden > 0:
            lines.append(f"... and {hidden} more")
        if self.violations:
            lines.append(f"reproduce: {self.command}")
        return "\n".join([*lines, f"{self.row}: {self.figure}"])


RowRun = Callable[[int, Budget], Outcome]


def dice(*names: object) -> random.Random:
    """Dice of their own for every purpose, the same for the same names."""
    return random.Random(zlib.crc32(repr(names).encode()))


__all__ = ["Budget", "Outcome", "RowRun", "dice"]

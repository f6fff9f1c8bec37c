"""How hard a fault strikes, in a file: another process may turn it while the one that suffers from it runs."""

from __future__ import annotations

import os
from pathlib import Path


class Knob:
    """A number in a file, 0 when there is none; and beside it, how often the fault was felt."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._felt_path = path.with_suffix(".felt")
        self._seen: tuple[int, int] | None = None
        self._value = 0.0

    def turn(self, value: float) -> None:
        """Set the number, for every process."""
        partial = self._path.with_suffix(".partial")
        partial.write_text(str(value), encoding="utf-8")
        partial.replace(self._path)

    @property
    def value(self) -> float:
        """The number now. The file is read only when it is another one."""
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            return 0.0
        now = stat.st_ino, stat.st_mtime_ns
        if now != self._seen:
            self._value = float(self._path.read_text(encoding="utf-8"))
            self._seen = now
        return self._value

    def feel(self) -> None:
        """Count one more thing that the fault struck."""
        with self._felt_path.open("ab") as felt:
            felt.write(b".")

    @property
    def felt(self) -> int:
        """How many things it struck so far."""
        return self._felt_path.stat().st_size if self._felt_path.exists() else 0


__all__ = ["Knob"]

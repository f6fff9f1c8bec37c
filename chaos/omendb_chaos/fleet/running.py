"""A real fleet for a row: in a folder of its own, without TLS, ended and removed however the row ends."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.rows.outcome import Outcome

START_S = 120.0


@contextlib.contextmanager
def running_fleet(
    outcome: Outcome, size: FleetSize, prepare: Callable[[Fleet], None] = lambda _: None
) -> Iterator[Fleet]:
    """A fleet that takes reads and writes. When the row found a violation, its folder is kept, and named in a note.

    Args:
        prepare: called before the first process starts, to have some of them start in another way.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"omendb-{outcome.row}-"))
    fleet = Fleet.make(folder, size, tls=False, usual_ports=False)
    sound = False
    # SIGTERM must not leave eight processes behind.
    before = signal.signal(signal.SIGTERM, _exit) if threading.current_thread() is threading.main_thread() else None
    try:
        prepare(fleet)
        fleet.up(START_S)
        yield fleet
        sound = outcome.passed
    finally:
        fleet.down()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        if sound:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            outcome.notes.append(f"the fleet's folder, with logs, is kept: {folder}")


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


__all__ = ["START_S", "running_fleet"]

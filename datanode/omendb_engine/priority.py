"""Threads that give way: work that nobody waits for takes the processor time that others leave."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

# A tenth of the weight of a thread that somebody waits for, by the kernel's table; 19 would starve on a busy machine.
NICE = 10


def give_way() -> None:
    """Lower the priority of the calling thread for good, with that of the threads it will make (Linux only).

    Never hold the interpreter's lock for long in such a thread: whoever waits for the lock waits as long as it is kept
    from running.
    """
    # Elsewhere a priority belongs to the whole process, or the number of a thread may be that of a process.
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


__all__ = ["NICE", "give_way"]

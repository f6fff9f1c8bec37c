"""Ctrl-C, held back while a change is half made.

Python delivers it between any two steps of the main thread, where it would leave the log ahead of memory, or a group
of writes that nobody answers. Held back it comes as soon as the change is whole.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted() -> Iterator[None]:
    """No Ctrl-C arrives in the body; one that came meanwhile is delivered at its end, to the handler that there was.

    In other threads, which get none, and where Ctrl-C is ignored or kills the process, this does nothing.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    try:
        signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    except ValueError:  # the main thread of a subinterpreter, which gets none either
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[-1])


__all__ = ["uninterrupted"]

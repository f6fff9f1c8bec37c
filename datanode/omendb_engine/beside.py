"""One call at a time in a second thread, while its owner waits for the disk.

A commit's ``fdatasync`` needs no processor of this process: what may be done before its outcome is known is done here
meanwhile. Two bare locks hand the call over and say when it ended; a queue or a future costs as much as the work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# The thread ends when no call came for so long: many collections do not each keep one.
_IDLE_S = 5.0


class _Outcome:
    """Keeps what a call raises for somebody else to judge."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        self.error = None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return True


class Beside:
    """Runs calls in a thread that comes and goes as needed; one owner at a time, one call at a time.

    Args:
        idle_s: seconds without a call after which the thread ends.
    """

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self._idle_s = idle_s
        self._guard = threading.Lock()
        self._go = threading.Lock()
        self._go.acquire()
        self._done = threading.Lock()
        self._done.acquire()
        self._thread: threading.Thread | None = None
        self._call: Callable[[], None] | None = None
        self._busy = False
        self._outcome = _Outcome()

    @contextmanager
    def running(self, call: Callable[[], None]) -> Iterator[None]:
        """Run ``call`` beside the body. Leaving waits for it, and raises the body's error, or else its own."""
        self._begin(call)
        try:
            yield
        finally:
            self._wait()
            error, self._outcome.error = self._outcome.error, None
        if error is not None:
            raise error

    def _begin(self, call: Callable[[], None]) -> None:
        with self._guard:
            self._busy = True
            if self._thread is None:
                # Daemon: a process that ends without close() must not hang.
                thread = threading.Thread(target=self._loop, name="omendb-beside", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads: then first the one thing and then the other
                    self._run(call)
                    return
                self._thread = thread
            self._call = call
            self._go.release()

    def close(self) -> None:
        """End the thread; there must be no call. It may be used again."""
        with self._guard:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._go.release()
        if thread is not None:
            thread.join()

    def _wait(self) -> None:
        """Wait for the call; until then nobody may go on, not even for a signal whose handler raises."""
        while self._busy:
            try:
                self._done.acquire()
            except BaseException:
                self._wait()
                raise

    def _loop(self) -> None:
        while (call := self._next()) is not None:
            self._run(call)
            del call  # or it would be held until the next one comes

    def _next(self) -> Callable[[], None] | None:
        """Wait for a call; None ends the thread: it was closed, or nothing came for too long."""
        if not self._go.acquire(timeout=self._idle_s):
            with self._guard:
                if not self._go.acquire(blocking=False):
                    self._thread = None
                    return None
        call, self._call = self._call, None
        return call

    def _run(self, call: Callable[[], None]) -> None:
        with self._outcome:
            call()
        self._busy = False
        with suppress(RuntimeError):  # the owner saw that the call had ended, and did not wait
            self._done.release()


__all__ = ["Beside"]

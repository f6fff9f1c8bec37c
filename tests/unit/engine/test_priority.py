"""A thread that gives way takes the threads it makes with it, and nobody else."""

import os
import sys
import threading

import pytest

from omendb_engine.priority import NICE, give_way


@pytest.mark.skipif(sys.platform != "linux", reason="priorities belong to threads on Linux only")
def test_only_the_thread_that_asked_and_those_it_makes_give_way() -> None:
    seen: dict[str, int] = {}

    def note(name: str) -> None:
        seen[name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def background() -> None:
        give_way()
        note("asked")
        child = threading.Thread(target=note, args=("child",))
        child.start()
        child.join()

    note("before")
    thread = threading.Thread(target=background)
    thread.start()
    thread.join()
    note("after")
    assert seen["asked"] == seen["child"] == max(NICE, seen["before"])
    assert seen["after"] == seen["before"]

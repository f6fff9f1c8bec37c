"""The loop of a server process: what was there at the start is not walked by garbage collections."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, gc, sys
from omendb_common.wire.process_loop import run_loop

born = []

async def work():
    born.append([object() for _ in range(1000)])
    early = gc.get_freeze_count()
    assert early > 10_000, early
    # What never refers to itself is not counted; a list is one object more for the collector.
    kept = [[] for _ in range(5000)]
    while gc.get_freeze_count() < early + 5000:
        await asyncio.sleep(0.005)
    sys.stdout.write(type(asyncio.get_running_loop()).__module__)

run_loop(work(), settled_s=0.05)
"""


def test_what_is_loaded_and_what_the_start_made_is_set_aside() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("uvloop")


def test_what_the_work_raises_is_raised() -> None:
    script = (
        "from omendb_common.wire.process_loop import run_loop\n"
        "async def work(): raise KeyError('it')\n"
        "try:\n    run_loop(work())\nexcept KeyError as e:\n    print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "'it'\n"

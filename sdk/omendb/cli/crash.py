"""Kill a writer with SIGKILL in mid-ingest, reopen its database, and count what it promised.

The child stores batches whose vectors and metadata follow from their ids, and reports over a pipe each batch
it is about to send and each that was acknowledged. So the parent knows for every row whether it must be there
(acknowledged), may be there whole (sent, not acknowledged) or must not be there (never sent, or a part of a
batch), and what it must hold.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import omendb

ROWS = 500
DIMENSION = 64
_DEADLINE_S = 60.0


@dataclass(frozen=True)
class CrashReport:
    """What one kill left.

    ``lost``: acknowledged rows that are missing or hold something else. ``phantom``: rows that nobody sent, that
    hold something else than what was sent, or that belong to a batch of which a part is missing.
    """

    acknowledged: int
    found: int
    lost: int
    phantom: int
    reopen_ms: float


def kill_and_check(path: Path, *, seed: int = 0) -> CrashReport:
    """Let a child ingest into ``path``, kill it, reopen, and compare with what it said."""
    rng = np.random.default_rng(seed)
    acknowledged, sent = _ingest_and_kill(path, batches=int(rng.integers(5, 40)), delay_s=float(rng.uniform(0, 0.02)))
    started = time.perf_counter()
    with omendb.open(path) as database:
        reopen_ms = (time.perf_counter() - started) * 1e3
        lost, phantom, found = _compare(database, acknowledged, sent)
    return CrashReport(acknowledged * ROWS, found, lost, phantom, reopen_ms)


def batch_of(number: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32], dict[str, Any]]:
    """The ids, vectors and metadata of batch ``number``."""
    ids = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.uint64)
    vectors = np.random.default_rng(number).random((ROWS, DIMENSION), np.float32)
    return ids, vectors, {"batch": np.full(ROWS, number), "text": [f"row {i}" for i in ids.tolist()]}


def _ingest_and_kill(path: Path, *, batches: int, delay_s: float) -> tuple[int, int]:
    """(acknowledged, sent) batches of a child that was killed ``delay_s`` after its ``batches``-th answer."""
    command = [sys.executable, "-m", "omendb.cli.crash", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    deadline = time.monotonic() + _DEADLINE_S
    lines: list[str] = []
    try:
        for line in child.stdout:
            lines.append(line)
            if line == f"acknowledged {batches - 1}\n" or time.monotonic() > deadline:
                break
        time.sleep(delay_s)  # so that the kill falls anywhere in a batch, not always right after an answer
    finally:
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
        child.wait()
    said = [line.split() for line in lines if line.endswith("\n")]
    acknowledged = sum(words[0] == "acknowledged" for words in said)
    return acknowledged, sum(words[0] == "sending" for words in said)


def _compare(database: omendb.Database, acknowledged: int, sent: int) -> tuple[int, int, int]:
    """(lost, phantom, found) rows of a reopened database."""
    lost = phantom = known = 0
    for number in range(sent):
        ids, vectors, metadata = batch_of(number)
        records = database.get(ids, include=["vector", "metadata"])
        there = sum(record is not None for record in records)
        right = sum(
            record is not None
            and record.vector is not None
            and np.array_equal(record.vector, vector)
            and record.metadata == {"batch": number, "text": text}
            for record, vector, text in zip(records, vectors, metadata["text"], strict=True)
        )
        known += there
        if number < acknowledged:
            lost += ROWS - right
        elif there not in (0, ROWS) or right != there:
            phantom += there
    found = database.count()
    return lost, phantom + (found - known), found


def _ingest(path: str) -> None:
    """The child: ingest for ever, saying what it sends and what was acknowledged."""
    with omendb.open(path) as database:
        number = 0
        while True:
            ids, vectors, metadata = batch_of(number)
            sys.stdout.write(f"sending {number}\n")
            sys.stdout.flush()
            database.upsert(ids, vectors, metadata)
            sys.stdout.write(f"acknowledged {number}\n")
            sys.stdout.flush()
            number += 1


if __name__ == "__main__":
    _ingest(sys.argv[1])


__all__ = ["CrashReport", "batch_of", "kill_and_check"]

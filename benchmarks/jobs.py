"""Run one worker process: its own interpreter, its own folder, a time limit and a watch on its memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import MemoryWatch
from benchmarks.setup_competitors import ROOT, interpreter
from benchmarks.worker import MARK_BEGIN, MARK_END, Job

SYNC_CALLS = ("fsync", "fdatasync", "msync", "sync_file_range", "syncfs")
_SYNC = re.compile(r"\b(" + "|".join(SYNC_CALLS) + r")\(")


def run_job(
    job: Any, timeout_s: float, *, wrapper: tuple[str, ...] = (), module: str = "benchmarks.worker"
) -> dict[str, Any]:
    """Run `job`, a dataclass with `peer`, `folder` and `out`, by `module` in a fresh process; gives its result, with
    `failed` saying why when it is not whole.

    `peak_memory` and `peak_anonymous` (bytes) are the peaks of the process and its children together.
    """
    out, folder = Path(job.out), Path(job.folder)
    out.unlink(missing_ok=True)
    told = out.with_suffix(".job")
    told.write_text(json.dumps(asdict(job)), encoding="utf-8")
    log_path = out.with_suffix(".log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*wrapper, str(interpreter(job.peer)), "-m", module, str(told)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Some peers write their logs into the working directory.
            cwd=folder.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        failed = None
        try:
            with MemoryWatch(process.pid) as watch:
                code = process.wait(timeout_s)
            if code:
                failed = f"exit {code}"
        except subprocess.TimeoutExpired:
            failed = f"no end after {timeout_s:.0f} s"
        finally:
            _end_group(process)
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"peer": job.peer}
    result["peak_memory"], result["peak_anonymous"] = watch.peak.resident, watch.peak.anonymous
    if failed:
        result["failed"] = f"{failed}: {_last_words(log_path)}"
    return result


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what the worker left behind: itself after a time-out, or a server that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def count_syncs(job: Job, timeout_s: float) -> dict[str, int] | None:
    """Count the sync calls that `job` makes between the begin and the end of its writes, by name.

    None without strace, or when it may not trace here.
    """
    if shutil.which("strace") is None:
        return None
    trace = Path(job.out).with_suffix(".strace")
    names = ",".join((*SYNC_CALLS, "unlink", "unlinkat"))
    result = run_job(job, timeout_s, wrapper=("strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={names}"))
    if "failed" in result or not trace.exists():
        return None
    counts: dict[str, int] = {}
    writing = False
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if MARK_BEGIN in line:
            writing = True
        elif MARK_END in line:
            writing = False
        elif writing and (found := _SYNC.search(line)) and "MS_ASYNC" not in line:
            counts[found[1]] = counts.get(found[1], 0) + 1
    return counts

"""One process of a fleet: found again, told from a stranger with its pid, stopped, killed, and waited for."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from omendb.fleet.process import FleetProcess, start_time, wait_until
from omendb_common.errors import UnavailableError

_SERVES = """
import json, signal, sys, time
sys.stderr.write("starting\\n")
{before}
sys.stdout.write("noise\\nready " + json.dumps({{"address": "here", "given": sys.argv[1:]}}) + "\\n")
sys.stdout.flush()
while True:
    time.sleep(1)
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Makes processes of a module with the given lines before it says that it is ready."""
    made: list[FleetProcess] = []

    def one(before: str = "") -> FleetProcess:
        (tmp_path / "module_of_a_test.py").write_text(_SERVES.format(before=before))
        environment = {"PYTHONPATH": str(tmp_path)}
        process = FleetProcess("n1", "module_of_a_test", ["--flag", "x"], tmp_path / "run", environment)
        made.append(process)
        return process

    yield one
    for process in made:
        process.stop(0.1)


def test_a_life(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    process = make()
    assert process.pid is None and process.ready() is None and not process.send(signal.SIGTERM)
    process.start()
    assert process.wait_ready(20) == {"address": "here", "given": ["--flag", "x"]}
    pid = process.pid
    process.start()
    assert process.pid == pid is not None and process.log.read_text() == "starting\n"
    again = FleetProcess("n1", "module_of_a_test", [], tmp_path / "run")
    assert again.pid == pid, "another command finds it"
    assert again.send(signal.SIGSTOP)
    again.stop(10.0)
    assert process.pid is None and again.pid is None


def test_a_kill_and_another_start(make) -> None:  # type: ignore[no-untyped-def]
    process = make()
    process.start()
    process.wait_ready(20)
    first = process.pid
    process.kill()
    assert process.pid is None
    process.start()
    process.wait_ready(20)
    assert process.pid not in (None, first)


def test_one_that_does_not_want_to_end_is_killed(make) -> None:  # type: ignore[no-untyped-def]
    process = make("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process.start()
    process.wait_ready(20)
    process.stop(0.2)
    assert process.pid is None


def test_one_that_ends_at_once_is_told_with_its_last_words(make) -> None:  # type: ignore[no-untyped-def]
    process = make("sys.exit('no such folder')")
    process.start()
    with pytest.raises(UnavailableError, match="no such folder"):
        process.wait_ready(20)


def test_a_stranger_with_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    process = FleetProcess("n1", "none", [], tmp_path)
    (tmp_path / "n1.pid").write_text(json.dumps({"pid": os.getpid(), "started": "long ago"}))
    assert process.pid is None and not process.send(signal.SIGKILL)
    process.stop(1.0)
    (tmp_path / "n1.pid").write_text("{")
    assert process.pid is None
    assert start_time(os.getpid()) is not None and start_time(2**22 + 1) is None


def test_waiting_has_an_end() -> None:
    seen: list[int] = []
    wait_until(lambda: len(seen) == 3 or seen.append(1) is not None, 10.0, "three looks")  # type: ignore[func-returns-value]
    with pytest.raises(UnavailableError, match=r"nothing: as far as it came"):
        wait_until(lambda: False, 0.05, "nothing", lambda: "as far as it came")

"""The checkers of `make check` are set up to find what they are there for: layers, types, lint."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("proto", "common", "datanode", "coordinator", "router", "server", "sdk", "chaos")

LAYER_FAULTS = (
    ("common/omendb_common/planted.py", "import omendb_engine\n", "Imports go down only"),
    ("datanode/omendb_engine/planted.py", "import omendb\n", "Imports go down only"),
    ("sdk/omendb/planted.py", "import omendb_chaos\n", "Imports go down only"),
    ("datanode/omendb_engine/planted.py", "import socket\n", "The embedded database knows no network"),
    ("datanode/omendb_engine/index/policy.py", "import time\n", "Deciding modules have no clock"),
    ("sdk/omendb/planted.py", "import omendb_engine.wal\n", "The sdk reaches the engine through its face"),
)

LINT_FAULTS = {
    "BLE001": '"""What it is."""\n\ntry:\n    x = 1\nexcept Exception:\n    x = 2\n',
    "D103": '"""What it is."""\n\n\ndef f() -> None:\n    return None\n',
    "DTZ005": '"""What it is."""\n\nfrom datetime import datetime\n\nx = datetime.now()\n',
    "RUF022": '"""What it is."""\n\n__all__ = ["b", "a"]\na = b = 1\n',
    "T201": '"""What it is."""\n\nprint(1)\n',
    "TID252": '"""What it is."""\n\nfrom .other import x\n\n__all__ = ["x"]\n',
}


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def tool(name: str) -> str:
    """The checker beside the interpreter that runs this test."""
    return str(Path(sys.executable).parent / name)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The source roots and the settings of the checkers, where a fault may be planted."""
    for root in SOURCE_ROOTS:
        shutil.copytree(ROOT / root, tmp_path / root, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join(str(folder / root) for root in SOURCE_ROOTS)
    return run(tool("lint-imports"), "--no-cache", cwd=folder, env={**os.environ, "PYTHONPATH": search})


def test_the_layers_hold() -> None:
    result = run(tool("lint-imports"), "--no-cache", cwd=ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("path", "fault", "contract"), LAYER_FAULTS)
def test_an_import_against_the_layers_is_found(copy: Path, path: str, fault: str, contract: str) -> None:
    with (copy / path).open("a", encoding="utf-8") as planted:
        planted.write(fault)
    result = lint_imports(copy)
    broken = [line for line in result.stdout.splitlines() if " BROKEN" in line]
    assert result.returncode == 1
    assert any(line.startswith(contract) for line in broken), result.stdout


def test_an_untyped_function_is_found(copy: Path) -> None:
    planted = copy / "common/omendb_common/planted.py"
    planted.write_text('"""What it is."""\n\n\ndef f(x):\n    return x\n', encoding="utf-8")
    result = run(tool("mypy"), str(planted), "--cache-dir", os.devnull, cwd=copy)
    assert result.returncode == 1
    assert "no-untyped-def" in result.stdout


@pytest.mark.parametrize("code", LINT_FAULTS)
def test_lint_finds(code: str) -> None:
    result = run(
        *(tool("ruff"), "check", "--no-cache", "--output-format=concise"),
        *("--stdin-filename", "common/omendb_common/planted.py", "-"),
        cwd=ROOT,
        input=LINT_FAULTS[code],
    )
    assert result.returncode == 1
    assert code in result.stdout

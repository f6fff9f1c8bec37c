"""The generated code of the wire contract is what `make proto` makes of its `.proto` files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")
# Another release of the generator writes its own number, and the same code.
_RELEASE = re.compile(r"^.*(Python Version:|GENERATED_VERSION =).*$|^ {4}\d+,$", re.MULTILINE)


def _code(folder: Path) -> dict[str, str]:
    found = (path for pattern in GENERATED for path in folder.glob(pattern))
    return {path.name: _RELEASE.sub("", path.read_text(encoding="utf-8")) for path in found}


def test_the_generated_code_is_that_of_the_contract(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "proto/generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    made, kept = _code(tmp_path / "omendb_proto/v1"), _code(ROOT / "proto/omendb_proto/v1")
    assert sorted(made) == sorted(kept)
    drifted = [name for name in made if made[name] != kept[name]]
    assert not drifted, "run `make proto`"

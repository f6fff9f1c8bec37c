"""Every Python snippet of the documents runs, top to bottom, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def program_of(document: Path) -> str:
    """The document's snippets as one program whose line numbers are the document's."""
    text = document.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for block in _BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block.group(1).splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)


WITH_SNIPPETS = [document for document in DOCUMENTS if program_of(document).strip()]


def test_the_readme_has_a_quickstart() -> None:
    assert ROOT / "README.md" in WITH_SNIPPETS


@pytest.mark.parametrize("document", WITH_SNIPPETS, ids=lambda d: d.relative_to(ROOT).as_posix())
def test_the_snippets_run(document: Path, tmp_path: Path) -> None:
    program = f"exec(compile({program_of(document)!r}, {document.as_posix()!r}, 'exec'))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMENDB_")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr

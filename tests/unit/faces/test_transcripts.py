"""Transcripts that a person can read: requests, and what was answered.

To write them anew after a change that is meant, set OMENDB_TRANSCRIPTS=write.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.faces.conftest import Faces

FOLDER = Path(__file__).parent / "transcripts"
# What differs from run to run.
CHANGING = {"uuid", "stamp", "version", "session", "latency_ms"}


def shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "*" if key in CHANGING else shown(child) for key, child in value.items()}
    return [shown(child) for child in value] if isinstance(value, list) else value


def played(faces: Faces, text: str) -> str:
    """The transcript with what is answered now."""
    comments, *requests = re.split(r"^(?=> )", text, flags=re.MULTILINE)
    out = [comments]
    for request in requests:
        asked = request.partition("\n< ")[0].rstrip()
        line, _, body = asked.partition("\n")
        method, path = line.removeprefix("> ").split()
        answer = faces.rest(method, path, content=body)
        out.append(f"{asked}\n< {answer.status_code}\n{json.dumps(shown(answer.json()))}\n\n")
    return "".join(out).rstrip() + "\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_answers_are_those_of_the_transcript(faces: Faces, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = played(faces, text)
    if os.environ.get("OMENDB_TRANSCRIPTS") == "write":
        path.write_text(found, encoding="utf-8")
    assert found == text or os.environ.get("OMENDB_TRANSCRIPTS") == "write"

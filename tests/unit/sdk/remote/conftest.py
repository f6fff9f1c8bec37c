"""A server in this process for the tests of the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.sdk.remote.face_server import FaceServer, face_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaceServer]:
    """A fresh server."""
    with face_server(tmp_path / "db") as running:
        yield running

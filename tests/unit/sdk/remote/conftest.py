"""A server in this process for the tests of the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.sdk.remote.face_server import FaceServer, face_server


@pytest.fixture(params=["frames", "grpc"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FaceServer]:
    """A fresh server, called in frames or over gRPC."""
    with face_server(tmp_path / "db", carrier=request.param) as running:
        yield running

"""One suite, every deployment: each test gets an empty database of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omendb.database import Database
from tests.conformance.deployments import EMBEDDED, MEMORY, Deployment, behind
from tests.unit.sdk.remote.face_server import face_server

ENGINES = ["embedded", "serve"]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A single-node server."""
    with face_server(tmp_path_factory.mktemp("serve") / "db") as server:
        yield behind(server.url, "serve", replication=1, durability="os")


@pytest.fixture(params=["memory", *ENGINES])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """Every deployment, and a backend that shares no code with the engine."""
    fixed = {"memory": MEMORY, "embedded": EMBEDDED}
    found: Deployment = fixed.get(request.param) or request.getfixturevalue(request.param)
    return found


@pytest.fixture
def db(deployment: Deployment, tmp_path: Path) -> Iterator[Database]:
    """An empty, writable database."""
    with deployment.fresh(tmp_path) as database:
        yield database


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Deployment:
    """Every deployment of the engine."""
    found: Deployment = EMBEDDED if request.param == "embedded" else request.getfixturevalue(request.param)
    return found


@pytest.fixture
def engine_db(engine: Deployment, tmp_path: Path) -> Iterator[Database]:
    """The same, where the engine answers: with every filter."""
    with engine.fresh(tmp_path) as database:
        yield database

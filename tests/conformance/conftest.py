"""One suite, every deployment: each test gets an empty database of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omendb.database import Database
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb.testing import served
from tests.conformance.deployments import EMBEDDED, MEMORY, Deployment, behind

ENGINES = ["embedded", "serve", "serve_grpc", "cluster"]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A single-node server: a real process, called in frames."""
    with served(tmp_path_factory.mktemp("serve") / "db", "durability=os") as url:
        yield behind(url, "serve", replication=1, durability="os")


@pytest.fixture(scope="session")
def serve_grpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The same, called over gRPC."""
    with served(tmp_path_factory.mktemp("serve_grpc") / "db", "durability=os", grpc=True) as url:
        yield behind(url, "serve_grpc", replication=1, durability="os")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A cluster of 3 coordinators, 2 routers and 3 data nodes: real processes, mutual TLS, every point on all three."""
    fleet = Fleet.make(tmp_path_factory.mktemp("cluster"), FleetSize(3, 2, 3), usual_ports=False)
    try:
        fleet.up()
        yield behind(fleet.urls(), "cluster", replication=3, durability="fsync")
    finally:
        fleet.down()


@pytest.fixture(params=["memory", *ENGINES])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """Every deployment, and a backend that shares no code with the engine."""
    fixed = {"memory": MEMORY, "embedded": EMBEDDED}
    found: Deployment = fixed.get(request.param) or request.getfixturevalue(request.param)
    return found


@pytest.fixture
def durability(deployment: Deployment) -> str:
    """What a write of ``db`` is acknowledged with."""
    return deployment.durability


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

"""The process of a single-node server: ``python -m omendb_server PATH``."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

from omendb_common.config import load_settings
from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.process_flags import add_settings_flags, log_as_told, overrides
from omendb_common.wire.process_loop import run_loop
from omendb_router.config import FaceSettings
from omendb_router.face_flags import add_face_tls_flags, face_tls
from omendb_router.face_serving import Place
from omendb_router.settings import RouterSettings
from omendb_server.serving import Server

_LOG = logging.getLogger("omendb.server")
GROUPS: dict[str, type[Any]] = {"faces": FaceSettings, "router": RouterSettings}
"""The groups of settings that a server reads beside those of its engine."""


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    flags = argparse.ArgumentParser(prog="python -m omendb_server", description=__doc__)
    flags.add_argument("path", help="the database folder; it is made when there is none")
    flags.add_argument("--http", default="127.0.0.1:8480", help="where REST is served (port 0 takes any)")
    flags.add_argument("--grpc", default="127.0.0.1:8481", help="where gRPC is served (port 0 takes any)")
    flags.add_argument("--metrics-listen", help="host:port for health and metrics; port 0 takes any")
    flags.add_argument("--profile", help="developer, production or cloud, and speed, balanced or quality")
    add_settings_flags(flags)
    add_face_tls_flags(flags)
    return flags


async def serve(given: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    found = load_settings(given.profile, given.config, None, overrides(given), beside=GROUPS)
    http, grpc = Place.parse(given.http, "--http"), Place.parse(given.grpc, "--grpc")
    metrics = Place.parse(given.metrics_listen, "--metrics-listen") if given.metrics_listen else None
    tls = face_tls(given)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    server = Server.open(
        given.path, found.settings, faces=found.beside["faces"], router=found.beside["router"], tls=tls
    )
    try:
        await server.start(http, grpc, metrics)
        ready = {
            "role": "server",
            "node_id": "local",
            "pid": os.getpid(),
            "address": str(server.faces.http),
            "http": str(server.faces.http),
            "grpc": str(server.faces.grpc),
            "metrics": server.health.address or None,
            "location": server.folder.path,
        }
        sys.stdout.write(f"ready {json.dumps(ready)}\n")
        sys.stdout.flush()
        await ending.wait()
        _LOG.info("draining")
    finally:
        await server.stop()


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 after a signal, 2 when it cannot start as told, 1 for anything else."""
    given = parser().parse_args(arguments)
    try:
        log_as_told(given, "server")
        run_loop(serve(given))
    except OmenDBError as error:
        sys.stderr.write(f"omendb serve: {type(error).__name__}: {error}\n")
        return 2 if isinstance(error, InvalidArgumentError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

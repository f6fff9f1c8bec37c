"""The process of a router: ``python -m omendb_router``."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import Any

from omendb_common.config import load_groups
from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.feature_level import spoken_level
from omendb_common.process_flags import (
    add_settings_flags,
    add_tls_flags,
    log_as_told,
    overrides,
    settings_arguments,
    tls_files,
)
from omendb_common.settings import MIB
from omendb_common.wire.frames import FrameLimits
from omendb_common.wire.process_loop import run_loop
from omendb_router.config import FaceSettings
from omendb_router.face_flags import add_face_tls_flags, face_tls, face_tls_arguments
from omendb_router.face_serving import Place
from omendb_router.process import Options, RouterProcess
from omendb_router.settings import RouterSettings
from omendb_router.workers import Workers

WORKERS_MAX = 256
GROUPS: dict[str, type[Any]] = {"faces": FaceSettings, "router": RouterSettings, "frames": FrameLimits}
"""The groups of settings that a router reads."""
# What stands around a batch in its frame.
_FRAME_SLACK_BYTES = MIB


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    flags = argparse.ArgumentParser(prog="omendb router", description="A router of a cluster.")
    flags.add_argument("--node-id", required=True, help="its name in the cluster")
    flags.add_argument("--http", default="127.0.0.1:8480", help="host:port for REST; port 0 takes any")
    flags.add_argument("--grpc", default="127.0.0.1:8481", help="host:port for gRPC; port 0 takes any")
    flags.add_argument("--coordinators", required=True, help="host:port,… of the coordinators' gRPC")
    flags.add_argument("--workers", type=int, default=1, help="processes that share the two ports")
    flags.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    flags.add_argument(
        "--metrics-listen", help="host:port for health and metrics; worker i takes the i-th port from it"
    )
    flags.add_argument("--zone", default="", help="where it stands, for people")
    add_settings_flags(flags)
    add_tls_flags(flags)
    add_face_tls_flags(flags)
    return flags


def options_from(given: argparse.Namespace) -> Options:
    """What one process is to do; InvalidArgumentError when it makes no sense."""
    coordinators = tuple(filter(None, (part.strip() for part in given.coordinators.split(","))))
    if not coordinators:
        raise InvalidArgumentError("is empty", field="--coordinators", bound="at least one host:port")
    if not given.node_id:
        raise InvalidArgumentError("is empty", field="--node-id", bound="a name")
    if not 1 <= given.workers <= WORKERS_MAX:
        raise InvalidArgumentError(f"got {given.workers}", field="--workers", bound=f"1..{WORKERS_MAX}")
    outer = face_tls(given)
    found = load_groups(GROUPS, given.config, None, overrides(given))
    frames, faces = found["frames"], found["faces"]
    if frames.frame_bytes_max < faces.body_bytes_max + _FRAME_SLACK_BYTES:
        raise InvalidArgumentError(
            f"got {frames.frame_bytes_max}",
            field="frames.frame_bytes_max",
            bound=f"at least faces.body_bytes_max + 1 MiB = {faces.body_bytes_max + _FRAME_SLACK_BYTES}",
            mend="raise it on the data nodes too, or lower the other",
        )
    return Options(
        given.node_id,
        Place.parse(given.http, "--http"),
        Place.parse(given.grpc, "--grpc"),
        coordinators,
        tls=tls_files(given),
        face_tls=outer,
        shared=given.worker,
        zone=given.zone,
        metrics=Place.parse(given.metrics_listen, "--metrics-listen") if given.metrics_listen else None,
        settings=found["router"],
        face_settings=faces,
        frames=frames,
        level=spoken_level(os.environ),
    )


def worker_arguments(given: argparse.Namespace) -> list[str]:
    """The flags that a worker gets from its parent, beside its name and the ports."""
    arguments = ["--coordinators", given.coordinators, "--zone", given.zone, *settings_arguments(given)]
    return arguments + face_tls_arguments(given)


async def serve(given: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    options = options_from(given)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if given.worker:
        await _stop_at_end_of_input(stop)
    if given.workers > 1:
        places = options.http, options.grpc, options.metrics
        await Workers(given.workers, options.node_id, *places, worker_arguments(given)).run(stop)
    else:
        await RouterProcess(options).run(stop)


async def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    """A worker ends with its parent, whose end closes the pipe."""

    class Input(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            stop.set()

        def eof_received(self) -> None:
            stop.set()

    await asyncio.get_running_loop().connect_read_pipe(Input, sys.stdin)


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 after a signal, 2 when it cannot start as told, 1 for anything else."""
    given = parser().parse_args(arguments)
    try:
        log_as_told(given, "router", given.node_id)
        run_loop(serve(given))
    except InvalidArgumentError as error:
        sys.stderr.write(f"omendb router: {error}\n")
        return 2
    except OmenDBError as error:
        sys.stderr.write(f"omendb router: {error}\n")
        return 1
    except ExceptionGroup as group:
        sys.stderr.write(f"omendb router: {group.exceptions[0]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

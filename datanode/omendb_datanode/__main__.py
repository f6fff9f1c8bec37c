"""``python -m omendb_datanode``: one data node."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import cast

from omendb_common.config import load_settings
from omendb_common.errors import InvalidArgumentError, OmenDBError, ReplicaFailedError
from omendb_common.security.tls import TlsFiles
from omendb_common.telemetry.logs import LogFormat, configure
from omendb_datanode.config import settings_from
from omendb_datanode.node import DataNodeProcess, Options

EXIT_USAGE = 2
EXIT_FAILED_DISK = 74
"""A replica's log could not be written: start the process again, it recovers from the disk."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="omendb datanode", description="Holds replicas of shards.")
    parser.add_argument("--dir", required=True, help="folder of this node, used by no other process")
    parser.add_argument("--node-id", required=True, help="its name in the cluster, for ever")
    parser.add_argument("--listen", default="127.0.0.1:8480", help="host:port for routers; port 0 takes any")
    parser.add_argument("--advertise", default="", help="host:port where routers find it, when it is another one")
    parser.add_argument("--coordinators", required=True, help="host:port of every coordinator, with commas")
    parser.add_argument("--zone", default="", help="where it stands: replicas of a shard are spread over zones")
    parser.add_argument("--metrics-listen", default="", help="host:port for health and metrics")
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--tls-{name}", help=f"PEM file of the {name}; all three or none")
    return parser


def options_from(arguments: list[str] | None = None) -> Options:
    """The command line, with the settings of the environment; InvalidArgumentError when it makes no sense."""
    given = _parser().parse_args(arguments)
    files = [given.tls_ca, given.tls_cert, given.tls_key]
    if any(files) and not all(files):
        raise InvalidArgumentError("got some of the three", field="tls", bound="--tls-ca, --tls-cert and --tls-key")
    return Options(
        folder=given.dir,
        node_id=given.node_id,
        listen=given.listen,
        coordinators=tuple(filter(None, given.coordinators.split(","))),
        zone=given.zone,
        advertise=given.advertise,
        metrics_listen=given.metrics_listen,
        tls=TlsFiles(*files) if all(files) else None,
        settings=settings_from(os.environ),
        engine=load_settings().settings,
    )


async def serve(options: Options) -> None:
    """Run a data node until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await DataNodeProcess(options).run(stop)


def main() -> int:
    """Run; 0 after a signal, 2 when it cannot start as told, 74 after a failed disk, 1 for anything else."""
    try:
        options = options_from()
        form = cast(LogFormat, os.environ.get("OMENDB_LOG_FORMAT", "text"))
        level = os.environ.get("OMENDB_LOG_LEVEL", "info")
        configure(form=form, level=level, role="datanode", node_id=options.node_id)
        os.makedirs(options.folder, exist_ok=True)
        _run(options)
    except InvalidArgumentError as problem:
        sys.stderr.write(f"omendb datanode: {problem}\n")
        return EXIT_USAGE
    except ReplicaFailedError as problem:
        sys.stderr.write(f"omendb datanode: {problem}\n")
        return EXIT_FAILED_DISK
    except (OmenDBError, OSError) as problem:
        sys.stderr.write(f"omendb datanode: {problem}\n")
        return 1
    return 0


def _run(options: Options) -> None:
    try:
        import uvloop  # a faster loop where it is installed
    except ImportError:
        asyncio.run(serve(options))
    else:
        uvloop.run(serve(options))


if __name__ == "__main__":
    sys.exit(main())

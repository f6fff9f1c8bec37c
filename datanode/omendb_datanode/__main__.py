"""``python -m omendb_datanode``: one data node."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import Any

from omendb_common.config import load_settings
from omendb_common.errors import InvalidArgumentError, OmenDBError, ReplicaFailedError
from omendb_common.feature_level import spoken_level
from omendb_common.process_flags import add_settings_flags, add_tls_flags, log_as_told, overrides, tls_files
from omendb_common.wire.frames import FrameLimits
from omendb_common.wire.process_loop import run_loop
from omendb_datanode import keeping
from omendb_datanode.config import DataNodeSettings, RepairSettings
from omendb_datanode.node import DataNodeProcess, Options

EXIT_USAGE = 2
EXIT_FAILED_DISK = 74
"""A replica's log could not be written: start the process again, it recovers from the disk."""

GROUPS: dict[str, type[Any]] = {"datanode": DataNodeSettings, "repair": RepairSettings, "frames": FrameLimits}
"""The groups of settings that a data node reads beside those of its engine."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="omendb datanode", description="Holds replicas of shards.")
    parser.add_argument("--dir", required=True, help="folder of this node, used by no other process")
    parser.add_argument("--node-id", required=True, help="its name in the cluster, for ever")
    parser.add_argument("--listen", default="127.0.0.1:8480", help="host:port for routers; port 0 takes any")
    parser.add_argument("--advertise", default="", help="host:port where routers find it, when it is another one")
    parser.add_argument("--coordinators", required=True, help="host:port of every coordinator, with commas")
    parser.add_argument("--zone", default="", help="where it stands: replicas of a shard are spread over zones")
    parser.add_argument("--metrics-listen", default="", help="host:port for health and metrics")
    parser.add_argument("--profile", help="developer, production or cloud, and speed, balanced or quality")
    add_settings_flags(parser)
    add_tls_flags(parser)
    return parser


def options_from(given: argparse.Namespace) -> Options:
    """The command line, with the settings of file and environment; InvalidArgumentError when it makes no sense."""
    found = load_settings(given.profile, given.config, None, overrides(given), beside=GROUPS)
    return Options(
        folder=given.dir,
        node_id=given.node_id,
        listen=given.listen,
        coordinators=tuple(filter(None, given.coordinators.split(","))),
        zone=given.zone,
        advertise=given.advertise,
        metrics_listen=given.metrics_listen,
        tls=tls_files(given),
        settings=found.beside["datanode"],
        repair=found.beside["repair"],
        frames=found.beside["frames"],
        engine=found.settings,
        level=spoken_level(os.environ),
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
        if sys.argv[1:2] == [keeping.COMMAND]:
            keeping.run(sys.argv[2:])
            return 0
        given = _parser().parse_args()
        options = options_from(given)
        log_as_told(given, "datanode", options.node_id)
        os.makedirs(options.folder, exist_ok=True)
        run_loop(serve(options))
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


if __name__ == "__main__":
    sys.exit(main())

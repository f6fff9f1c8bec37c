"""``python -m omendb_coordinator``: one coordinator."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from omendb_common.config import load_groups
from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.feature_level import spoken_level
from omendb_common.process_flags import add_settings_flags, add_tls_flags, log_as_told, overrides, tls_files
from omendb_common.wire.process_loop import run_loop
from omendb_coordinator import restoring
from omendb_coordinator.config import CoordinatorSettings
from omendb_coordinator.process import Options, parse_address, parse_peers, serve

GROUPS: dict[str, type[Any]] = {"coordinator": CoordinatorSettings}
"""The groups of settings that a coordinator reads."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="omendb coordinator", description="One member of the group of coordinators.")
    parser.add_argument("--dir", required=True, help="folder of this member, used by no other process")
    parser.add_argument("--node-id", required=True, help="its name in the group, for ever")
    parser.add_argument("--listen", default="127.0.0.1:8490", help="host:port for gRPC; port 0 takes any")
    parser.add_argument("--raft-listen", default="127.0.0.1:8491", help="host:port for the other coordinators")
    parser.add_argument("--peers", default="", help="all members: c1=RAFT/GRPC,c2=… with host:port each; none: alone")
    parser.add_argument("--bootstrap", action="store_true", help="make the folder of a new group; harmless later on")
    parser.add_argument("--rejoin", action="store_true", help="make the folder of a member that lost it")
    parser.add_argument("--zone", default="", help="where it stands, for people")
    parser.add_argument("--metrics-listen", help="host:port for health and metrics")
    add_settings_flags(parser)
    add_tls_flags(parser)
    return parser


def options_from(given: argparse.Namespace) -> Options:
    """The command line, with the settings of file and environment; InvalidArgumentError when it makes no sense."""
    return Options(
        folder=given.dir,
        node_id=given.node_id,
        listen=parse_address(given.listen, "listen"),
        raft_listen=parse_address(given.raft_listen, "raft_listen"),
        peers=parse_peers(given.peers),
        bootstrap=given.bootstrap,
        rejoin=given.rejoin,
        zone=given.zone,
        metrics_listen=parse_address(given.metrics_listen, "metrics_listen") if given.metrics_listen else None,
        tls=tls_files(given),
        settings=load_groups(GROUPS, given.config, None, overrides(given))["coordinator"],
        level=spoken_level(os.environ),
    )


def main() -> int:
    """Run; 0 after a signal, 2 when it cannot start as told, 1 for anything else."""
    try:
        if sys.argv[1:2] == [restoring.COMMAND]:
            restoring.run(sys.argv[2:])
            return 0
        given = _parser().parse_args()
        options = options_from(given)
        log_as_told(given, "coordinator", options.node_id)
        os.makedirs(options.folder, exist_ok=True)
        run_loop(serve(options))
    except InvalidArgumentError as problem:
        sys.stderr.write(f"omendb coordinator: {problem}\n")
        return 2
    except (OmenDBError, OSError) as problem:
        sys.stderr.write(f"omendb coordinator: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

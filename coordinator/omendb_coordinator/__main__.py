"""``python -m omendb_coordinator``: one coordinator."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import cast

from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.security.tls import TlsFiles
from omendb_common.telemetry.logs import LogFormat, configure
from omendb_coordinator.config import settings_from
from omendb_coordinator.process import Options, parse_address, parse_peers, serve


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
        listen=parse_address(given.listen, "listen"),
        raft_listen=parse_address(given.raft_listen, "raft_listen"),
        peers=parse_peers(given.peers),
        bootstrap=given.bootstrap,
        rejoin=given.rejoin,
        zone=given.zone,
        metrics_listen=parse_address(given.metrics_listen, "metrics_listen") if given.metrics_listen else None,
        tls=TlsFiles(*files) if all(files) else None,
        settings=settings_from(os.environ),
    )


def _run(options: Options) -> None:
    try:
        import uvloop  # a faster loop where it is installed
    except ImportError:
        asyncio.run(serve(options))
    else:
        uvloop.run(serve(options))


def main() -> int:
    """Run; 0 after a signal, 2 when it cannot start as told, 1 for anything else."""
    try:
        options = options_from()
        form = cast(LogFormat, os.environ.get("OMENDB_LOG_FORMAT", "text"))
        level = os.environ.get("OMENDB_LOG_LEVEL", "info")
        configure(form=form, level=level, role="coordinator", node_id=options.node_id)
        os.makedirs(options.folder, exist_ok=True)
        _run(options)
    except InvalidArgumentError as problem:
        sys.stderr.write(f"omendb coordinator: {problem}\n")
        return 2
    except (OmenDBError, OSError) as problem:
        sys.stderr.write(f"omendb coordinator: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""For the tests of programs that use OmenDB: a real server for a while."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from omendb.fleet.process import FleetProcess

START_S = 60.0
GRACE_S = 10.0


@contextlib.contextmanager
def served(path: str | os.PathLike[str], *settings: str, grpc: bool = False) -> Iterator[str]:
    """The URL of a single-node server over the folder ``path``, which runs as long as the ``with`` block.

    Args:
        settings: ``name=value`` each, such as ``durability=os``.
        grpc: whether the URL names its gRPC, instead of REST and frames.

    Raises:
        UnavailableError: it did not start; the error has the end of its log.
    """
    ports = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    with tempfile.TemporaryDirectory(prefix="omendb-served-") as folder:
        process = FleetProcess("server", "omendb_server", [os.fspath(path), *ports, *flags], Path(folder))
        process.start()
        try:
            told = process.wait_ready(START_S)
            yield f"grpc://{told['grpc']}" if grpc else f"http://{told['http']}"
        finally:
            process.stop(GRACE_S)


__all__ = ["GRACE_S", "START_S", "served"]

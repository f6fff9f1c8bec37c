"""``omendb serve``, ``coordinator``, ``router`` and ``datanode``: this process becomes one of a server's."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Sequence

import typer

from omendb.cli.terminal import fail, reported

DEFAULT_FOLDER = "./my.db"
# What its modules need beyond an embedded database, by what the extra brings.
_NEEDED = (
    *("grpc", "grpc_health", "grpc_reflection", "google.protobuf", "starlette", "uvicorn", "httptools", "msgspec"),
    *("prometheus_client", "cryptography"),
)
FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": list[str]()}


@reported
def serve(context: typer.Context) -> None:
    """Serve a database folder (PATH, ./my.db by default) over REST and gRPC: router, data node and catalog in one."""
    given = context.args
    path = [] if given and (not given[0].startswith("-") or given[0] in ("-h", "--help")) else [DEFAULT_FOLDER]
    _become("omendb_server", [*path, *given])


@reported
def coordinator(context: typer.Context) -> None:
    """Run a coordinator: one of the 1, 3 or 5 that keep the catalog."""
    _become("omendb_coordinator", context.args)


@reported
def router(context: typer.Context) -> None:
    """Run a router: it takes REST and gRPC calls."""
    _become("omendb_router", context.args)


@reported
def datanode(context: typer.Context) -> None:
    """Run a data node: it keeps replicas."""
    _become("omendb_datanode", context.args)


def _become(module: str, arguments: Sequence[str]) -> None:
    """Run a module as this process's main program; what it exits with is what the command exits with."""
    missing = missing_package()
    if missing is not None:
        fail(f"{missing} is not installed: pip install 'omendb[server]'", 2)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def missing_package() -> str | None:
    """A package that servers need and that is not installed; None when all are there."""
    return next((name for name in _NEEDED if not _is_there(name)), None)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


__all__ = ["DEFAULT_FOLDER", "FLAGS", "coordinator", "datanode", "missing_package", "router", "serve"]

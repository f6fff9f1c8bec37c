"""The flags that every process has: its settings, how it logs, and its certificates."""

from __future__ import annotations

import argparse
import os
from typing import cast

from omendb_common.errors import InvalidArgumentError
from omendb_common.security.tls import TlsFiles
from omendb_common.telemetry.logs import LEVELS, LogFormat, configure

_TLS = ("ca", "cert", "key")


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """``--config``, ``--set``, ``--log-format`` and ``--log-level``."""
    parser.add_argument("--config", metavar="FILE", help="a YAML file of settings; else OMENDB_CONFIG")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one setting; may be repeated")
    parser.add_argument("--log-format", choices=("text", "json"), help="how log lines are written; text by default")
    parser.add_argument("--log-level", choices=LEVELS, help="the least that is logged; info by default")


def add_tls_flags(parser: argparse.ArgumentParser) -> None:
    """``--tls-ca``, ``--tls-cert`` and ``--tls-key``."""
    for name in _TLS:
        parser.add_argument(f"--tls-{name}", help=f"PEM file of the {name} inside the cluster; all three or none")


def overrides(given: argparse.Namespace) -> dict[str, str]:
    """What ``--set`` says, by name; InvalidArgumentError when it is not NAME=VALUE."""
    found = {}
    for text in given.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgumentError(f"got {text!r}", field="--set", bound="NAME=VALUE")
        found[name] = value
    return found


def tls_files(given: argparse.Namespace) -> TlsFiles | None:
    """The files for TLS inside the cluster; None without; InvalidArgumentError when some are missing."""
    files = [getattr(given, f"tls_{name}") for name in _TLS]
    if any(files) and not all(files):
        raise InvalidArgumentError("got some of the three", field="tls", bound="--tls-ca, --tls-cert and --tls-key")
    return TlsFiles(*files) if all(files) else None


def log_as_told(given: argparse.Namespace, role: str, node_id: str = "") -> None:
    """Set logging up by the flags, else by ``OMENDB_LOG_FORMAT`` and ``OMENDB_LOG_LEVEL``.

    Raises:
        InvalidArgumentError: the environment names no form or no level.
    """
    form = cast(LogFormat, given.log_format or os.environ.get("OMENDB_LOG_FORMAT") or "text")
    configure(
        form=form, level=given.log_level or os.environ.get("OMENDB_LOG_LEVEL") or "info", role=role, node_id=node_id
    )


def settings_arguments(given: argparse.Namespace) -> list[str]:
    """The flags of :func:`add_settings_flags` and :func:`add_tls_flags` as they were given, for a child process."""
    arguments = [part for text in given.set for part in ("--set", text)]
    for name in ("config", "log_format", "log_level", *(f"tls_{part}" for part in _TLS)):
        if getattr(given, name) is not None:
            arguments += [f"--{name.replace('_', '-')}", getattr(given, name)]
    return arguments


__all__ = [
    "add_settings_flags",
    "add_tls_flags",
    "log_as_told",
    "overrides",
    "settings_arguments",
    "tls_files",
]

"""The command line of a process with faces: what clients are shown as a certificate."""

from __future__ import annotations

import argparse

from omendb_common.errors import InvalidArgumentError
from omendb_router.config import FaceTls

_FILES = ("cert", "key")


def add_face_tls_flags(parser: argparse.ArgumentParser) -> None:
    """``--face-tls-cert`` and ``--face-tls-key``."""
    for name in _FILES:
        parser.add_argument(
            f"--face-tls-{name}", help=f"PEM file of the {name} for REST and gRPC clients; both or none"
        )


def face_tls(given: argparse.Namespace) -> FaceTls | None:
    """The files as they were given; InvalidArgumentError when there is only one of them."""
    cert, key = (getattr(given, f"face_tls_{name}") for name in _FILES)
    if not cert and not key:
        return None
    if not cert or not key:
        raise InvalidArgumentError("got one of them", field="tls", bound="--face-tls-cert and --face-tls-key, or none")
    return FaceTls(cert, key)


def face_tls_arguments(given: argparse.Namespace) -> list[str]:
    """The flags as they were given, for a child process."""
    arguments: list[str] = []
    for name in _FILES:
        value = getattr(given, f"face_tls_{name}")
        if value is not None:
            arguments += [f"--face-tls-{name}", value]
    return arguments


__all__ = ["add_face_tls_flags", "face_tls", "face_tls_arguments"]

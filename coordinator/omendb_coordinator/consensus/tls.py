"""TLS between members: both show a certificate, which must name the member that they say they are."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from omendb_common.security.renewal import RenewedTls, renewed
from omendb_common.security.tls import TlsFiles, peer_name

ROLE = "coordinator"


@dataclass(frozen=True, slots=True)
class RaftTls:
    """One context for each side of a connection, of the files as they are when it begins."""

    files: RenewedTls

    @staticmethod
    def from_files(ca: str, cert: str, key: str) -> RaftTls:
        """TLS 1.3 only; whoever is not signed by ``ca`` is refused. InvalidArgumentError when a file is bad."""
        return RaftTls(renewed(TlsFiles(ca, cert, key)))

    @property
    def server(self) -> ssl.SSLContext:
        """For a listener."""
        return self.files.server

    @property
    def client(self) -> ssl.SSLContext:
        """For the next connection."""
        return self.files.client


def shows(connection: ssl.SSLObject | ssl.SSLSocket | None, member: str) -> bool:
    """Whether the verified certificate of the other side is that of ``member``, a coordinator.

    The cluster is not looked for in it: members name their cluster in the greeting, by the name in their folders.
    """
    name = peer_name(connection)
    return name is not None and name.node_id == member and name.role in ("", ROLE)


__all__ = ["ROLE", "RaftTls", "shows"]

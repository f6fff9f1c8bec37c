"""TLS between members: both show a certificate, and its name must be the member's id."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RaftTls:
    """One context for each side of a connection."""

    server: ssl.SSLContext
    client: ssl.SSLContext

    @staticmethod
    def from_files(ca: str, cert: str, key: str) -> RaftTls:
        """TLS 1.3 only; whoever is not signed by ``ca`` is refused. OSError or ssl.SSLError when a file is bad."""
        contexts = []
        for purpose in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
            context = ssl.SSLContext(purpose)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            # The name is compared with the member's id: members are dialled by addresses that may change.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(ca)
            context.load_cert_chain(cert, key)
            contexts.append(context)
        return RaftTls(*contexts)


def names_of(certificate: dict[str, Any] | None) -> set[str]:
    """The common name and the DNS names of a certificate that was verified."""
    if not certificate:
        return set()
    names = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    return names | {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}


__all__ = ["RaftTls", "names_of"]

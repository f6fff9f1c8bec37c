"""Mutual TLS between the processes of a cluster: contexts from three files, and the name in a certificate.

A certificate names its process by a URI in its subject alternative names, ``spiffe://CLUSTER/ROLE/NODE``. One without
such a URI names a node by its common name, whatever the cluster and the role. Host names are not checked: processes
move between hosts, and it is the process that must be known.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from omendb_common.errors import InvalidArgumentError

SCHEME = "spiffe"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: the authority that both sides trust, this process's certificate, and its key.

    Without an authority (``ca`` is empty) they serve a face, whose clients need no certificate.
    """

    ca: str
    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class PeerName:
    """The process that a certificate names; empty parts are not named."""

    cluster_id: str
    role: str
    node_id: str

    def covers(self, cluster_id: str, role: str, node_id: str) -> bool:
        """Whether the certificate may be shown by the process that says it is this one."""
        named = ((self.cluster_id, cluster_id), (self.role, role), (self.node_id, node_id))
        return bool(self.node_id) and all(not mine or mine == said for mine, said in named)

    def __str__(self) -> str:
        return "/".join(part for part in (self.cluster_id, self.role, self.node_id) if part) or "nobody"


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that accepts only clients with a certificate of the same authority, over TLS 1.3.

    Without an authority: any client, over TLS 1.2 or 1.3, as those of REST and gRPC speak.

    Raises:
        InvalidArgumentError: a file is missing, unreadable, no PEM, or the key is not that of the certificate.
    """
    return _context(ssl.PROTOCOL_TLS_SERVER, files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that accepts only servers with a certificate of the same authority, over TLS 1.3.

    Raises:
        InvalidArgumentError: as :func:`server_context`.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if files.ca else ssl.TLSVersion.TLSv1_2
    if files.ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        # A resumed session would be one more thing to revoke; connections here are few and last.
        context.options |= ssl.OP_NO_TICKET
        try:
            context.load_verify_locations(cafile=files.ca)
        except (OSError, ssl.SSLError) as error:
            raise _unreadable("tls_ca", files.ca, error) from None
    try:
        context.load_cert_chain(files.cert, files.key, password=_refuse_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise _unreadable("tls_cert", f"{files.cert} with {files.key}", error) from None
    return context


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")


def _unreadable(field: str, path: str, error: Exception) -> InvalidArgumentError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InvalidArgumentError(f"cannot use {path}: {why}", field=field, bound="PEM files that belong together")


def peer_name(ssl_object: ssl.SSLObject | ssl.SSLSocket | None) -> PeerName | None:
    """The process that the verified certificate of a connection's peer names; None without TLS."""
    if ssl_object is None:
        return None
    certificate: Mapping[str, Any] = ssl_object.getpeercert() or {}
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "URI" and (name := parse_name(value)) is not None:
            return name
    for attributes in certificate.get("subject", ()):
        for key, value in attributes:
            if key == "commonName":
                return PeerName("", "", value)
    return PeerName("", "", "")


def name_uri(cluster_id: str, role: str, node_id: str) -> str:
    """The URI that names a process in its certificate."""
    return f"{SCHEME}://" + "/".join(quote(part, safe="") for part in (cluster_id, role, node_id))


def parse_name(uri: str) -> PeerName | None:
    """The process that a URI names; None when it is not of this form."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    path = parts.path.split("/")
    if parts.scheme != SCHEME or len(path) != 3 or path[0] or not all((parts.netloc, path[1], path[2])):
        return None
    return PeerName(unquote(parts.netloc), unquote(path[1]), unquote(path[2]))


def read_files(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    """The bytes of the three files, in the order of :class:`TlsFiles`, for gRPC's credentials.

    Raises:
        InvalidArgumentError: one cannot be read.
    """
    read = []
    for field, path in (("tls_ca", files.ca), ("tls_cert", files.cert), ("tls_key", files.key)):
        try:
            read.append(Path(path).read_bytes() if path else b"")
        except OSError as error:
            raise _unreadable(field, path, error) from None
    return read[0], read[1], read[2]


__all__ = [
    "SCHEME",
    "PeerName",
    "TlsFiles",
    "client_context",
    "name_uri",
    "parse_name",
    "peer_name",
    "read_files",
    "server_context",
]

"""gRPC's credentials out of the same three files, and the name of a call's peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from omendb_common.security.renewal import Loaded, renewed
from omendb_common.security.tls import PeerName, TlsFiles, parse_name


def server_credentials(files: TlsFiles) -> Any:
    """``grpc.ServerCredentials`` that ask every client for a certificate of the same authority, if there is one.

    Files that are renewed hold for connections made from then on.

    Raises:
        InvalidArgumentError: a file cannot be used.
    """
    watched = renewed(files)
    given = watched.current()

    def newer() -> Any:
        """What gRPC asks for before every handshake; None when it has the newest."""
        nonlocal given
        newest = watched.current()
        if newest.generation == given.generation:
            return None
        given = newest
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), newer, require_client_authentication=bool(files.ca)
    )


def _configuration(loaded: Loaded) -> Any:
    return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.cert)], root_certificates=loaded.ca or None)


def channel_credentials(files: TlsFiles) -> Any:
    """``grpc.ChannelCredentials`` that show this process's certificate and check the server's.

    gRPC checks the host name too: the server's certificate must name the address that is called. A channel keeps the
    files that it began with; :class:`RenewedTls` tells when it is time for another one.

    Raises:
        InvalidArgumentError: a file cannot be used.
    """
    loaded = renewed(files).current()
    return grpc.ssl_channel_credentials(
        root_certificates=loaded.ca, private_key=loaded.key, certificate_chain=loaded.cert
    )


def peer_name_of_call(auth_context: Mapping[str, Sequence[bytes]]) -> PeerName | None:
    """The process that called, out of ``ServicerContext.auth_context()``; None without TLS."""
    if b"ssl" not in auth_context.get("transport_security_type", ()):
        return None
    for value in auth_context.get("x509_subject_alternative_name", ()):
        name = parse_name(value.decode("utf-8", "replace"))
        if name is not None:
            return name
    names = [value.decode("utf-8", "replace") for value in auth_context.get("x509_common_name", ())]
    return PeerName("", "", names[0] if names else "")


__all__ = ["channel_credentials", "peer_name_of_call", "server_credentials"]

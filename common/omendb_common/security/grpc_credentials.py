"""gRPC's credentials out of the same three files, and the name of a call's peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from omendb_common.security.tls import PeerName, TlsFiles, parse_name, read_files


def server_credentials(files: TlsFiles) -> Any:
    """``grpc.ServerCredentials`` that ask every client for a certificate of the same authority.

    Raises:
        InvalidArgumentError: a file cannot be read.
    """
    ca, cert, key = read_files(files)
    return grpc.ssl_server_credentials([(key, cert)], root_certificates=ca, require_client_auth=True)


def channel_credentials(files: TlsFiles) -> Any:
    """``grpc.ChannelCredentials`` that show this process's certificate and check the server's.

    gRPC checks the host name too: the server's certificate must name the address that is called.

    Raises:
        InvalidArgumentError: a file cannot be read.
    """
    ca, cert, key = read_files(files)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


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

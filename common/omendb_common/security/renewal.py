"""Certificates that are renewed on disk while a process runs: new connections use the new ones.

The files are looked at when a connection begins (three ``stat`` calls) and when metrics are read, so there is nothing
to signal and nothing that runs in between. What has changed is read whole into new contexts, and only what makes a
working whole takes the old one's place: a certificate that is written before its key is passed over until the key is
there too. Connections that stand stay as they are.
"""

from __future__ import annotations

import functools
import logging
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from omendb_common.clock import SystemClock
from omendb_common.errors import InvalidArgumentError
from omendb_common.security.tls import TlsFiles, client_context, read_files, server_context

_LOG = logging.getLogger(__name__)
_Print = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One state of the files. ``client`` is None for a face, which has no authority and calls nobody.

    ``ends_s``: when the certificate ends, in seconds since 1970.
    """

    generation: int
    server: ssl.SSLContext
    client: ssl.SSLContext | None
    ca: bytes
    cert: bytes
    key: bytes
    ends_s: float


class RenewedTls:
    """The files of one certificate, as they are now. Thread-safe: gRPC asks from threads of its own.

    Raises:
        InvalidArgumentError: they cannot be used, when there is nothing older to go on with.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._print()
        self._loaded = self._load(1)
        self._server = server_context(files)
        self._server.sni_callback = self._take_newest

    @property
    def server(self) -> ssl.SSLContext:
        """A context for a listener: every handshake on it uses the newest files."""
        return self._server

    @property
    def client(self) -> ssl.SSLContext:
        """The newest context for a connection to a server."""
        client = self.current().client
        assert client is not None, "a face calls nobody"
        return client

    def current(self) -> Loaded:
        """The newest state that works, after a look at the files."""
        with self._lock:
            seen = self._print()
            if seen != self._seen:
                self._renew(seen)
            return self._loaded

    def left_s(self) -> float:
        """Seconds until the certificate in use ends; negative when it has."""
        return self.current().ends_s - SystemClock().wall_ms() / 1000

    def _renew(self, seen: _Print) -> None:
        self._seen = seen
        try:
            loaded = self._load(self._loaded.generation + 1)
        except InvalidArgumentError as error:
            _LOG.error("the certificate on disk is not used, the old one stays: %s", error)
            return
        now_s = SystemClock().wall_ms() / 1000
        if loaded.ends_s < now_s and loaded.ends_s < self._loaded.ends_s:
            _LOG.error("%s has ended already, the old one stays", self._files.cert)
            return
        if self._print() != seen:
            # Somebody is still writing: the next look finds other files again.
            self._seen = ()
            return
        self._loaded = loaded
        _LOG.info("%s is renewed, for %.1f days from now", self._files.cert, (loaded.ends_s - now_s) / 86_400)

    def _load(self, generation: int) -> Loaded:
        files = self._files
        client = client_context(files) if files.ca else None
        server = server_context(files)
        ca, cert, key = read_files(files)
        try:
            ends = x509.load_pem_x509_certificate(cert).not_valid_after_utc
        except ValueError as error:
            raise InvalidArgumentError(
                f"cannot use {files.cert}: {error}", field="tls_cert", bound="a certificate in PEM"
            ) from None
        return Loaded(generation, server, client, ca, cert, key, ends.timestamp())

    def _print(self) -> _Print:
        """What changes when a file does, also behind a link, as Kubernetes swaps them; None: it is not there."""
        return tuple(_stat(path) for path in (self._files.ca, self._files.cert, self._files.key))

    def _take_newest(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, asked: Any) -> None:
        # OpenSSL calls this for every handshake, whether a name was sent or not.
        connection.context = self.current().server


def _stat(path: str) -> tuple[int, ...] | None:
    try:
        found = Path(path).stat() if path else None
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


@functools.lru_cache(maxsize=1024)
def _renewed(files: TlsFiles) -> RenewedTls:
    return RenewedTls(files)


def renewed(files: TlsFiles) -> RenewedTls:
    """The one watch of these files in this process; InvalidArgumentError when they cannot be used."""
    return _renewed(TlsFiles(*(os.path.abspath(path) if path else "" for path in (files.ca, files.cert, files.key))))


__all__ = ["Loaded", "RenewedTls", "renewed"]

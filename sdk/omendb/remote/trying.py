"""What every way of calling a router shares: what a client shows and trusts, and what a failed try is."""

from __future__ import annotations

import ssl
from pathlib import Path

from omendb_common.errors import InvalidArgumentError, OmenDBError


class Tls:
    """What a client shows and trusts: a CA to believe (the system's when None), and its own certificate for mTLS."""

    def __init__(self, ca: str | None = None, cert: str | None = None, key: str | None = None) -> None:
        if (cert is None) != (key is None):
            raise InvalidArgumentError("got one of cert and key", field="tls_cert, tls_key", bound="both or none")
        self._ca, self._cert, self._key = ca, cert, key

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The bytes of the files, in the order in which they are given."""
        ca, cert, key = (None if f is None else Path(f).read_bytes() for f in (self._ca, self._cert, self._key))
        return ca, cert, key

    def context(self) -> ssl.SSLContext:
        """For HTTPS, and what is made of it."""
        context = ssl.create_default_context(cafile=self._ca)
        if self._cert is not None:
            context.load_cert_chain(self._cert, self._key)
        return context


class CallFailed(Exception):
    """A try that failed: with which error, and whether the router itself ``answered`` so."""

    def __init__(self, error: OmenDBError, *, answered: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.answered = answered


__all__ = ["CallFailed", "Tls"]

"""Where routers are: from what a user writes to addresses of frames and gRPC.

``http://host:8480`` names a router by its REST address, where it speaks frames too. Where it does not, it says itself
(``GET /info``) where its gRPC is, and when it cannot be asked, that is taken to be one port above.
``grpc://host:8481`` names it directly; ``https`` and ``grpcs`` are the same with TLS.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from omendb_common.errors import InvalidArgumentError

HTTP_PORT = 8480
GRPC_PORT = 8481
ROUTERS_MAX = 64
_ASK_TIMEOUT_S = 2.0
_SCHEMES = {"http": False, "https": True, "grpc": False, "grpcs": True}
_BOUND = "http://host:8480, https://…, grpc://host:8481 or grpcs://…"


class Address(NamedTuple):
    """One router. ``asked`` is the REST address that knows the gRPC port; None when the port is known.

    ``http_port``: REST's and frames'; None where only gRPC was named.
    """

    host: str
    grpc_port: int
    secure: bool
    asked: str | None = None
    http_port: int | None = None

    @property
    def http(self) -> str:
        """``host:port`` of REST and frames."""
        return f"[{self.host}]:{self.http_port}" if ":" in self.host else f"{self.host}:{self.http_port}"

    @property
    def target(self) -> str:
        """The gRPC target."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.grpc_port}"


def parse_addresses(url: str | Sequence[str]) -> list[Address]:
    """The routers that a URL, several separated by commas, or a list of URLs name.

    Raises:
        InvalidArgumentError: no URL, an unknown scheme, a bad port, or more than it needs.
    """
    urls = url.split(",") if isinstance(url, str) else url
    if isinstance(urls, (bytes, dict)) or not isinstance(urls, Sequence):
        raise InvalidArgumentError(f"got {url!r}", field="url", bound=_BOUND)
    if not 1 <= len(urls) <= ROUTERS_MAX:
        raise InvalidArgumentError(f"got {len(urls)} addresses", field="url", bound=f"1..{ROUTERS_MAX} of {_BOUND}")
    return [_parse(one) for one in urls]


def _parse(url: Any) -> Address:
    if not isinstance(url, str):
        raise InvalidArgumentError(f"got {url!r}", field="url", bound=_BOUND)
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError as error:
        raise InvalidArgumentError(f"got {url!r}: {error}", field="url", bound=_BOUND) from None
    _check(url, parts)
    secure = _SCHEMES[parts.scheme]
    host = parts.hostname or ""
    if parts.scheme.startswith("grpc"):
        return Address(host, GRPC_PORT if port is None else port, secure)
    http_port = HTTP_PORT if port is None else port
    shown = f"[{host}]" if ":" in host else host
    return Address(host, min(http_port + 1, 65_535), secure, f"{parts.scheme}://{shown}:{http_port}", http_port)


def _check(url: str, parts: SplitResult) -> None:
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.port == 0:
        raise InvalidArgumentError(f"got {url!r}", field="url", bound=_BOUND)
    if parts.username or parts.password or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidArgumentError(
            f"got {url!r}", field="url", bound=_BOUND, mend="leave out everything but scheme, host and port"
        )


def resolve(address: Address, context: ssl.SSLContext | None = None) -> Address:
    """The address with the gRPC port that the router itself tells, if it can be asked now."""
    if address.asked is None:
        return address
    told = ask_port(f"{address.asked}/info", context)
    return address if told is None else address._replace(grpc_port=told, asked=None)


Opener = Callable[..., Any]


def ask_port(url: str, context: ssl.SSLContext | None, opener: Opener = urllib.request.urlopen) -> int | None:
    """The ``grpc_port`` of a router's ``/info``; None when there is no such answer."""
    try:
        with opener(url, timeout=_ASK_TIMEOUT_S, context=context) as answer:
            value = json.loads(answer.read(1 << 16))
    except (OSError, ValueError, urllib.error.URLError):
        return None
    port = value.get("grpc_port") if isinstance(value, dict) else None
    return port if isinstance(port, int) and 0 < port < 65_536 else None


__all__ = ["GRPC_PORT", "HTTP_PORT", "ROUTERS_MAX", "Address", "ask_port", "parse_addresses", "resolve"]

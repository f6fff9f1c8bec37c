"""Bytes on an HTTP connection out of a seed: requests that are cut, lie about their length, or are none."""

from __future__ import annotations

import random

from omendb_chaos.fuzz import values

_HEADERS = (
    *("Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 0x10"),
    *("Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"),
    *("Transfer-Encoding: chunked\r\nContent-Length: 5", "Host: a\r\nHost: b", "X: " + "y" * 70_000, "No colon", ": x"),
    *("Upgrade: websocket\r\nConnection: Upgrade", "Expect: 100-continue", "Connection: close", "X\x00: y"),
)
_LINES = (
    *("POST /collections/c/search HTTP/1.1", "GET /collections HTTP/1.1", "GET /livez HTTP/1.0", "GET / HTTP/9.9"),
    *(
        "GET " + "/" * 70_000 + " HTTP/1.1",
        "POST /collections/c/count",
        "\x00\x01\x02",
        "PRI * HTTP/2.0",
        "get /livez HTTP/1.1",
    ),
    *(
        "GET http://other/collections HTTP/1.1",
        "GET /collections/%zz HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT a:1 HTTP/1.1",
    ),
)
_BODIES = (b"", b"{}", b"12345", b"5\r\n12345\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"5\r\n123", b"z\r\n")


def raw_http(dice: random.Random) -> bytes:
    """What to send on a fresh connection."""
    if dice.random() < 0.1:
        return dice.randbytes(dice.choice((1, 100, 5000)))
    headers = [dice.choice(_HEADERS) for _ in range(dice.randrange(3))]
    text = "\r\n".join([dice.choice(_LINES), "Host: t", *headers]) + "\r\n\r\n"
    data = text.encode("latin-1") + dice.choice(_BODIES)
    return values.damaged(dice, data) if dice.random() < 0.3 else data


__all__ = ["raw_http"]

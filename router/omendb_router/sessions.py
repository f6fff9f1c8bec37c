"""Session tokens: the newest stamp that a client has written, per shard, as opaque bytes (P10)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from omendb_common.errors import InvalidArgumentError
from omendb_common.hlc import STAMP_MAX

TOKEN_BYTES_MAX = 4096
"""The longest token that anybody takes; those that are made here have less than half of it."""

Written = Mapping[int, int]
"""Greatest stamp written, by shard number; that of :data:`EVERY_SHARD` holds for all of them."""

EVERY_SHARD = -1
_SHARDS_NAMED_MAX = 32


def encode_token(collection_uuid: str, written: Written) -> bytes:
    """The token of writes to shards of one collection; empty when nothing was written."""
    if not written:
        return b""
    if len(written) > _SHARDS_NAMED_MAX:
        # A token travels with every request: one that names hundreds of shards costs more than reading them all.
        written = {EVERY_SHARD: max(written.values())}
    value = {"c": collection_uuid, "s": {str(shard): stamp for shard, stamp in sorted(written.items())}}
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode())


def decode_token(token: bytes) -> tuple[str, Written]:
    """Collection and stamps of a token that :func:`encode_token` made.

    Raises:
        InvalidArgumentError: it was not made there.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise _malformed(f"{len(token)} bytes")
    try:
        value = json.loads(base64.urlsafe_b64decode(token))
        written = {int(shard): int(stamp) for shard, stamp in value["s"].items()}
        if not all(0 <= stamp <= STAMP_MAX for stamp in written.values()):
            raise ValueError("a stamp out of range")
        return str(value["c"]), written
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _malformed(str(error)) from None


def _malformed(what: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"malformed: {what}", field="session", bound="a token from an earlier write", mend="send it as it came, or none"
    )


__all__ = ["EVERY_SHARD", "TOKEN_BYTES_MAX", "Written", "decode_token", "encode_token"]

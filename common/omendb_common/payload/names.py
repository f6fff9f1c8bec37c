"""Names, kinds and limits of payload columns."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa

from omendb_common.errors import CorruptionError, InvalidArgumentError

Kind = Literal["b", "i", "f", "s", "t", "li", "lf", "ls", "lb", "lt", "j"]

# Limits. Each is tested at L and at L+1.
PATH_BYTES_MAX = 512
DEPTH_MAX = 16
FIELDS_MAX = 4096
PAYLOAD_BYTES_MAX = 1 << 20

TIME = pa.timestamp("us", tz="UTC")
TYPES: dict[Kind, Any] = {
    "b": pa.bool_(),
    "i": pa.int64(),
    "f": pa.float64(),
    "s": pa.string(),
    "t": TIME,
    "li": pa.list_(pa.int64()),
    "lf": pa.list_(pa.float64()),
    "ls": pa.list_(pa.string()),
    "lb": pa.list_(pa.bool_()),
    "lt": pa.list_(TIME),
    "j": pa.string(),
}
LIST_KINDS: dict[Kind, Kind] = {"b": "lb", "i": "li", "f": "lf", "s": "ls", "t": "lt"}
KINDS: tuple[Kind, ...] = tuple(TYPES)


def join_name(path: str, kind: Kind) -> str:
    """The column name of values of ``kind`` at ``path``."""
    return f"{path}#{kind}"


def split_name(column: str) -> tuple[str, Kind]:
    """Path and kind of a column name; the kind stands after the last ``#``.

    Raises:
        CorruptionError: the name was not made by :func:`join_name`.
    """
    path, mark, kind = column.rpartition("#")
    if not mark or kind not in TYPES:
        raise CorruptionError(f"{column!r} is no payload column", path="payload", bound="'<path>#<kind>'")
    return path, kind


def top_level_key(path: str) -> str:
    """The first component of a dotted path: the unit a partial update replaces."""
    return path.split(".", 1)[0]


def check_path(path: str) -> str:
    """Return ``path`` if it can address a payload field, else raise InvalidArgumentError.

    A path has at most 512 bytes of UTF-8 and 16 components; a dot always separates components, whether it
    came from nesting or stood in a key.
    """
    # A path of few characters cannot break either bound; most paths are.
    if len(path) < DEPTH_MAX and path.isascii():
        return path
    try:
        size = len(path.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"not UTF-8: {error}", field="metadata", bound="valid UTF-8 keys") from None
    if size > PATH_BYTES_MAX:
        raise InvalidArgumentError(
            f"the path {path[:40]!r}... has {size} bytes", field="metadata", bound=f"at most {PATH_BYTES_MAX} bytes"
        )
    depth = path.count(".") + 1
    if depth > DEPTH_MAX:
        raise InvalidArgumentError(
            f"the path {path[:40]!r}... is {depth} levels deep", field="metadata", bound=f"at most {DEPTH_MAX} levels"
        )
    return path


def check_key(key: object, parent: str) -> str:
    """Return ``key`` if it is a string, as object keys must be, else raise InvalidArgumentError."""
    if not isinstance(key, str):
        raise InvalidArgumentError(
            f"the key {key!r} is a {type(key).__name__}",
            field=field_of(parent) if parent else "metadata",
            bound="string keys",
            mend="convert it with str()",
        )
    return str(key)


def field_of(path: str) -> str:
    """How an error names the payload field at ``path``."""
    return f"metadata[{path!r}]"


__all__ = [
    "DEPTH_MAX",
    "FIELDS_MAX",
    "KINDS",
    "LIST_KINDS",
    "PATH_BYTES_MAX",
    "PAYLOAD_BYTES_MAX",
    "TIME",
    "TYPES",
    "Kind",
    "check_key",
    "check_path",
    "field_of",
    "join_name",
    "split_name",
    "top_level_key",
]

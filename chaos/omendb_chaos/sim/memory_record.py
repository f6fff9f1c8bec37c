"""One stored point as replication sees it: a map in which the last writer of each field wins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[Any]
FieldKey = tuple[str, str]
"""("vector", its name) or ("key", a top-level payload key)."""


@dataclass(frozen=True, slots=True)
class Record:
    """``base``: stamp of the whole point, 0 when it is not there. ``deleted``: stamp of the deletion, 0 when it lives.

    ``fields``: values newer than the base, each with its stamp; None for a key that was removed.
    """

    base: int = 0
    deleted: int = 0
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[FieldKey, tuple[int, Any]] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether the point exists."""
        return self.base > self.deleted

    @property
    def newest(self) -> int:
        """The greatest stamp in it."""
        return max(self.base, self.deleted, *(stamp for stamp, _ in self.fields.values()), 0)

    @property
    def exists(self) -> int:
        """The stamp that says whether the point exists: of its upsert, or of its deletion."""
        return max(self.base, self.deleted)

    def joined(self, other: Record) -> Record:
        """Both together: the same in every order, and any number of times."""
        whole = self if self.base >= other.base else other
        deleted = max(self.deleted, other.deleted)
        floor = max(whole.base, deleted)
        fields = dict(self.fields)
        for key, (stamp, value) in other.fields.items():
            if key not in fields or fields[key][0] < stamp:
                fields[key] = stamp, value
        fields = {key: cell for key, cell in fields.items() if cell[0] > floor}
        if whole.base > deleted:
            return Record(whole.base, 0, whole.vectors, whole.payload, fields)
        return Record(0, deleted, {}, {}, fields)

    def vector(self, name: str) -> Vector:
        """The vector of a field, as it is now."""
        cell = self.fields.get(("vector", name))
        vector: Vector = self.vectors[name] if cell is None else cell[1]
        return vector

    def metadata(self) -> dict[str, Any]:
        """The payload, as it is now."""
        out = dict(self.payload)
        for (kind, name), (_, value) in self.fields.items():
            if kind == "key":
                out.pop(name, None)
                if value is not None:
                    out[name] = value
        return out

    def mark(self) -> int:
        """64 bits over which fields carry which stamps."""
        text = json.dumps(sorted([*key, stamp] for key, (stamp, _) in self.fields.items()))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def digest(self) -> int:
        """64 bits over stamps and content."""
        said = {
            "stamps": [self.base, self.deleted],
            "vectors": {name: np.asarray(v).tobytes().hex() for name, v in self.vectors.items()},
            "payload": self.payload,
            "fields": sorted([*key, stamp, _plain(value)] for key, (stamp, value) in self.fields.items()),
        }
        text = json.dumps(said, sort_keys=True, default=str)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _plain(value: Any) -> str:
    return str(value.tobytes().hex() if isinstance(value, np.ndarray) else value)


__all__ = ["FieldKey", "Record", "Vector"]

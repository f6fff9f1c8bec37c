"""Collections' schemas: vector fields, metrics, element types and the limits of every input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from omendb_common.errors import FormatVersionError, InvalidArgumentError

Metric = Literal["l2", "cosine", "dot"]
VectorDType = Literal["float32", "float16", "int8", "uint8"]

METRICS: tuple[Metric, ...] = ("l2", "cosine", "dot")
VECTOR_DTYPES: tuple[VectorDType, ...] = ("float32", "float16", "int8", "uint8")
_ITEM_BYTES = {dtype: np.dtype(dtype).itemsize for dtype in VECTOR_DTYPES}

# Limits. Each is tested at L and at L+1.
DIMENSION_MAX = 65_536
K_MAX = 16_384
ID_BYTES_MAX = 512
COLLECTION_NAME_MAX = 255
QUERIES_PER_CALL_MAX = 65_536
SCROLL_LIMIT_MAX = 100_000
BATCH_BODY_BYTES_MAX = 1 << 30
SCHEMA_FORMAT = 1

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")


@dataclass(frozen=True, slots=True)
class VectorField:
    """One named vector of a collection; the unnamed one has the name ``""``."""

    dimension: int
    metric: Metric = "l2"
    dtype: VectorDType = "float32"
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.dimension, bool) or not isinstance(self.dimension, int):
            raise InvalidArgumentError(f"got {self.dimension!r}", field="dimension", bound="an integer")
        if not 1 <= self.dimension <= DIMENSION_MAX:
            raise InvalidArgumentError(f"got {self.dimension}", field="dimension", bound=f"1..{DIMENSION_MAX}")
        if self.metric not in METRICS:
            raise InvalidArgumentError(f"unknown metric {self.metric!r}", field="metric", bound=f"one of {METRICS}")
        if self.dtype not in VECTOR_DTYPES:
            raise InvalidArgumentError(f"unknown dtype {self.dtype!r}", field="dtype", bound=f"one of {VECTOR_DTYPES}")

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The NumPy element type."""
        return np.dtype(self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored vector."""
        return self.dimension * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class CollectionSchema:
    """What every replica of a collection agrees on.

    ``uuid`` identifies the collection for ever (a re-created one of the same name gets another).
    ``options`` holds index and search settings by name, as JSON values.
    """

    uuid: str
    vectors: tuple[VectorField, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    def vector(self, name: str = "") -> VectorField:
        """The vector field called ``name``; InvalidArgumentError when there is none."""
        for candidate in self.vectors:
            if candidate.name == name:
                return candidate
        names = [v.name for v in self.vectors]
        raise InvalidArgumentError(f"no vector field {name!r}", field="vector", bound=f"one of {names}")

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back."""
        return {
            "format": SCHEMA_FORMAT,
            "uuid": self.uuid,
            "version": self.version,
            "vectors": [
                {"name": v.name, "dimension": v.dimension, "metric": v.metric, "dtype": v.dtype} for v in self.vectors
            ],
            "options": dict(self.options),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CollectionSchema:
        """Read what :meth:`to_json` wrote; FormatVersionError when a newer release wrote it."""
        if int(value["format"]) > SCHEMA_FORMAT:
            raise FormatVersionError(
                f"schema format {value['format']}",
                field="schema",
                bound=f"at most {SCHEMA_FORMAT}",
                mend="upgrade omendb",
            )
        vectors = tuple(
            VectorField(int(v["dimension"]), cast(Metric, v["metric"]), cast(VectorDType, v["dtype"]), str(v["name"]))
            for v in value["vectors"]
        )
        return CollectionSchema(str(value["uuid"]), vectors, dict(value["options"]), int(value["version"]))


def check_collection_name(name: str) -> str:
    """Return ``name`` if it can name a collection, else raise InvalidArgumentError."""
    if not isinstance(name, str) or not _NAME.match(name) or len(name) > COLLECTION_NAME_MAX:
        raise InvalidArgumentError(
            f"got {name!r}",
            field="collection",
            bound=f"1..{COLLECTION_NAME_MAX} of letters, digits, '_', '-', '.', not starting with '-' or '.'",
        )
    return name


Float32Array = npt.NDArray[np.float32]

__all__ = [
    "BATCH_BODY_BYTES_MAX",
    "COLLECTION_NAME_MAX",
    "DIMENSION_MAX",
    "ID_BYTES_MAX",
    "K_MAX",
    "METRICS",
    "QUERIES_PER_CALL_MAX",
    "SCROLL_LIMIT_MAX",
    "VECTOR_DTYPES",
    "CollectionSchema",
    "Float32Array",
    "Metric",
    "VectorDType",
    "VectorField",
    "check_collection_name",
]

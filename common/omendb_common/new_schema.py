"""The schema of a collection to be made, out of what a caller said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omendb_common.config import FIELDS, check_value
from omendb_common.errors import InvalidArgumentError
from omendb_common.index_options import INDEX_KINDS, check_choice
from omendb_common.schema import CollectionSchema, Metric, VectorDType, VectorField, check_collection_name

VECTOR_FIELDS_MAX = 64

# A collection's own index options: the setting that bounds each, and its name in the schema.
_OPTIONS = {
    "hnsw_m": ("index.hnsw_m", "M"),
    "hnsw_ef_construction": ("index.hnsw_ef_construction", "ef_construction"),
    "quantization": ("index.quantization", "quantization"),
    "nlist": ("index.nlist", "nlist"),
}


def vector_fields(
    dimension: int | None, metric: Metric, dtype: VectorDType, vectors: Mapping[str, VectorField] | None
) -> tuple[VectorField, ...]:
    """One unnamed field, or several named ones; InvalidArgumentError for both, none, or a bad name."""
    if (dimension is None) == (vectors is None):
        raise InvalidArgumentError("got both or none", field="dimension, vectors", bound="exactly one of them")
    if vectors is None:
        return (VectorField(dimension, metric, dtype),)  # type: ignore[arg-type]  # checked there, also for None
    if not isinstance(vectors, Mapping) or not vectors:
        raise InvalidArgumentError(
            f"got {vectors!r}", field="vectors", bound="a mapping of at least one name to VectorField"
        )
    fields = []
    for name, field in vectors.items():
        if not isinstance(name, str) or not isinstance(field, VectorField):
            raise InvalidArgumentError(f"got {name!r}: {field!r}", field="vectors", bound="names to VectorField")
        fields.append(VectorField(field.dimension, field.metric, field.dtype, check_collection_name(name)))
    check_fields(fields)
    return tuple(fields)


def index_options(index: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The index options of a collection as its schema holds them."""
    if index not in INDEX_KINDS:
        raise InvalidArgumentError(f"got {index!r}", field="index", bound=f"one of {', '.join(INDEX_KINDS)}")
    checked: dict[str, Any] = {} if index == "auto" else {"index": index}
    for name, value in options.items():
        if name not in _OPTIONS:
            raise InvalidArgumentError("unknown option", field=name, bound=f"one of {', '.join(_OPTIONS)}")
        setting, key = _OPTIONS[name]
        checked[key] = check_value(FIELDS[setting], value, name)
    if checked.get("quantization") == "auto":
        del checked["quantization"]
    check_choice(index, checked.get("quantization", "auto"))
    return checked


def checked_schema(fields: Sequence[VectorField], options: Mapping[str, Any]) -> CollectionSchema:
    """The schema, without a uuid, of fields and options that came over a network in the form of a schema.

    Raises:
        InvalidArgumentError: no field, two of one name, an unnamed one beside others, or a bad option.
    """
    check_fields(fields)
    if len(fields) > 1 or fields[0].name:
        for field in fields:
            check_collection_name(field.name)
    index = options.get("index", "auto")
    by_key = {key: name for name, (_, key) in _OPTIONS.items()}
    own = {by_key.get(key, key): value for key, value in options.items() if key != "index"}
    return CollectionSchema("", tuple(fields), index_options(index, own))


def check_fields(fields: Sequence[VectorField]) -> None:
    """Raise InvalidArgumentError unless there are 1..64 fields of different names."""
    if not 1 <= len(fields) <= VECTOR_FIELDS_MAX:
        raise InvalidArgumentError(
            f"got {len(fields)} vector fields", field="vectors", bound=f"1..{VECTOR_FIELDS_MAX} vector fields"
        )
    if len({field.name for field in fields}) != len(fields):
        raise InvalidArgumentError("two vector fields share a name", field="vectors", bound="different names")


__all__ = ["VECTOR_FIELDS_MAX", "check_fields", "checked_schema", "index_options", "vector_fields"]

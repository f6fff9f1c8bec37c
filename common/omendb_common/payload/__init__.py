"""Payloads as strictly typed Arrow columns, and back.

A payload (``metadata`` in the Python and REST API) is a JSON-like object. Nested objects are flattened into
dotted paths, and each (path, kind) pair is one Arrow column named ``"{path}#{kind}"``, so a field that holds
an integer in one point and a string in another never conflicts. ``None`` means absent, at every depth.

An empty payload is a record batch without columns, whose ``num_rows`` is 0: every function that needs the
number of rows takes ``n`` beside the batch.
"""

from omendb_common.payload.columns import columns_from_mapping
from omendb_common.payload.names import (
    DEPTH_MAX,
    FIELDS_MAX,
    KINDS,
    PATH_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    TYPES,
    Kind,
    check_path,
    join_name,
    split_name,
    top_level_key,
)
from omendb_common.payload.overlay import concat_batches, concat_column, key_masks, overlay
from omendb_common.payload.rows import (
    FEW_ROWS,
    columns_from_rows,
    put_column,
    put_value,
    rows_from_columns,
    scalar_value,
    values_of,
)

__all__ = [
    "DEPTH_MAX",
    "FEW_ROWS",
    "FIELDS_MAX",
    "KINDS",
    "PATH_BYTES_MAX",
    "PAYLOAD_BYTES_MAX",
    "TYPES",
    "Kind",
    "check_path",
    "columns_from_mapping",
    "columns_from_rows",
    "concat_batches",
    "concat_column",
    "join_name",
    "key_masks",
    "overlay",
    "put_column",
    "put_value",
    "rows_from_columns",
    "scalar_value",
    "split_name",
    "top_level_key",
    "values_of",
]

"""Filters over payloads: one tree, written in Python with ``FilterOp`` or as JSON, with one meaning.

A field is addressed by its dotted path. ``ne`` and ``nin`` are the negations of ``eq`` and ``in``, so they
match a point without the field. Comparisons never cross classes: numbers (integers and floats, compared
exactly), booleans, strings, times. On a list field a test holds when any element passes it. ISO 8601 text is
also compared with times; a time without a zone is in UTC.
"""

from omendb_common.filters.form import canonical_key, parse_filter, to_json
from omendb_common.filters.nodes import (
    FILTER_DEPTH_MAX,
    FILTER_NODES_MAX,
    IN_VALUES_MAX,
    And,
    Compare,
    Contains,
    Exists,
    Filter,
    Geo,
    In,
    IsNull,
    MatchAll,
    Not,
    Or,
    StartsWith,
    Value,
    check_filter,
)
from omendb_common.filters.operators import FilterOp

__all__ = [
    "FILTER_DEPTH_MAX",
    "FILTER_NODES_MAX",
    "IN_VALUES_MAX",
    "And",
    "Compare",
    "Contains",
    "Exists",
    "Filter",
    "FilterOp",
    "Geo",
    "In",
    "IsNull",
    "MatchAll",
    "Not",
    "Or",
    "StartsWith",
    "Value",
    "canonical_key",
    "check_filter",
    "parse_filter",
    "to_json",
]

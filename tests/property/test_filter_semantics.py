"""Filters mean what the rules say, on every store, and payloads come back as they went in."""

from __future__ import annotations

import datetime as dt
import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.filters import (
    And,
    Compare,
    Contains,
    Exists,
    Filter,
    FilterOp,
    Geo,
    In,
    IsNull,
    MatchAll,
    Not,
    Or,
    StartsWith,
    canonical_key,
    parse_filter,
    to_json,
)
from omendb_common.filters.geo import EARTH_RADIUS_M, Box, Circle, Polygon
from omendb_common.payload import columns_from_rows, key_masks, overlay, rows_from_columns
from omendb_engine.payload import parquet
from omendb_engine.payload.columns import (
    BatchColumns,
    ColumnCache,
    GrowingColumns,
    ParquetColumns,
    write_payload_parquet,
)
from omendb_engine.payload.statistics import collect_statistics, may_match
from omendb_engine.query.filter import evaluate

KEYS = ["a", "b", "c.d", "c.e", "c", "f#i"]
MOMENTS = [dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=h) for h in (-1, 0, 1)]
NUMBERS = [0, 1, -1, 2, 1.0, 0.5, -0.0, 1.5, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), float(2**63), 1e300]
TEXTS = ["", "a", "ab", "abc", "b", "é", "\ud7ff", "\ue000", "\U0010ffff", "2024-01-01", "2024-01-01T00:00:00Z", "a\0b"]
SCALARS = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.booleans(),
    st.sampled_from(MOMENTS),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
)
JSON_SCALARS = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.booleans())
LISTS = st.one_of(
    st.lists(st.integers(-2, 2), max_size=3),
    st.lists(st.sampled_from(TEXTS), max_size=3),
    st.lists(st.sampled_from([0.0, 0.5, 1.5]), max_size=3),
    st.lists(st.booleans(), max_size=3),
    st.lists(st.sampled_from(MOMENTS), max_size=3),
    st.lists(st.one_of(JSON_SCALARS, st.none()), max_size=3),
    st.lists(st.dictionaries(st.sampled_from(["x", "y"]), JSON_SCALARS, max_size=2), max_size=2),
)
PLACES = st.fixed_dictionaries(
    {},
    optional={
        "lat": st.one_of(st.integers(-90, 90), st.floats(-90, 90), st.sampled_from([91, "x", [1.0], 1e300])),
        "lon": st.one_of(st.integers(-180, 180), st.floats(-180, 180), st.sampled_from([None, 200.5, True])),
    },
)
OBJECTS = st.dictionaries(st.sampled_from(["d", "e", "g"]), st.one_of(SCALARS, LISTS, st.none()), max_size=3)


@st.composite
def payloads(draw: st.DrawFn) -> dict[str, Any] | None:
    """One payload whose paths do not collide: a key is either nested or dotted."""
    row: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=5)):
        if key.split(".")[0] in {k.split(".")[0] for k in row} and "c" in key:
            continue
        row[key] = draw(OBJECTS if key == "c" else st.one_of(SCALARS, LISTS, st.none()))
    if draw(st.booleans()):
        row["at"] = draw(PLACES)
    return row if draw(st.integers(0, 3)) else None


FIELDS = st.sampled_from([*KEYS, "c.g", "zz", "c.d.x"])
LATS, LONS = st.integers(-90, 90).map(float), st.integers(-180, 180).map(float)
REGIONS = st.one_of(
    st.tuples(LATS, LONS, LATS, LONS).map(lambda b: Box(min(b[0], b[2]), b[1], max(b[0], b[2]), b[3])),
    st.builds(Circle, LATS, LONS, st.floats(0, 2e7)),
    # Corners off the grid that places lie on: a place right on an edge may be either.
    st.lists(st.tuples(st.integers(-89, 89), st.integers(-89, 89)), min_size=3, max_size=6, unique=True).map(
        lambda points: Polygon(tuple((lat + 0.2173, lon + 0.3718261) for lat, lon in points))
    ),
)
LEAVES = st.one_of(
    st.builds(Geo, st.just("at"), REGIONS),
    st.builds(Compare, FIELDS, st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), SCALARS),
    st.builds(In, FIELDS, st.lists(SCALARS, max_size=4).map(tuple), st.booleans()),
    st.builds(Exists, FIELDS),
    st.builds(IsNull, FIELDS),
    st.builds(Contains, FIELDS, SCALARS),
    st.builds(StartsWith, FIELDS, st.sampled_from(TEXTS)),
    st.just(MatchAll()),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda c: And(tuple(c))),
        st.lists(inner, min_size=1, max_size=4).map(lambda c: Or(tuple(c))),
        inner.map(Not),
    ),
    max_leaves=6,
)


def inside(region: Any, lat: Any, lon: Any) -> bool:
    """Whether a place lies in a region, by other formulas; vectors for the distance."""
    if any(klass(value) != "number" for value in (lat, lon)):
        return False
    if isinstance(region, Box):
        wraps = region.west > region.east
        east_of, west_of = bool(lon >= region.west), bool(lon <= region.east)
        return bool(region.south <= lat <= region.north) and (east_of or west_of if wraps else east_of and west_of)
    if abs(lat) > 90 or abs(lon) > 180:
        return False
    if isinstance(region, Circle):
        a, b = (
            (
                math.cos(math.radians(y)) * math.cos(math.radians(x)),
                math.cos(math.radians(y)) * math.sin(math.radians(x)),
                math.sin(math.radians(y)),
            )
            for y, x in ((lat, lon), (region.lat, region.lon))
        )
        chord = math.dist(a, b)
        return 2 * EARTH_RADIUS_M * math.asin(min(1.0, chord / 2)) <= region.radius_m
    crossings = 0
    for (lat1, lon1), (lat2, lon2) in zip(region.points, region.points[1:] + region.points[:1], strict=True):
        if min(lat1, lat2) <= lat < max(lat1, lat2):
            crossings += Fraction(lon) - Fraction(lon1) < Fraction(lon2 - lon1) * (
                Fraction(lat) - Fraction(lat1)
            ) / Fraction(lat2 - lat1)
    return crossings % 2 == 1


# The rules once more, one value at a time, over the payload dicts themselves.


def flat(row: dict[str, Any] | None, prefix: str = "") -> dict[str, Any]:
    """Every path with a value; an empty object is a value, an object of nulls is not."""
    out: dict[str, Any] = {}
    for key, value in (row or {}).items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            out[prefix + key] = value
    return out


def order(left: Any, op: str, right: Any) -> bool:
    """Python compares int and float exactly, and text by code point."""
    tests = {"eq": left == right, "gt": left > right, "gte": left >= right, "lt": left < right, "lte": left <= right}
    return bool(tests[op])


def klass(value: Any) -> str:
    """The class within which values compare."""
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def moment(text: str) -> dt.datetime | None:
    """The time that ISO text means."""
    try:
        read = dt.datetime.fromisoformat(text)
        return read.replace(tzinfo=dt.UTC) if read.tzinfo is None else read.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def scalar_passes(value: Any, op: str, wanted: Any) -> bool:
    """One scalar against one comparison."""
    if isinstance(value, dt.datetime) and isinstance(wanted, str):
        wanted = moment(wanted)
    return klass(value) == klass(wanted) and order(value, op, wanted)


def is_json(value: Any) -> bool:
    """Whether a list is kept as JSON text, in which times are text."""
    kinds = {type(v) for v in value if v is not None}
    return not kinds or (len(kinds) > 1 and kinds != {int, float}) or dict in kinds


def any_passes(value: Any, op: str, wanted: Any) -> bool:
    """A field's value against one comparison: of a list, any element."""
    elements = value if isinstance(value, list) else [value]
    return any(scalar_passes(element, op, wanted) for element in elements if element is not None)


def naive(node: Filter, row: dict[str, Any]) -> bool:
    """Whether the flattened payload matches."""
    match node:
        case And(children):
            return all(naive(child, row) for child in children)
        case Or(children):
            return any(naive(child, row) for child in children)
        case Not(child):
            return not naive(child, row)
        case Exists(path):
            return any(key == path or key.startswith(path + ".") for key in row)
        case IsNull(path):
            return not naive(Exists(path), row)
        case In(path, values, negate):
            return any(path in row and any_passes(row[path], "eq", v) for v in values) != negate
        case Geo(path, region):
            return inside(region, row.get(f"{path}.lat"), row.get(f"{path}.lon"))
        case Compare(path, "ne", value):
            return not naive(Compare(path, "eq", value), row)
        case Compare(path, op, value):
            return path in row and any_passes(row[path], op, value)
        case Contains(path, value):
            if isinstance(row.get(path), str):
                return isinstance(value, str) and value in row[path]
            return isinstance(row.get(path), list) and any_passes(row[path], "eq", value)
        case StartsWith(path, prefix):
            found = row.get(path, [])
            return any(
                isinstance(v, str) and v.startswith(prefix) for v in (found if isinstance(found, list) else [found])
            )
    return True


def stores(rows: list[dict[str, Any] | None], cuts: list[int]) -> list[Any]:
    """The same rows as a growing buffer of several pieces, as one, and as Parquet."""
    growing = GrowingColumns()
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        piece = columns_from_rows(rows[start:stop])
        growing.append(piece if piece.num_columns else None, stop - start)
    whole = columns_from_rows(rows)
    out: list[Any] = [growing.view(), BatchColumns.of([whole], [len(rows)])]
    if whole.num_columns:
        out.append(ParquetColumns(write_payload_parquet(whole, len(rows)), len(rows), ColumnCache()))
    return out


@pytest.fixture(autouse=True)
def _index_small_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use sorted indexes even on the few rows that these tests have."""
    monkeypatch.setattr(parquet, "_INDEX_ROWS_MIN", 0)


@settings(max_examples=300, deadline=None)
@given(st.lists(payloads(), max_size=24), st.lists(FILTERS, min_size=1, max_size=4), st.data())
def test_evaluate_agrees_with_the_rules(
    rows: list[dict[str, Any] | None], filters: list[Filter], data: st.DataObject
) -> None:
    """Every store gives the rows that a test of one row at a time gives, and no statistics hide any."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    flattened = [flat(row) for row in rows]
    all_stores = stores(rows, cuts)
    statistics = collect_statistics(columns_from_rows(rows), len(rows))
    for node in filters:
        expected = [index for index, row in enumerate(flattened) if naive(node, row)]
        for store in all_stores:
            found = evaluate(node, store)
            assert found.rows().tolist() == expected
            assert found.count == len(expected)
        assert may_match(node, statistics) or not expected
        again = json.loads(json.dumps(to_json(node)))
        parsed = parse_filter(again)
        assert parsed == node
        assert parsed is not None
        assert canonical_key(parsed) == canonical_key(node)


@settings(max_examples=80, deadline=None)
@given(st.lists(payloads(), max_size=12), st.lists(FILTERS, min_size=2, max_size=5))
def test_equal_keys_mean_equal_rows(rows: list[dict[str, Any] | None], filters: list[Filter]) -> None:
    """Reordering, doubling and negating twice keep the key, and the key keeps the meaning."""
    store = stores(rows, [])[0]
    both, other = And(tuple(filters)), And((*reversed(filters), filters[0]))
    assert canonical_key(both) == canonical_key(other) == canonical_key(Not(Not(both)))
    assert evaluate(both, store).rows().tolist() == evaluate(other, store).rows().tolist()
    for one in filters:
        for two in filters:
            if canonical_key(one) == canonical_key(two):
                assert evaluate(one, store).rows().tolist() == evaluate(two, store).rows().tolist()


def clean(value: Any, *, in_json: bool = False) -> Any:
    """A payload value as it comes back: nulls are absent, times among JSON are text."""
    if isinstance(value, dict):
        cleaned = {k: clean(v, in_json=in_json) for k, v in value.items()}
        return (
            cleaned
            if in_json
            else {k: v for k, v in cleaned.items() if v is not None and not (v == {} and value[k] != {})}
        )
    if isinstance(value, list):
        return [clean(v, in_json=in_json or is_json(value)) for v in value]
    return value.isoformat() if in_json and isinstance(value, dt.datetime) else value


def nested(row: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nesting."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        target = out
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return out


@settings(max_examples=200, deadline=None)
@given(st.lists(payloads(), max_size=16), st.data())
def test_payloads_come_back(rows: list[dict[str, Any] | None], data: st.DataObject) -> None:
    """rows → columns → rows, from every store and for any choice of rows."""
    expected = [clean(nested(flat(row))) for row in rows]
    batch = columns_from_rows(rows)
    assert rows_from_columns(batch, n=len(rows)) == expected
    if rows:
        chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=40)), np.int64)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
        for store in stores(rows, cuts):
            assert store.payloads(chosen) == [expected[i] for i in chosen]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(payloads(), payloads()), min_size=1, max_size=8))
def test_an_update_replaces_whole_keys(pairs: list[tuple[dict[str, Any] | None, dict[str, Any] | None]]) -> None:
    """Keys of the update are replaced whole, in the rows that have them; others stay."""
    n = len(pairs)
    base, update = columns_from_rows([p[0] for p in pairs]), columns_from_rows([p[1] for p in pairs])
    merged = rows_from_columns(overlay(base, update, key_masks(update, n), n), n=n)
    everywhere = rows_from_columns(overlay(base, update, {"a", "c"}, n), n=n)
    for index, pair in enumerate(pairs):
        old, new = (clean(nested(flat(row))) for row in pair)
        assert merged[index] == {**old, **new}
        kept = {k: v for k, v in old.items() if k not in ("a", "c")}
        assert everywhere[index] == {**kept, **{k: v for k, v in new.items() if k in ("a", "c")}}


def test_the_python_form_is_the_json_form() -> None:
    """One meaning in two spellings."""
    f = FilterOp
    pairs: list[tuple[Filter, dict[str, Any]]] = [
        (f.eq("a", 1), {"a": 1}),
        (f.ne("a", None), {"a": {"$ne": None}}),
        (f.AND(f.gte("a", 1), f.lt("a", 5)), {"a": {"$gte": 1, "$lt": 5}}),
        (f.AND(f.gt("a", 1), f.lte("b.c", 5)), {"a": {"$gt": 1}, "b.c": {"$lte": 5}}),
        (f.OR(f.in_("a", [1, 2]), f.nin("b", ["x"])), {"$or": [{"a": {"$in": [1, 2]}}, {"b": {"$nin": ["x"]}}]}),
        (f.NOT(f.exists("a")), {"$not": {"a": {"$exists": True}}}),
        (f.is_null("a"), {"a": {"$exists": False}}),
        (f.contains("tags", "x"), {"tags": {"$contains": "x"}}),
        (f.startswith("a", "x"), {"a": {"$startsWith": "x"}}),
        (f.gt("at", MOMENTS[0]), {"at": {"$gt": {"$date": "2023-12-31T23:00:00Z"}}}),
    ]
    for built, written in pairs:
        assert parse_filter(written) == built

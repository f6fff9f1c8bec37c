"""Regions of the Earth: what they enclose, what they refuse, and that nothing in them is out of their spans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError
from omendb_common.filters import FilterOp as F
from omendb_common.filters import Geo, canonical_key, parse_filter, to_json
from omendb_common.filters.geo import Box, Circle, Polygon, Region

BERLIN, POTSDAM, SUVA = (52.52, 13.405), (52.4, 13.066), (-18.14, 178.44)


def holds(region: Region, *places: tuple[float, float]) -> list[bool]:
    lat, lon = np.array(places, np.float64).T
    return [bool(inside) for inside in region.contains(lat, lon)]


def test_distances_are_those_of_the_atlas() -> None:
    """Berlin to Potsdam is 26.5 km."""
    assert holds(Circle(*BERLIN, 26_000), BERLIN, POTSDAM) == [True, False]
    assert holds(Circle(*BERLIN, 27_000), BERLIN, POTSDAM) == [True, True]
    assert holds(Circle(*BERLIN, 0), BERLIN, POTSDAM) == [True, False]
    assert holds(Circle(89.0, 0, 150_000), (89.5, 180.0), (88.0, 180.0)) == [False, False]
    assert holds(Circle(89.9, 0, 50_000), (89.7, 180.0), (89.0, 180.0)) == [True, False]


def test_regions_go_through_the_180th_meridian() -> None:
    fiji = Box(-21, 176, -12, -178)
    assert holds(fiji, SUVA, (-17.0, -179.9), (-17.0, 0.0), (-17.0, -177.0)) == [True, True, False, False]
    assert holds(Circle(-17, 179.9, 50_000), (-17.0, -179.8), (-17.0, 179.0)) == [True, False]


def test_a_polygon_may_have_bays_and_may_say_that_it_is_closed() -> None:
    bay = ((0, 0), (0, 10), (10, 10), (10, 6), (4, 5), (10, 4), (10, 0))
    assert holds(Polygon(bay), (2.0, 5.0), (8.0, 5.0), (8.0, 2.0), (8.0, 11.0)) == [True, False, True, False]
    assert Polygon((*bay, bay[0])) == Polygon(bay)


def test_a_place_that_is_none_lies_nowhere() -> None:
    nowhere = [(np.nan, 0.0), (0.0, np.nan), (np.nan, np.nan)]
    for region in (Box(-90, -180, 90, 180), Circle(0, 0, 2e7), Polygon(((-90, -90), (90, -90), (0, 90)))):
        assert holds(region, *nowhere) == [False] * 3


@given(
    st.floats(-90, 90),
    st.floats(-180, 180),
    st.floats(0, 2e7),
    st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=20),
)
def test_what_lies_in_a_circle_lies_in_its_spans(
    lat: float, lon: float, radius_m: float, places: list[tuple[float, float]]
) -> None:
    circle = Circle(lat, lon, radius_m)
    for place, inside in zip(places, holds(circle, *places), strict=True):
        spanned = any(s.south <= place[0] <= s.north and s.west <= place[1] <= s.east for s in circle.spans())
        assert spanned or not inside


@pytest.mark.parametrize(
    "written",
    [
        {"$geoRadius": {"center": {"lat": 1, "lon": 2}, "radius_m": 3}},
        {"$geoBox": {"south": -1, "west": 170, "north": 2, "east": -170}},
        {"$geoPolygon": [{"lat": 0, "lon": 0}, {"lat": 1, "lon": 0}, {"lat": 0, "lon": 1}]},
    ],
)
def test_json_is_read_and_written(written: dict[str, Any]) -> None:
    node = parse_filter({"at": written})
    assert isinstance(node, Geo)
    again = parse_filter(to_json(node))
    assert again is not None and again == node and canonical_key(again) == canonical_key(node)
    assert canonical_key(node) != canonical_key(Geo("there", node.region))


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ({"$geoRadius": {"center": {"lat": 91, "lon": 2}, "radius_m": 3}}, "lat"),
        ({"$geoRadius": {"center": {"lat": 1, "lon": 2}, "radius_m": -1}}, "radius_m"),
        ({"$geoRadius": {"center": {"lat": 1, "lon": 2}, "radius_m": 10**400}}, "radius_m"),
        ({"$geoRadius": {"center": {"lat": 1, "lon": True}, "radius_m": 1}}, "lon"),
        ({"$geoRadius": {"center": {"lat": 1}, "radius_m": 1}}, "at"),
        ({"$geoRadius": 5}, "at"),
        ({"$geoBox": {"south": 2, "west": 0, "north": 1, "east": 1}}, "south, north"),
        ({"$geoBox": {"south": "x", "west": 0, "north": 1, "east": 1}}, "south"),
        ({"$geoBox": {"south": 0, "west": float("nan"), "north": 1, "east": 1}}, "west"),
        ({"$geoPolygon": [{"lat": 0, "lon": 0}, {"lat": 1, "lon": 0}]}, "points"),
        ({"$geoPolygon": [{"lat": 0, "lon": -170}, {"lat": 1, "lon": 170}, {"lat": 2, "lon": 0}]}, "points"),
        ({"$geoPolygon": [{"lat": i % 9, "lon": i % 7} for i in range(1026)]}, "at"),
        ({"$geoPolygon": {"lat": 0, "lon": 0}}, "at"),
    ],
)
def test_what_is_no_region_is_refused(written: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        parse_filter({"at": written})
    assert refused.value.field == field


def test_a_polygon_has_at_most_so_many_points() -> None:
    ring = [(50 * np.sin(a), 50 * np.cos(a)) for a in np.linspace(0, 6.28, 1025)]
    F.geo_polygon("at", ring[:1024])
    with pytest.raises(InvalidArgumentError, match="1025 points"):
        F.geo_polygon("at", ring)

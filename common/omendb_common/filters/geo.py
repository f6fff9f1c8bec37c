"""Regions of the Earth that a point lies in or not: a box, a circle, a polygon.

A place is an object with the numbers ``lat`` and ``lon``, in degrees. Distances are along great circles of a sphere
with the Earth's mean radius, which differs from the ellipsoid's by at most half a percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from omendb_common.errors import InvalidArgumentError

EARTH_RADIUS_M = 6_371_008.8
POLYGON_POINTS_MAX = 1024
_HALF_ROUND_M = math.pi * EARTH_RADIUS_M
# Bounds are looked up before a region is tested, so they must not be a rounding error too narrow.
_MARGIN_DEG = 1e-7
_NUMBER_MAX = 1e9

Degrees = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Span(NamedTuple):
    """Latitudes and longitudes from the least to the greatest, both included."""

    south: float
    north: float
    west: float
    east: float


@dataclass(frozen=True, slots=True)
class Box:
    """Latitudes ``south`` to ``north``, longitudes from ``west`` eastwards to ``east``, also through the 180th."""

    south: float
    west: float
    north: float
    east: float

    def __post_init__(self) -> None:
        for name in ("south", "north"):
            object.__setattr__(self, name, _degrees(name, getattr(self, name), 90))
        for name in ("west", "east"):
            object.__setattr__(self, name, _degrees(name, getattr(self, name), 180))
        if self.south > self.north:
            raise InvalidArgumentError(
                f"south is {self.south} and north {self.north}", field="south, north", bound="south at most north"
            )

    def spans(self) -> tuple[Span, ...]:
        """Where the region may lie."""
        if self.west <= self.east:
            return (Span(self.south, self.north, self.west, self.east),)
        return Span(self.south, self.north, self.west, 180.0), Span(self.south, self.north, -180.0, self.east)

    def contains(self, lat: Degrees, lon: Degrees) -> Mask:
        """Which points lie in it, its edges included; a place that is not a number does not."""
        if self.west <= self.east:
            within = (lon >= self.west) & (lon <= self.east)
        else:
            within = (lon >= self.west) | (lon <= self.east)
        return np.asarray(within & (lat >= self.south) & (lat <= self.north), np.bool_)

    def to_json(self) -> dict[str, Any]:
        """The operator and its operand."""
        return {"$geoBox": {"south": self.south, "west": self.west, "north": self.north, "east": self.east}}


@dataclass(frozen=True, slots=True)
class Circle:
    """All places at most ``radius_m`` metres from one."""

    lat: float
    lon: float
    radius_m: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "lat", _degrees("lat", self.lat, 90))
        object.__setattr__(self, "lon", _degrees("lon", self.lon, 180))
        radius_m = _number("radius_m", self.radius_m)
        if not 0 <= radius_m <= _HALF_ROUND_M:
            raise InvalidArgumentError(
                f"got {radius_m}", field="radius_m", bound=f"metres, 0..{_HALF_ROUND_M:.0f} (half round the Earth)"
            )
        object.__setattr__(self, "radius_m", radius_m)

    def spans(self) -> tuple[Span, ...]:
        """Where the region may lie."""
        angle = self.radius_m / EARTH_RADIUS_M
        high = math.degrees(angle) + _MARGIN_DEG
        south, north = self.lat - high, self.lat + high
        if south <= -90 or north >= 90:  # a pole lies within, and with it every longitude near it
            return (Span(max(south, -90.0), min(north, 90.0), -180.0, 180.0),)
        wide = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(self.lat))))) + _MARGIN_DEG
        west, east = self.lon - wide, self.lon + wide
        if west < -180:
            return Span(south, north, west + 360, 180.0), Span(south, north, -180.0, east)
        if east > 180:
            return Span(south, north, west, 180.0), Span(south, north, -180.0, east - 360)
        return (Span(south, north, west, east),)

    def contains(self, lat: Degrees, lon: Degrees) -> Mask:
        """Which points lie in it."""
        here = math.radians(self.lat)
        there = np.radians(lat)
        # The haversine, which keeps its digits at small distances.
        half = np.sin((there - here) / 2) ** 2
        half += math.cos(here) * np.cos(there) * np.sin(np.radians(lon - self.lon) / 2) ** 2
        apart_m = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
        return np.asarray((apart_m <= self.radius_m) & (np.abs(lat) <= 90) & (np.abs(lon) <= 180), np.bool_)

    def to_json(self) -> dict[str, Any]:
        """The operator and its operand."""
        return {"$geoRadius": {"center": {"lat": self.lat, "lon": self.lon}, "radius_m": self.radius_m}}


@dataclass(frozen=True, slots=True)
class Polygon:
    """What a ring of points (lat, lon) encloses, its edges straight on a map of latitudes and longitudes.

    Where edges cross, what an odd number of them lies east of is inside. A point right on an edge may be either.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        points = [(_degrees("lat", lat, 90), _degrees("lon", lon, 180)) for lat, lon in self.points]
        if len(points) > 1 and points[0] == points[-1]:
            points.pop()  # a ring that says that it is closed
        if not 3 <= len(points) <= POLYGON_POINTS_MAX:
            raise InvalidArgumentError(
                f"got {len(points)} points", field="points", bound=f"3..{POLYGON_POINTS_MAX} different ones in a row"
            )
        for one, two in zip(points, points[1:] + points[:1], strict=True):
            if abs(one[1] - two[1]) > 180:
                raise InvalidArgumentError(
                    f"an edge from longitude {one[1]} to {two[1]}",
                    field="points",
                    bound="edges of at most 180 degrees",
                    mend="cut it at the 180th meridian and join the parts with OR",
                )
        object.__setattr__(self, "points", tuple(points))

    def spans(self) -> tuple[Span, ...]:
        """Where the region may lie."""
        lats, lons = zip(*self.points, strict=True)
        return (Span(min(lats), max(lats), min(lons), max(lons)),)

    def contains(self, lat: Degrees, lon: Degrees) -> Mask:
        """Which points lie in it: those with an odd number of edges to the east."""
        inside = np.zeros(len(lat), np.bool_)
        previous = self.points[-1]
        for point in self.points:
            (lat1, lon1), (lat2, lon2) = previous, point
            previous = point
            if lat1 == lat2:
                continue
            crosses = (lat1 > lat) != (lat2 > lat)
            with np.errstate(over="ignore", invalid="ignore"):  # of places that are nowhere on Earth
                inside ^= crosses & (lon < (lon2 - lon1) * ((lat - lat1) / (lat2 - lat1)) + lon1)
        return inside

    def to_json(self) -> dict[str, Any]:
        """The operator and its operand."""
        return {"$geoPolygon": [{"lat": lat, "lon": lon} for lat, lon in self.points]}


Region = Box | Circle | Polygon


def box_of(path: str, value: Any) -> Box:
    """Read the operand of ``$geoBox``."""
    return Box(**_members(path, value, ("south", "west", "north", "east")))


def circle_of(path: str, value: Any) -> Circle:
    """Read the operand of ``$geoRadius``."""
    members = _members(path, value, ("center", "radius_m"))
    return Circle(**_members(path, members["center"], ("lat", "lon")), radius_m=members["radius_m"])


def polygon_of(path: str, value: Any) -> Polygon:
    """Read the operand of ``$geoPolygon``."""
    if not isinstance(value, (list, tuple)):
        raise InvalidArgumentError(f"got a {type(value).__name__}", field=path, bound="a list of {lat, lon}")
    if len(value) > POLYGON_POINTS_MAX + 1:
        raise InvalidArgumentError(f"got {len(value)} points", field=path, bound=f"at most {POLYGON_POINTS_MAX}")
    points = [_members(path, point, ("lat", "lon")) for point in value]
    return Polygon(tuple((point["lat"], point["lon"]) for point in points))


def _members(path: str, value: Any, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(names):
        shown = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise InvalidArgumentError(f"got {shown}", field=path, bound=f"an object of {', '.join(names)}")
    return dict(value)


def _degrees(name: str, value: Any, most: int) -> float:
    found = _number(name, value)
    if not -most <= found <= most:
        raise InvalidArgumentError(f"got {found}", field=name, bound=f"degrees, {-most}..{most}")
    return found + 0.0  # minus zero is zero


def _number(name: str, value: Any) -> float:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _NUMBER_MAX:
        raise InvalidArgumentError(
            f"got {'an integer too large' if isinstance(value, int) and value.bit_length() > 64 else repr(value)[:60]}",
            field=name,
            bound="a finite number",
        )
    return float(value)


__all__ = [
    "EARTH_RADIUS_M",
    "POLYGON_POINTS_MAX",
    "Box",
    "Circle",
    "Polygon",
    "Region",
    "Span",
    "box_of",
    "circle_of",
    "polygon_of",
]

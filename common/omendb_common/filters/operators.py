"""Filters written in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omendb_common.errors import InvalidArgumentError
from omendb_common.filters import form
from omendb_common.filters.geo import Box, Circle, Polygon
from omendb_common.filters.nodes import And, Compare, Contains, Filter, Geo, Not, Or, StartsWith


class FilterOp:
    """Makers of filters: ``F.AND(F.eq("category", "shoe"), F.lt("price", 100))``.

    ``path`` is a field name; dots reach nested fields. Values are bool, int, float, str, datetime or date.
    """

    @staticmethod
    def AND(*filters: Filter | Mapping[str, Any] | Iterable[Any]) -> Filter:
        """All of the filters hold; at least one must be given."""
        return And(_gather(filters))

    @staticmethod
    def OR(*filters: Filter | Mapping[str, Any] | Iterable[Any]) -> Filter:
        """At least one of the filters holds."""
        return Or(_gather(filters))

    @staticmethod
    def NOT(filter: Filter | Mapping[str, Any]) -> Filter:
        """The filter does not hold."""
        return Not(_one(filter))

    @staticmethod
    def eq(path: str, value: Any) -> Filter:
        """The field equals ``value``; None means that it is absent."""
        return form.equal_to(path, value)

    @staticmethod
    def ne(path: str, value: Any) -> Filter:
        """The field does not equal ``value``, or is absent."""
        return form.differs_from(path, value)

    @staticmethod
    def gt(path: str, value: Any) -> Filter:
        """The field is greater than ``value``."""
        return Compare(path, "gt", value)

    @staticmethod
    def gte(path: str, value: Any) -> Filter:
        """The field is greater than or equal to ``value``."""
        return Compare(path, "gte", value)

    @staticmethod
    def lt(path: str, value: Any) -> Filter:
        """The field is less than ``value``."""
        return Compare(path, "lt", value)

    @staticmethod
    def lte(path: str, value: Any) -> Filter:
        """The field is less than or equal to ``value``."""
        return Compare(path, "lte", value)

    @staticmethod
    def in_(path: str, values: Iterable[Any]) -> Filter:
        """The field equals one of at most 65,536 ``values``."""
        return form.one_of(path, values)

    @staticmethod
    def nin(path: str, values: Iterable[Any]) -> Filter:
        """The field equals none of ``values``, or is absent."""
        return form.one_of(path, values, negate=True)

    @staticmethod
    def exists(path: str, wanted: bool = True) -> Filter:
        """The field, or one below it, has a value (``wanted`` False: none has)."""
        return form.exists(path, wanted)

    @staticmethod
    def is_null(path: str) -> Filter:
        """Neither the field nor one below it has a value."""
        return form.exists(path, False)

    @staticmethod
    def contains(path: str, value: Any) -> Filter:
        """The list has the element ``value``, or the string the substring."""
        return Contains(path, value)

    @staticmethod
    def startswith(path: str, prefix: str) -> Filter:
        """The string begins with ``prefix``."""
        return StartsWith(path, prefix)

    @staticmethod
    def geo_box(path: str, *, south: float, west: float, north: float, east: float) -> Filter:
        """The place (``lat`` and ``lon`` of the object ``path``) lies in a box, also through the 180th meridian."""
        return Geo(path, Box(south, west, north, east))

    @staticmethod
    def geo_radius(path: str, lat: float, lon: float, radius_m: float) -> Filter:
        """The place is at most ``radius_m`` metres from (``lat``, ``lon``)."""
        return Geo(path, Circle(lat, lon, radius_m))

    @staticmethod
    def geo_polygon(path: str, points: Iterable[tuple[float, float]]) -> Filter:
        """The place lies within the ring of ``points``, each (lat, lon)."""
        return Geo(path, Polygon(tuple(points)))

    IN = isin = in_
    NIN = not_in = nin
    starts_with = startswith


def _gather(filters: tuple[Any, ...]) -> tuple[Filter, ...]:
    if len(filters) == 1 and isinstance(filters[0], (list, tuple)):
        filters = tuple(filters[0])
    return tuple(_one(f) for f in filters)


def _one(value: Any) -> Filter:
    parsed = form.parse_filter(value)
    if parsed is None:
        raise InvalidArgumentError("got None", field="filters", bound="a filter")
    return parsed


__all__ = ["FilterOp"]

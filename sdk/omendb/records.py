"""Points as a program sees them: records, pages of records, and what a write answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple, overload

import numpy.typing as npt

from omendb.backend import Receipt, VersionedPoints
from omendb_common.ids import IdColumn, PointId
from omendb_common.schema import CollectionSchema

Vector = npt.NDArray[Any]


class Record:
    """One stored point.

    Attributes:
        id: its id, an int or a str.
        version: which of its versions this is: another one after each write. For ``if_version``, and to be compared
            for equality; nothing else may be read from it.
        metadata: its payload as a dict; None when it was not asked for.
        vector: its vector in the collection's element type; None when it was not asked for.
        vectors: the same by field name, for collections with several.
    """

    __slots__ = ("id", "metadata", "vectors", "version")

    def __init__(
        self, id: PointId, metadata: dict[str, Any] | None, vectors: dict[str, Vector] | None, version: int
    ) -> None:
        self.id = id
        self.version = version
        self.metadata = metadata
        self.vectors = vectors

    @property
    def vector(self) -> Vector | None:
        """The point's first vector, or None when vectors were not asked for."""
        return next(iter(self.vectors.values()), None) if self.vectors else None

    def __repr__(self) -> str:
        vector = "" if self.vector is None else f", vector=<{len(self.vector)} × {self.vector.dtype}>"
        metadata = "" if self.metadata is None else f", metadata={shorten(self.metadata)}"
        return f"Record(id={self.id!r}{metadata}{vector})"


class Page(NamedTuple):
    """Some records and the cursor of the next page, which is None after the last."""

    records: list[Record]
    cursor: str | None


class WriteResult(Sequence[PointId]):
    """The ids of a write, as a sequence that can be compared with a list, and how the write was kept.

    Attributes:
        written: points written; less than ``len()`` when a batch named an id twice (the last one wins).
        durability: ``fsync``, ``interval`` or ``os``: what the acknowledgement promises.
        stamp: the write's version; the greater stamp wins.
        lsn: its place in the log.
    """

    __slots__ = ("_column", "_list", "durability", "lsn", "stamp", "written")

    def __init__(self, receipt: Receipt) -> None:
        self._column: IdColumn = receipt.ids
        self._list: list[PointId] | None = None
        self.written = receipt.count
        self.durability = receipt.durability
        self.stamp = receipt.stamp
        self.lsn = receipt.lsn

    def to_list(self) -> list[PointId]:
        """The ids as a list of ints and strings."""
        if self._list is None:
            self._list = self._column.to_list()
        return self._list

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> PointId: ...
    @overload
    def __getitem__(self, index: slice) -> list[PointId]: ...
    def __getitem__(self, index: int | slice) -> PointId | list[PointId]:
        return self.to_list()[index]

    def __iter__(self) -> Iterator[PointId]:
        return iter(self.to_list())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, (str, bytes)):
            return self.to_list() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # compared by content, like a list

    def __repr__(self) -> str:
        few = ", ".join(repr(i) for i in self[:5]) + (", …" if len(self) > 5 else "")
        return f"WriteResult([{few}], written={self.written}, durability={self.durability!r})"


class Deleted(int):
    """How many points a delete removed, and how it was kept (``durability``, ``stamp``, ``lsn``)."""

    durability: str
    stamp: int
    lsn: int

    @classmethod
    def of(cls, receipt: Receipt) -> Deleted:
        """The count of ``receipt`` with its durability."""
        deleted = cls(receipt.count)
        deleted.durability = receipt.durability
        deleted.stamp = receipt.stamp
        deleted.lsn = receipt.lsn
        return deleted


def records_of(points: VersionedPoints, schema: CollectionSchema, include: frozenset[str]) -> list[Record]:
    """Points as a list of records with the parts that ``include`` names."""
    ids, versions = points.ids().to_list(), points.stamps().tolist()
    metadata: Iterable[dict[str, Any] | None] = points.payload() if "metadata" in include else repeat(None, len(ids))
    if "vector" not in include:
        return [Record(i, m, None, v) for i, m, v in zip(ids, metadata, versions, strict=True)]
    matrices = {field.name: points.vectors(field.name, schema) for field in schema.vectors}
    return [
        Record(i, m, {name: matrix[row] for name, matrix in matrices.items()}, v)
        for row, (i, m, v) in enumerate(zip(ids, metadata, versions, strict=True))
    ]


def shorten(value: Any, width: int = 60) -> str:
    """``repr(value)``, cut to ``width`` characters."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


__all__ = ["Deleted", "Page", "Record", "WriteResult", "records_of", "shorten"]

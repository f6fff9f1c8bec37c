"""Pages of points in the order of their id hashes, shard after shard, from one replica or a quorum.

A cursor is the 128-bit id hash of the last point, 32 hexadecimal digits, as the replicas have it; in a collection
with a partition key, where every shard has ids from all over the ring, the low end of the shard stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.deadline import Deadline
from omendb_common.errors import InvalidArgumentError
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.schema import CollectionSchema
from omendb_common.shard_calls import Scroll, Scrolled
from omendb_router.asked import Asked, hear
from omendb_router.census import Census
from omendb_router.fanout import Fanout, Heard
from omendb_router.lookups import Lookups, Wanted
from omendb_router.points import join_payloads, no_vectors, take_payload
from omendb_router.selections import counted
from omendb_router.standing import Editions

_DIGITS = 16


class Cursor(NamedTuple):
    """After the id hash (``hi``, ``lo``) in the shard that begins at ``low`` (None: the one that owns ``hi``)."""

    low: int | None
    hi: int
    lo: int

    def text(self) -> str:
        """As clients have it."""
        return ("" if self.low is None else f"{self.low:016x}") + self.inner()

    def inner(self) -> str:
        """As replicas have it."""
        return f"{self.hi:016x}{self.lo:016x}"

    @staticmethod
    def parse(text: str, *, with_low: bool) -> Cursor:
        """Read :meth:`text` back; InvalidArgumentError when it is none."""
        words = [text[at : at + _DIGITS] for at in range(0, len(text), _DIGITS)]
        try:
            if len(text) != _DIGITS * (3 if with_low else 2):
                raise ValueError(text)
            numbers = [int(word, 16) for word in words]
        except ValueError:
            raise InvalidArgumentError(
                f"got {text!r}", field="cursor", bound="a cursor from an earlier page", mend="start without a cursor"
            ) from None
        return Cursor(numbers[0], *numbers[1:]) if with_low else Cursor(None, *numbers)


@dataclass(slots=True)
class Page:
    """Some points; ``after``: (hi, lo) from where to go on, None at the end of what was asked."""

    ids: IdColumn
    payload: pa.RecordBatch | None
    vectors: dict[str, npt.NDArray[Any]]
    stamps: U64Array
    after: tuple[int, int] | None


class Scrolls:
    """Reads pages."""

    def __init__(self, fanout: Fanout, lookups: Lookups) -> None:
        self._fanout = fanout
        self._lookups = lookups

    async def page(
        self,
        shards: Sequence[Asked],
        cursor: str | None,
        limit: int,
        condition: Filter | None,
        wanted: Wanted,
        deadline: Deadline,
    ) -> tuple[Page, str | None]:
        """A page of the shards, which are in the order of their low ends, and the cursor of the next.

        It has fewer than ``limit`` points where so many would be too large an answer.
        """
        with_low = shards[0].info.partition_key is not None
        start = None if cursor is None else Cursor.parse(cursor, with_low=with_low)
        pages: list[Page] = []
        following: str | None = None
        left = limit = min(limit, wanted.rows_max(shards[0].info.schema, self._fanout.settings))
        for number, asked in enumerate(shards):
            after = _entry(asked, start)
            if after == "":
                continue
            page = await self._of_shard(asked, after, left, condition, wanted, deadline)
            pages.append(page)
            left -= len(page.ids)
            if page.after is None and (left > 0 or number == len(shards) - 1):
                continue
            hi, lo = page.after or _last(page.ids)
            following = Cursor(asked.shard.low if with_low else None, hi, lo).text()
            break
        return _bound(pages, wanted, shards[0].info.schema), following

    async def _of_shard(
        self, asked: Asked, after: str | None, limit: int, condition: Filter | None, wanted: Wanted, deadline: Deadline
    ) -> Page:
        """A page of one shard; it is empty only at the shard's end."""
        while True:
            good = await self._ask(asked, after, limit, condition, wanted, deadline)
            if len(good) == 1:
                one = good[0].answer
                end = None if one.cursor is None else _last(one.ids)
                return Page(one.ids, one.payload, dict(one.vectors), one.stamps, end)
            page = await self._merged(asked, good, limit, condition, wanted, deadline)
            if len(page.ids) or page.after is None:
                return page
            hi, lo = page.after
            after = Cursor(None, hi, lo).inner()

    async def _ask(
        self,
        asked: Asked,
        after: str | None,
        limit: int,
        condition: Filter | None,
        wanted: Wanted,
        deadline: Deadline,
        *,
        only: str | None = None,
    ) -> list[Heard[Scrolled]]:
        call = Scroll(asked.ref, after, limit, condition, wanted.payload, wanted.vectors)
        return await hear(
            self._fanout, asked, "scroll", lambda _, node: node.scroll(call, deadline), deadline, only=only
        )

    async def _merged(
        self,
        asked: Asked,
        good: Sequence[Heard[Scrolled]],
        limit: int,
        condition: Filter | None,
        wanted: Wanted,
        deadline: Deadline,
    ) -> Page:
        """Pages of several replicas as one: up to where all of them have looked, the newest versions."""
        answers = [h.answer for h in good]
        census = Census.of([a.ids for a in answers], [Editions.of(a.stamps, a.overlays) for a in answers])
        order = np.lexsort((census.lo, census.hi))
        looked_at = [_last(a.ids) for a in answers if a.cursor is not None]
        frontier = min(looked_at, default=None)
        if frontier is not None:
            hi, lo = np.uint64(frontier[0]), np.uint64(frontier[1])
            inside = (census.hi[order] < hi) | ((census.hi[order] == hi) & (census.lo[order] <= lo))
            order = order[inside]
        if len(order) > limit:
            order = order[:limit]
            frontier = int(census.hi[order[-1]]), int(census.lo[order[-1]])
        census = census.limited(order)
        homes = await counted(self._lookups, asked, census, [h.node_id for h in good], deadline)
        extra = await self._reread(asked, census, homes, condition, wanted, deadline)
        return _collected(census, [*answers, *extra.values()], extra, wanted, frontier)

    async def _reread(
        self,
        asked: Asked,
        census: Census,
        homes: dict[int, str],
        condition: Filter | None,
        wanted: Wanted,
        deadline: Deadline,
    ) -> dict[int, Scrolled]:
        """Points whose version that counts was on no page, as their homes have it, if they match: by their place."""
        out: dict[int, Scrolled] = {}
        for place, node_id in homes.items():
            key = (int(census.hi[place]) << 64 | int(census.lo[place])) - 1
            before = None if key < 0 else f"{key:032x}"
            good = await self._ask(asked, before, 1, condition, wanted, deadline, only=node_id)
            found = good[0].answer
            if len(found.ids) and _last(found.ids) == (int(census.hi[place]), int(census.lo[place])):
                out[place] = found
        return out


def _entry(asked: Asked, start: Cursor | None) -> str | None:
    """Where a shard is entered: None at its begin, "" when it lies before the cursor."""
    if start is None:
        return None
    if start.low is not None:
        return None if asked.shard.low > start.low else ("" if asked.shard.low < start.low else start.inner())
    if asked.shard.low > start.hi:
        return None
    return "" if asked.shard.high <= start.hi else start.inner()


def _last(ids: IdColumn) -> tuple[int, int]:
    hi, lo = ids.slice(len(ids) - 1, len(ids)).hashes()
    return int(hi[0]), int(lo[0])


def _collected(
    census: Census,
    answers: Sequence[Scrolled],
    extra: dict[int, Scrolled],
    wanted: Wanted,
    frontier: tuple[int, int] | None,
) -> Page:
    """The content of the newest versions; ``extra`` ones stand behind the pages, in the order of their places."""
    replicas = len(answers) - len(extra)
    source, row = census.holder(), census.row
    keep = census.current()
    rows = row[source, np.arange(len(keep))]
    for number, place in enumerate(extra):
        keep[place], source[place], rows[place] = True, replicas + number, 0
    places = np.flatnonzero(keep)
    offsets = np.cumsum([0, *(len(a.ids) for a in answers)])
    at = offsets[source[places]] + rows[places]
    payload = None
    if wanted.payload:
        payload = take_payload(join_payloads([a.payload for a in answers], [len(a.ids) for a in answers]), at)
    vectors = {name: np.concatenate([a.vectors[name] for a in answers])[at] for name in wanted.vectors}
    stamps = np.concatenate([a.stamps for a in answers])[at]
    return Page(census.ids.take(places), payload, vectors, stamps, frontier)


def _bound(pages: Sequence[Page], wanted: Wanted, schema: CollectionSchema) -> Page:
    """Pages one after the other, as one."""
    if len(pages) == 1:
        return pages[0]
    payload = join_payloads([p.payload for p in pages], [len(p.ids) for p in pages]) if wanted.payload else None
    vectors = {
        name: np.concatenate([no_vectors(schema, name), *(p.vectors[name] for p in pages)]) for name in wanted.vectors
    }
    stamps = np.concatenate([np.empty(0, np.uint64), *(p.stamps for p in pages)])
    return Page(IdColumn.concat([p.ids for p in pages]), payload, vectors, stamps, None)


__all__ = ["Cursor", "Page", "Scrolls"]

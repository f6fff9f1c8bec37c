"""Ids looked up on one replica or a quorum, the newest version winning, and repair before it is shown (P8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from omendb_common.deadline import Deadline
from omendb_common.errors import UnavailableError
from omendb_common.ids import IdColumn
from omendb_common.schema import CollectionSchema
from omendb_common.shard_calls import Applied, Looked, Lookup, Repair, State, Verdict
from omendb_router.asked import Asked, check_enough, hear
from omendb_router.fanout import Asking, Fanout, Heard
from omendb_router.points import Piece, join_looked
from omendb_router.settings import RouterSettings
from omendb_router.versions import Mask, Versions, newest, place_of, put_together

_ROUNDS_MAX = 8
_PATIENT_ROUNDS = 2
"""So often a claim that keeps a version out is waited for, before it is ended."""

Finish = Callable[[Asked, IdColumn, Deadline], Awaitable[None]]
"""Ends the claims on points."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a look-up shall bring of live points."""

    payload: bool = False
    vectors: tuple[str, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether there is content to bring."""
        return self.payload or bool(self.vectors)

    def rows_max(self, schema: CollectionSchema, settings: RouterSettings) -> int:
        """How many points to ask for in one call, so that an answer is no larger than it should be."""
        row_bytes = sum(schema.vector(name).row_bytes for name in self.vectors)
        return min(settings.lookup_ids_max, max(1, settings.answer_bytes_max // max(row_bytes, 1)))


@dataclass(slots=True)
class Known:
    """States and stamps of n ids (n,), and the content of the live ones in pieces.

    ``homes``: rows whose records had to be put together, and a node that has them whole.
    """

    states: npt.NDArray[np.uint8]
    stamps: npt.NDArray[np.uint64]
    pieces: list[Piece]
    homes: list[tuple[npt.NDArray[np.int64], str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Settled:
    """Of each of n ids: its state, and a node that has its whole record, or a newer one over that."""

    states: npt.NDArray[np.uint8]
    nodes: list[str]


class Lookups:
    """Looks ids of one shard up."""

    def __init__(self, fanout: Fanout, finish: Finish) -> None:
        self._fanout = fanout
        self._finish = finish

    async def read(self, asked: Asked, ids: IdColumn, wanted: Wanted, deadline: Deadline) -> Known:
        """The newest version of every id among as many replicas as needed.

        One replica gives the content, the others digests. Where they differ, the newest records are on enough
        replicas when this returns that no later read of as many replicas finds anything older.
        """
        step = wanted.rows_max(asked.info.schema, self._fanout.settings)
        if len(ids) <= step:
            return await self._read(asked, ids, wanted, deadline)
        whole = Known(np.zeros(len(ids), np.uint8), np.zeros(len(ids), np.uint64), [])
        for start in range(0, len(ids), step):
            part = await self._read(asked, ids.slice(start, start + step), wanted, deadline)
            whole.states[start : start + step], whole.stamps[start : start + step] = part.states, part.stamps
            whole.pieces += [Piece(piece.rows + start, piece.answer, piece.places) for piece in part.pieces]
        return whole

    async def look(self, asked: Asked, node_id: str, ids: IdColumn, wanted: Wanted, deadline: Deadline) -> Looked:
        """What one replica has of the ids; without digests."""
        step = wanted.rows_max(asked.info.schema, self._fanout.settings)
        parts = [
            await self._look(asked, node_id, ids.slice(start, start + step), wanted, deadline)
            for start in range(0, max(len(ids), 1), step)
        ]
        return parts[0] if len(parts) == 1 else join_looked(parts, wanted.payload, wanted.vectors)

    async def _look(self, asked: Asked, node_id: str, ids: IdColumn, wanted: Wanted, deadline: Deadline) -> Looked:
        call = Lookup(asked.ref, ids, False, wanted.payload, wanted.vectors, True)
        good = await hear(
            self._fanout, asked, "lookup", lambda _, node: node.lookup(call, deadline), deadline, only=node_id
        )
        return good[0].answer

    async def _read(self, asked: Asked, ids: IdColumn, wanted: Wanted, deadline: Deadline) -> Known:
        order = self._fanout.by_promise(asked.readers)
        full = Lookup(asked.ref, ids, False, wanted.payload, wanted.vectors)
        plain = Lookup(asked.ref, ids)
        first = order[0] if order else ""
        one = asked.takes == 1
        good, bad = await self._fanout.ask(
            order,
            asked.takes,
            "lookup",
            lambda node_id, node: node.lookup(full if one or node_id == first else plain, deadline),
            deadline,
        )
        check_enough(asked, good, bad, deadline)
        versions = newest([h.answer for h in good])
        known = Known(versions.states.copy(), versions.stamps.copy(), [])
        source = next((h.answer for h in good if one or h.node_id == first), None)
        ready = versions.agreed
        if source is None and wanted.anything:
            ready = ready & (versions.states != State.LIVE)
        rows = np.flatnonzero(ready)
        if source is not None and len(rows):
            known.pieces.append(Piece(rows, source, rows))
        rest = np.flatnonzero(~ready)
        step = _records_wanted(asked).rows_max(asked.info.schema, self._fanout.settings)
        for start in range(0, len(rest), step):
            await self._settle(asked, ids, rest[start : start + step], wanted, known, deadline)
        return known

    async def bring(self, asked: Asked, ids: IdColumn, deadline: Deadline) -> npt.NDArray[np.uint8]:
        """Put the newest records of ``ids`` on every replica that answers; returns their states (n,)."""
        return (await self._put_together(asked, ids, deadline, everywhere=True)).states

    async def settle(self, asked: Asked, ids: IdColumn, deadline: Deadline) -> Settled:
        """Put the records of ``ids`` together, on so many replicas that no later read finds anything older."""
        known = await self._put_together(asked, ids, deadline)
        nodes = [""] * len(ids)
        for rows, node_id in known.homes:
            for row in rows.tolist():
                nodes[row] = node_id
        return Settled(known.states, nodes)

    async def _put_together(
        self, asked: Asked, ids: IdColumn, deadline: Deadline, *, everywhere: bool = False
    ) -> Known:
        n = len(ids)
        known = Known(np.zeros(n, np.uint8), np.zeros(n, np.uint64), [])
        step = _records_wanted(asked).rows_max(asked.info.schema, self._fanout.settings)
        for start in range(0, n, step):
            rows = np.arange(start, min(start + step, n))
            await self._settle(asked, ids, rows, Wanted(), known, deadline, everywhere=everywhere)
        return known

    async def _settle(
        self,
        asked: Asked,
        ids: IdColumn,
        rows: npt.NDArray[np.int64],
        wanted: Wanted,
        known: Known,
        deadline: Deadline,
        *,
        everywhere: bool = False,
    ) -> None:
        """Read ``rows`` of ``ids`` with their whole records, and give the newest to whom they lack."""
        for number in range(_ROUNDS_MAX):
            good = await self._records(asked, ids.take(rows), wanted, deadline)
            answers = [h.answer for h in good]
            versions = put_together(newest(answers), answers, ids.take(rows))
            moved = versions.torn
            barred = np.zeros(len(rows), np.bool_)
            if everywhere or not versions.agreed.all():
                outrun, barred = await self._push(asked, ids.take(rows), good, versions, deadline)
                moved = moved | outrun
            known.states[rows], known.stamps[rows] = versions.states, versions.stamps
            for place, heard in enumerate(good):
                mine = np.flatnonzero(~moved & (versions.holder == place))
                if len(mine):
                    known.pieces.append(Piece(rows[mine], heard.answer, mine))
                    known.homes.append((rows[mine], heard.node_id))
            if barred.any():
                await self._unbar(asked, ids.take(rows[barred]), number, deadline)
            rows = rows[moved]
            if not len(rows):
                return
        raise UnavailableError(
            f"{len(rows)} points change faster than they can be read", field=asked.info.name, mend="read them again"
        )

    async def _unbar(self, asked: Asked, ids: IdColumn, number: int, deadline: Deadline) -> None:
        """Have what claims keep out decided on: by who made them, or without it when that takes long (P19)."""
        if number < _PATIENT_ROUNDS:
            pause_s = self._fanout.settings.retry_pause_ms / 1e3 * 2**number
            await asyncio.sleep(min(pause_s, max(deadline.left_s, 0.0)))
        else:
            await self._finish(asked, ids, deadline)

    async def _records(self, asked: Asked, ids: IdColumn, wanted: Wanted, deadline: Deadline) -> list[Heard[Looked]]:
        call = Lookup(asked.ref, ids, True, wanted.payload, wanted.vectors)
        return await hear(self._fanout, asked, "records", lambda _, node: node.lookup(call, deadline), deadline)

    async def _push(
        self,
        asked: Asked,
        ids: IdColumn,
        good: Sequence[Heard[Looked]],
        versions: Versions,
        deadline: Deadline,
    ) -> tuple[Mask, Mask]:
        """Give the newest records to every replica; returns when enough have them, and lets the others have them too.

        Returns:
            (n,) ids of which a replica has a newer version by now. Such a version may have been acknowledged before
            the one that was found was even begun, under a stamp from a slower clock: they must be read again. And those
            among them that a claim keeps out, of which there need be nothing newer.

        Raises:
            UnavailableError: too few could be brought up to date.
        """
        outrun, barred = np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.bool_)
        needed = [
            heard.answer.records
            for number, heard in enumerate(good)
            if versions.torn.any() or bool((versions.holder == number).any())
        ]
        batches = tuple(batch for records in needed for batch in records if batch.rows)
        if not batches:
            return outrun, barred
        row_of = place_of(ids, IdColumn.concat([batch.ids for batch in batches]))
        have = {heard.node_id: versions.holds[number] & ~versions.torn for number, heard in enumerate(good)}
        self._fanout.counts["read_repairs"] += 1
        call = Repair(asked.ref, batches)
        asking: Asking[Applied] = self._fanout.asking("repair", deadline)
        for node_id in asked.writers:
            asking.start(node_id, lambda _, node: node.repair(call, deadline))
        readers = set(asked.readers)
        while asking.pending:
            reply = await asking.next()
            if isinstance(reply, Heard) and reply.answer.verdict is Verdict.OK and reply.node_id in readers:
                rows = row_of[reply.answer.superseded]
                ahead = rows[reply.answer.newer > versions.stamps[rows]]
                outrun[ahead] = True
                barred[row_of[reply.answer.barred]] = True
                have[reply.node_id] = np.ones(len(ids), np.bool_)
            if (
                int(sum(have.values(), np.zeros(len(ids), np.int64))[~outrun].min(initial=len(readers)))
                >= asked.settles_on
            ):
                return outrun, barred
        raise UnavailableError(
            "too few replicas could be brought up to date",
            field=asked.info.name,
            bound=f"at least {asked.settles_on} of shard {asked.shard.shard_id}",
            mend="read it again",
        )


def _records_wanted(asked: Asked) -> Wanted:
    """What whole records bring."""
    return Wanted(True, tuple(f.name for f in asked.info.schema.vectors))


__all__ = ["Known", "Lookups", "Settled", "Wanted"]

"""The four ways of writing, made into attempts: ids drawn and folded, filters resolved, updates looked up first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common import ring
from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, OmenDBError
from omendb_common.expected import NO_POINT, conflict
from omendb_common.filters import Filter
from omendb_common.hlc import stamp_wall_ms
from omendb_common.ids import IdColumn, U64Array
from omendb_common.payload import split_name, top_level_key
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import MAX_AHEAD_MS, State
from omendb_common.topology import CollectionInfo, Shard
from omendb_router.asked import Asked, StaleMapError, covering, one
from omendb_router.care import Care
from omendb_router.conditions import Conditions, Demand
from omendb_router.face_calls import Written
from omendb_router.fanout import together
from omendb_router.lookups import Known, Lookups, Wanted
from omendb_router.reads import look_up
from omendb_router.routing import check_vectors, last_rows, routing_hashes, shards_left, take_rows
from omendb_router.selections import Selections
from omendb_router.sessions import encode_token
from omendb_router.settings import RouterSettings
from omendb_router.stamps import Leases, Stamps
from omendb_router.writes import Attempt, Fate, Outcome, Writer

_SHOWN = 3


class Supplies:
    """Brings replicas what an update found missing, and finds its points where a map has changed."""

    def __init__(self, lookups: Lookups, stamps: Stamps) -> None:
        self._lookups = lookups
        self._stamps = stamps

    async def bring(
        self, info: CollectionInfo, shard: Shard, ids: IdColumn, deadline: Deadline
    ) -> npt.NDArray[np.uint8]:
        """Put the newest records of ``ids`` on every replica that answers; returns their states."""
        asked = Asked.at(covering, info, shard, self._stamps.origin)
        return await self._lookups.bring(asked, ids, deadline)

    async def homes(self, info: CollectionInfo, ids: IdColumn, deadline: Deadline) -> U64Array:
        """Places on the ring of the shards that have the points."""
        shards = [Asked.at(covering, info, shard, self._stamps.origin) for shard in info.shards]
        _, home = await look_up(self._lookups, shards, ids, Wanted(), deadline)
        return _home_hashes(info, ids, home)


class Mutations:
    """Turns what is asked into attempts and their outcomes into answers."""

    def __init__(
        self,
        writer: Writer,
        conditions: Conditions,
        leases: Leases,
        stamps: Stamps,
        lookups: Lookups,
        selections: Selections,
        care: Care,
        settings: RouterSettings,
    ) -> None:
        self._writer = writer
        self._conditions = conditions
        self._leases = leases
        self._stamps = stamps
        self._lookups = lookups
        self._selections = selections
        self._care = care
        self._settings = settings
        self._next_id: dict[str, int] = {}

    # -- upsert

    async def upsert(
        self,
        info: CollectionInfo,
        ids: IdColumn | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        n: int,
        *,
        create_only: bool,
        retry_stamp: int | None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Store whole points."""
        check_vectors(info, dict(vectors), n, whole=True)
        if ids is None and retry_stamp is not None:
            raise InvalidArgumentError("a repetition without ids", field="ids", bound="the ids of the first attempt")
        self._note_ids(info, ids)
        given = ids if ids is not None else await self._draw_ids(info, n, deadline)
        if len(given) != n:
            raise InvalidArgumentError(f"{len(given)} ids for {n} vectors", field="ids", bound=f"{n} ids")
        batch = WriteBatch(Op.UPSERT, given, dict(vectors), payload)
        if ids is not None:
            batch = take_rows(batch, last_rows(given))
        hashes = routing_hashes(info, batch.ids, batch.payload)
        if versions is not None:
            if create_only:
                raise InvalidArgumentError("got both", field="create_only, if_version", bound="one of them")
            return await self._on_versions(info, batch, hashes, versions, retry_stamp, deadline)
        if create_only:
            if retry_stamp is None:
                await self._check_new(info, batch.ids, deadline)
            if self._replicated(info):
                self._check_retry(retry_stamp)
                demand = Demand(batch, hashes, np.zeros(batch.rows, np.uint64), partial(_taken, batch.ids))
                outcome = await self._conditions.write(info, demand, retry_stamp, deadline)
                return _written(info, given, batch.rows, outcome, deadline)
        attempt = await self._attempt(info, batch, hashes, retry_stamp, deadline, create_only=create_only)
        outcome = await self._writer.write(attempt, deadline)
        return _written(info, given, batch.rows, outcome, deadline)

    async def _on_versions(
        self,
        info: CollectionInfo,
        batch: WriteBatch,
        hashes: U64Array | None,
        versions: U64Array,
        retry_stamp: int | None,
        deadline: Deadline,
    ) -> Written:
        """Write points whose ids differ, if each has its version: all of them, or none."""
        conflicts = partial(conflict, batch.ids)
        home = np.zeros(batch.rows, np.int64)
        if info.partition_key is not None and len(info.shards) > 1:
            known, home = await self._known(info, batch.ids, deadline)
            there = known.states == State.LIVE
            unwanted = np.flatnonzero(there & (versions == NO_POINT))
            if len(unwanted) and retry_stamp is None:
                raise conflicts(unwanted, known.stamps[unwanted])
        if hashes is None:
            hashes = _home_hashes(info, batch.ids, home)
        if self._replicated(info) or len(info.shards) > 1:
            self._check_retry(retry_stamp)
            demand = Demand(batch, hashes, versions, conflicts)
            outcome = await self._conditions.write(info, demand, retry_stamp, deadline)
        else:
            attempt = await self._attempt(info, batch, hashes, retry_stamp, deadline)
            outcome = await self._writer.write(replace(attempt, versions=versions), deadline)
            if outcome.fate is Fate.NOT_APPLIED and isinstance(outcome.cause, StaleMapError):
                raise outcome.cause
        return _written(info, batch.ids, batch.rows, outcome, deadline)

    @staticmethod
    def _replicated(info: CollectionInfo) -> bool:
        """Whether any shard has, or is about to have, more replicas than one: then none decides alone what exists."""
        return info.replication > 1 or any(len(shard.replicas) > 1 for shard in info.shards)

    async def _check_new(self, info: CollectionInfo, ids: IdColumn, deadline: Deadline) -> None:
        if not self._replicated(info) and len(info.shards) == 1:
            return  # the replica decides, in one step with the write
        known, _ = await self._known(info, ids, deadline)
        taken = np.flatnonzero(known.states == State.LIVE)
        if len(taken):
            raise _taken(ids, taken, known.stamps[taken])
        self._stamps.observe(int(known.stamps.max(initial=0)))

    def _note_ids(self, info: CollectionInfo, ids: IdColumn | None) -> None:
        """Automatic ids of a replica's own counter stay above every id that is given."""
        known = self._next_id.get(info.schema.uuid)
        if known is not None and ids is not None:
            self._next_id[info.schema.uuid] = max(known, ids.int_max() + 1)

    async def _draw_ids(self, info: CollectionInfo, n: int, deadline: Deadline) -> IdColumn:
        if self._settings.auto_ids == "lease":
            return await self._leases.ids(n, deadline)
        uuid = info.schema.uuid
        if uuid not in self._next_id:
            shards = [Asked.at(one, info, shard, self._stamps.origin) for shard in info.shards]
            stored = await together([self._care.one(asked, "next_auto_id", deadline) for asked in shards])
            self._next_id[uuid] = max(self._next_id.get(uuid, 0), *(int(value) for _, value in stored))
        first = self._next_id[uuid]
        if first + n > 1 << 64:
            raise InvalidArgumentError(
                "an id near 2**64 is in use, no automatic ids are left above it", field="ids", mend="give ids"
            )
        self._next_id[uuid] = first + n
        return IdColumn(np.arange(first, first + n, dtype=np.uint64), None)

    # -- update

    async def update(
        self,
        info: CollectionInfo,
        ids: IdColumn,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        unset: tuple[str, ...],
        *,
        retry_stamp: int | None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Change parts of points that exist."""
        check_vectors(info, dict(vectors), len(ids), whole=False)
        _check_key_stays(info, payload, unset)
        if versions is not None:
            update = WriteBatch(Op.UPDATE, ids, dict(vectors), payload, None, unset)
            return await self._on_versions(info, update, None, versions, retry_stamp, deadline)
        batch = take_rows(WriteBatch(Op.UPDATE, ids, dict(vectors), payload, None, unset), last_rows(ids))
        known, home = await self._known(info, batch.ids, deadline)
        alive = known.states == State.LIVE
        # A repetition may find that the point was deleted after it: then it was overtaken, like any other.
        overtaken = ~alive & (known.stamps > np.uint64(retry_stamp or 0)) & (retry_stamp is not None)
        lost = np.flatnonzero(~alive & ~overtaken)
        if len(lost):
            raise NotFoundError(
                f"{len(lost)} ids do not exist, such as {batch.ids.take(lost[:_SHOWN]).to_list()}",
                field="ids",
                mend="insert them with upsert first",
            )
        self._stamps.observe(int(known.stamps.max(initial=0)))
        hashes = _home_hashes(info, batch.ids, home)
        rows = np.flatnonzero(alive)
        if not len(rows):
            return Written(ids, batch.rows, retry_stamp or 0, 0, "", superseded=batch.rows)
        homed = info.partition_key is not None
        attempt = await self._attempt(info, batch, hashes, retry_stamp, deadline, homed=homed)
        outcome = await self._writer.write(attempt.narrowed(rows if len(rows) < batch.rows else None), deadline)
        return _written(info, ids, batch.rows, outcome, deadline, int(np.count_nonzero(overtaken)))

    # -- delete

    async def delete(
        self,
        info: CollectionInfo,
        ids: IdColumn,
        *,
        retry_stamp: int | None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Delete points, whether they exist or not."""
        if versions is not None and len(ids):
            return await self._on_versions(info, WriteBatch(Op.DELETE, ids), None, versions, retry_stamp, deadline)
        batch = take_rows(WriteBatch(Op.DELETE, ids), last_rows(ids))
        if not batch.rows:
            return Written(ids, 0, 0, 0, "")
        # With a partition key an id does not say where it lies: the tombstone goes to every shard.
        hashes = ring.key_hashes(batch.ids) if info.partition_key is None else None
        attempt = await self._attempt(info, batch, hashes, retry_stamp, deadline)
        outcome = await self._writer.write(attempt, deadline)
        return _written(info, ids, outcome.existed, outcome, deadline)

    async def delete_where(
        self, info: CollectionInfo, condition: Filter, *, retry_stamp: int | None, deadline: Deadline
    ) -> Written:
        """Delete what matches: the filter is resolved at a quorum, ids are what is sent (P7)."""
        asked = [Asked.at(covering, info, shard, self._stamps.origin) for shard in shards_left(info, condition)]
        chosen = await together([self._selections.resolve(a, condition, deadline) for a in asked])
        ids = IdColumn.concat([c.ids for c in chosen])
        home = np.repeat(np.array([a.shard.low for a in asked], np.uint64), [len(c.ids) for c in chosen])
        self._stamps.observe(max((int(c.stamps.max(initial=0)) for c in chosen), default=0))
        step = self._settings.delete_rows_max
        done: list[Written] = []
        for start in range(0, len(ids), step):
            part = ids.slice(start, start + step)
            hashes = ring.key_hashes(part) if info.partition_key is None else home[start : start + step]
            try:
                batch, homed = WriteBatch(Op.DELETE, part), info.partition_key is not None
                attempt = await self._attempt(info, batch, hashes, retry_stamp, deadline, homed=homed)
            except OmenDBError as error:
                if not done:
                    raise
                raise Outcome(Fate.INDETERMINATE, done[-1].stamp, cause=error).error(deadline) from error
            outcome = await self._writer.write(attempt.continued() if done else attempt, deadline)
            done.append(_written(info, part, outcome.existed, outcome, deadline))
        if not done:
            return Written(ids, 0, 0, 0, "")
        last = done[-1]
        return Written(
            ids,
            sum(w.count for w in done),
            last.stamp,
            last.lsn,
            last.durability,
            last.session,
            sum(w.superseded for w in done),
        )

    # -- what they share

    async def _known(
        self, info: CollectionInfo, ids: IdColumn, deadline: Deadline
    ) -> tuple[Known, npt.NDArray[np.int64]]:
        shards = [Asked.at(covering, info, shard, self._stamps.origin) for shard in info.shards]
        return await look_up(self._lookups, shards, ids, Wanted(), deadline)

    async def _attempt(
        self,
        info: CollectionInfo,
        batch: WriteBatch,
        hashes: U64Array | None,
        retry_stamp: int | None,
        deadline: Deadline,
        *,
        create_only: bool = False,
        homed: bool = False,
    ) -> Attempt:
        """A first attempt, under a fresh stamp or the echo of an earlier one."""
        if retry_stamp is None:
            stamp = await self._leases.stamp(deadline)
        else:
            self._check_retry(retry_stamp)
            stamp = retry_stamp
        return Attempt(info, batch, hashes, stamp, retry_stamp is not None, create_only, homed=homed)

    def _check_retry(self, stamp: int | None) -> None:
        if stamp is not None and stamp_wall_ms(stamp) > stamp_wall_ms(self._stamps.now) + MAX_AHEAD_MS:
            raise InvalidArgumentError(
                f"got {stamp}, which lies in the future", field="retry_stamp", bound="the stamp of an earlier error"
            )


def _taken(ids: IdColumn, rows: npt.NDArray[np.int64], _: U64Array) -> AlreadyExistsError:
    some = ids.take(rows[:_SHOWN]).to_list()
    return AlreadyExistsError(
        f"{len(rows)} ids exist already, such as {some}", field="ids", mend="use upsert to replace them"
    )


def _written(
    info: CollectionInfo, ids: IdColumn, count: int, outcome: Outcome, deadline: Deadline, overtaken: int = 0
) -> Written:
    if outcome.fate is not Fate.COMMITTED:
        raise outcome.error(deadline)
    token = encode_token(info.schema.uuid, outcome.written)
    return Written(ids, count, outcome.stamp, outcome.lsn, outcome.durability, token, outcome.overtaken + overtaken)


def _check_key_stays(info: CollectionInfo, payload: pa.RecordBatch | None, unset: tuple[str, ...]) -> None:
    """A point stays in its shard: what routes it cannot be changed in place."""
    if info.partition_key is None:
        return
    changed = {split_name(name)[0] for name in (payload.schema.names if payload is not None else ())}
    key = top_level_key(info.partition_key)
    if key in {top_level_key(path) for path in changed} | set(unset):
        raise InvalidArgumentError(
            "an update cannot change it",
            field=f"metadata[{info.partition_key!r}]",
            bound="another key: it is the collection's partition key",
            mend="delete the point and insert it again",
        )


def _home_hashes(info: CollectionInfo, ids: IdColumn, home: npt.NDArray[np.int64]) -> U64Array:
    """Where the points of an update belong: by id, or with a partition key where they were found."""
    if info.partition_key is None:
        return ring.key_hashes(ids)
    lows = np.array([shard.low for shard in info.shards], np.uint64)
    return np.asarray(lows[home], np.uint64)


__all__ = ["Mutations", "Supplies"]

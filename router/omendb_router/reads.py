"""Points read by id, from all the shards that they lie in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omendb_common import ring
from omendb_common.deadline import Deadline
from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import State
from omendb_router.asked import Asked
from omendb_router.face_calls import Found
from omendb_router.fanout import together
from omendb_router.lookups import Known, Lookups, Wanted
from omendb_router.points import Piece, assemble, no_vectors
from omendb_router.routing import shares


async def get(lookups: Lookups, shards: Sequence[Asked], ids: IdColumn, wanted: Wanted, deadline: Deadline) -> Found:
    """The points that exist, in the order asked."""
    known, _ = await look_up(lookups, shards, ids, wanted, deadline)
    if not wanted.anything:
        positions = np.flatnonzero(known.states == State.LIVE)
        return Found(ids.take(positions), positions, versions=known.stamps[positions])
    content = assemble(known.pieces, wanted.payload, wanted.vectors)
    schema = shards[0].info.schema
    vectors = {name: content.vectors.get(name, no_vectors(schema, name)) for name in wanted.vectors}
    at = content.positions
    return Found(ids.take(at), at, content.payload, vectors, known.stamps[at])


async def look_up(
    lookups: Lookups, shards: Sequence[Asked], ids: IdColumn, wanted: Wanted, deadline: Deadline
) -> tuple[Known, npt.NDArray[np.int64]]:
    """The newest version of every id, and the place in ``shards`` of the shard that has it (n,).

    With a partition key the id does not say which shard: all are asked, and the newest version wins.
    """
    info = shards[0].info
    if len(shards) == 1:
        return await lookups.read(shards[0], ids, wanted, deadline), np.zeros(len(ids), np.int64)
    if info.partition_key is not None:
        everywhere = await together([lookups.read(asked, ids, wanted, deadline) for asked in shards])
        return _newest_of(everywhere)
    by_id = {asked.shard.shard_id: place for place, asked in enumerate(shards)}
    parts = shares([asked.shard for asked in shards], ring.key_hashes(ids))
    answers = await together(
        [
            lookups.read(shards[by_id[shard.shard_id]], ids if rows is None else ids.take(rows), wanted, deadline)
            for shard, rows in parts
        ]
    )
    n = len(ids)
    whole = Known(np.zeros(n, np.uint8), np.zeros(n, np.uint64), [])
    home = np.zeros(n, np.int64)
    for (shard, rows), answer in zip(parts, answers, strict=True):
        where = np.arange(n) if rows is None else rows
        whole.states[where], whole.stamps[where] = answer.states, answer.stamps
        home[where] = by_id[shard.shard_id]
        whole.pieces += [Piece(where[piece.rows], piece.answer, piece.places) for piece in answer.pieces]
    return whole, home


def _newest_of(answers: Sequence[Known]) -> tuple[Known, npt.NDArray[np.int64]]:
    stamps: U64Array = np.stack([a.stamps for a in answers])
    home = stamps.argmax(axis=0)
    columns = np.arange(stamps.shape[1])
    states = np.stack([a.states for a in answers])[home, columns]
    pieces = []
    for place, answer in enumerate(answers):
        for rows, source, places in answer.pieces:
            mine = home[rows] == place
            pieces.append(Piece(rows[mine], source, places[mine]))
    return Known(states, stamps[home, columns], pieces), home


__all__ = ["get", "look_up"]

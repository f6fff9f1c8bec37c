"""Content of points put together from the answers of several replicas and shards, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.overlays import Overlays
from omendb_common.payload import concat_batches, key_masks, overlay
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema
from omendb_common.shard_calls import Looked, State

Rows = npt.NDArray[np.int64]


class Piece(NamedTuple):
    """Some of the points asked for: ``rows`` of the question stand at ``places`` of an answer."""

    rows: Rows
    answer: Looked
    places: Rows


class Content(NamedTuple):
    """Live points: their ``positions`` in the question, ascending, and what was wanted of them."""

    positions: Rows
    payload: pa.RecordBatch | None
    vectors: dict[str, npt.NDArray[Any]]


def no_payload() -> pa.RecordBatch:
    """The payload of points that have none."""
    return pa.RecordBatch.from_arrays([], names=[])


def no_vectors(schema: CollectionSchema, name: str) -> npt.NDArray[Any]:
    """The vectors of no points."""
    spec = schema.vector(name)
    return np.empty((0, spec.dimension), spec.numpy_dtype)


def take_payload(batch: pa.RecordBatch | None, rows: Rows) -> pa.RecordBatch:
    """Rows of a payload, which may have no columns."""
    if batch is None or not batch.num_columns:
        return no_payload()
    return batch.take(arrow_of_numpy(rows))


def join_payloads(batches: Sequence[pa.RecordBatch | None], counts: Sequence[int]) -> pa.RecordBatch:
    """Payloads one after the other, as one."""
    if not any(b is not None and b.num_columns for b in batches):
        return no_payload()
    return concat_batches(batches, counts)


def join_looked(parts: Sequence[Looked], payload: bool, vectors: Sequence[str]) -> Looked:
    """Answers about one run of ids after the other, as one; whole records are left out."""
    live = [int(np.count_nonzero(p.states == State.LIVE)) for p in parts]
    return Looked(
        parts[0].verdict,
        np.concatenate([p.states for p in parts]),
        np.concatenate([p.stamps for p in parts]),
        np.concatenate([p.digests for p in parts]),
        (),
        join_payloads([p.payload for p in parts], live) if payload else None,
        {name: np.concatenate([p.vectors[name] for p in parts]) for name in vectors},
        overlays=Overlays.joined([p.overlays for p in parts], [len(p.states) for p in parts]),
    )


def assemble(pieces: Sequence[Piece], payload: bool, vectors: Sequence[str]) -> Content:
    """The live points of the pieces, in the order of the question."""
    found: list[Rows] = []
    payloads: list[pa.RecordBatch | None] = []
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in vectors}
    for rows, answer, places in pieces:
        live = answer.states == State.LIVE
        rank = np.cumsum(live) - 1
        chosen = live[places]
        source = rank[places[chosen]]
        found.append(rows[chosen])
        whole = len(source) == int(np.count_nonzero(live)) and bool((np.diff(source) == 1).all())
        if payload:
            payloads.append(answer.payload if whole else take_payload(answer.payload, source))
        for name in vectors:
            columns[name].append(answer.vectors[name] if whole else answer.vectors[name][source])
    positions = np.concatenate(found) if found else np.empty(0, np.int64)
    joined = join_payloads(payloads, [len(rows) for rows in found]) if payload else None
    arrays = {name: _stacked(parts) for name, parts in columns.items() if parts}
    if bool((np.diff(positions) > 0).all()):
        return Content(positions, joined, arrays)
    order = np.argsort(positions, kind="stable")
    return Content(
        positions[order],
        None if joined is None else take_payload(joined, order),
        {name: array[order] for name, array in arrays.items()},
    )


def merged(update: WriteBatch, stored: Sequence[WriteBatch], order: Rows) -> WriteBatch:
    """Whole points: what is ``stored`` of them, taken in ``order``, with what an update changes of each."""
    payloads = join_payloads([b.payload for b in stored], [b.rows for b in stored])
    base = take_payload(payloads, order)
    given = no_payload() if update.payload is None else update.payload
    changed = dict(key_masks(given, update.rows)) | {key: np.ones(update.rows, np.bool_) for key in update.keys}
    vectors = {name: _stacked([b.vectors[name] for b in stored])[order] for name in stored[0].vectors}
    payload = overlay(base, given, changed, update.rows) if changed else base
    return WriteBatch(Op.UPSERT, update.ids, vectors | dict(update.vectors), payload)


def _stacked(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


__all__ = [
    "Content",
    "Piece",
    "assemble",
    "join_looked",
    "join_payloads",
    "merged",
    "no_payload",
    "no_vectors",
    "take_payload",
]

"""Which shard a point belongs to, which shards a filter leaves, and a batch cut up by shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common import ring
from omendb_common.errors import InvalidArgumentError
from omendb_common.filters import And, Compare, Filter, In, Or
from omendb_common.filters.nodes import Value
from omendb_common.ids import IdColumn, U64Array
from omendb_common.partition import ring_places
from omendb_common.plain_arrow import arrow_of_numpy, arrow_of_texts
from omendb_common.records import WriteBatch
from omendb_common.topology import CollectionInfo, Shard

Rows = npt.NDArray[np.int64]


class Share(NamedTuple):
    """What one shard gets of a batch: ``rows`` of it, ascending; None when it gets all."""

    shard: Shard
    rows: Rows | None


def last_rows(ids: IdColumn) -> Rows | None:
    """The rows that are the last of their id, in order; None when all ids differ, as they mostly do (P1)."""
    hi, lo = ids.hashes()
    ordered = np.sort(hi)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    order = np.lexsort((np.arange(len(hi)), lo, hi))
    last = np.ones(len(hi), np.bool_)
    last[:-1] = (hi[order[1:]] != hi[order[:-1]]) | (lo[order[1:]] != lo[order[:-1]])
    return None if last.all() else np.sort(order[last])


def take_rows(batch: WriteBatch, rows: Rows | None) -> WriteBatch:
    """The batch of only ``rows``, in that order; None takes all without a copy."""
    if rows is None:
        return batch
    return WriteBatch(
        batch.op,
        batch.ids.take(rows),
        {name: array[rows] for name, array in batch.vectors.items()},
        batch.payload.take(arrow_of_numpy(rows)) if batch.payload is not None and batch.payload.num_columns else None,
        batch.stamps[rows] if batch.stamps is not None else None,
        batch.keys,
    )


def batch_bytes(batch: WriteBatch) -> int:
    """About how much memory a batch takes."""
    payload = 0 if batch.payload is None else int(batch.payload.nbytes)
    return sum(array.nbytes for array in batch.vectors.values()) + payload + 16 * batch.rows


def shares(shards: Sequence[Shard], hashes: U64Array) -> list[Share]:
    """Rows by the shard that owns their hash; shards without any are left out."""
    if len(shards) == 1:
        return [Share(shards[0], None)]
    owner = ring.owners([s.low for s in shards], hashes)
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(len(shards) + 1))
    cut = [(shard, order[edges[i] : edges[i + 1]]) for i, shard in enumerate(shards)]
    return [Share(shard, None if len(rows) == len(hashes) else rows) for shard, rows in cut if len(rows)]


def routing_hashes(info: CollectionInfo, ids: IdColumn, payload: pa.RecordBatch | None) -> U64Array:
    """The place on the ring of every point of a batch, (n,).

    Raises:
        InvalidArgumentError: the collection has a partition key and a point has no string or integer there.
    """
    return ring_places(info.partition_key, ids, payload)


def shards_left(info: CollectionInfo, condition: Filter | None) -> Sequence[Shard]:
    """The shards that may hold points that match."""
    if info.partition_key is None or condition is None or len(info.shards) == 1:
        return info.shards
    values = _key_values(condition, info.partition_key)
    if values is None:
        return info.shards
    keys = IdColumn.concat([_key_column(value) for value in values])
    if not len(keys):
        return info.shards[:1]
    owners = ring.owners([s.low for s in info.shards], ring.key_hashes(keys))
    return [info.shards[i] for i in np.unique(owners).tolist()]


def _key_values(condition: Filter, key: str) -> list[Value] | None:
    """Every value that the key can have in a match; None when the filter does not say."""
    if isinstance(condition, Compare) and condition.path == key and condition.op == "eq":
        return [condition.value] if _routes(condition.value) else None
    if isinstance(condition, In) and condition.path == key and not condition.negate:
        return list(condition.values) if all(map(_routes, condition.values)) else None
    if isinstance(condition, And):
        known = [values for values in (_key_values(child, key) for child in condition.children) if values is not None]
        return min(known, key=len, default=None)
    if isinstance(condition, Or):
        union: list[Value] = []
        for child in condition.children:
            values = _key_values(child, key)
            if values is None:
                return None
            union += values
        return union
    return None


def _routes(value: Value) -> bool:
    """Whether the value is of a kind by which points are routed; a float may equal an integer."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _key_column(value: Value) -> IdColumn:
    if isinstance(value, str):
        return IdColumn(None, arrow_of_texts([value]))
    assert isinstance(value, (int, float))
    if value != int(value) or not -(1 << 63) <= value < 1 << 63:
        return IdColumn.empty()  # no stored key can equal it
    return IdColumn(np.array([int(value)], np.int64).view(np.uint64), None)


def check_vectors(info: CollectionInfo, vectors: dict[str, npt.NDArray[Any]], n: int, *, whole: bool) -> None:
    """Refuse vectors that do not fit the schema; ``whole`` points have every field.

    Only what every replica of every shard would refuse is looked for, and only where a batch might otherwise be
    written to one shard and refused by the next.
    """
    names = {f.name for f in info.schema.vectors}
    if (set(vectors) != names) if whole else not set(vectors) <= names:
        raise InvalidArgumentError(f"got fields {sorted(vectors)}", field="vectors", bound=f"fields {sorted(names)}")
    for name, array in vectors.items():
        spec = info.schema.vector(name)
        if array.dtype != spec.numpy_dtype or array.shape != (n, spec.dimension):
            raise InvalidArgumentError(
                f"got {array.dtype} {array.shape}", field="vectors", bound=f"{spec.dtype} ({n}, {spec.dimension})"
            )
        # One pass without a temporary array: an overflow to infinity is looked into, finite sums are the rule.
        if array.dtype.kind == "f" and len(info.shards) > 1 and not np.isfinite(array.sum(dtype=np.float64)):
            finite = np.isfinite(array).all(axis=1)
            if not finite.all():
                raise InvalidArgumentError(
                    f"row {int(np.argmin(finite))} has NaN or Inf", field="vectors", bound="finite numbers"
                )


__all__ = [
    "Rows",
    "Share",
    "batch_bytes",
    "check_vectors",
    "last_rows",
    "routing_hashes",
    "shards_left",
    "shares",
    "take_rows",
]

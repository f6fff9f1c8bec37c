"""The places of points on the ring, by their ids or by the partition key in their payload.

Routers ask to send a point to its shard, data nodes to cut a shard in two: both must mean the same.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from omendb_common import ring
from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn, U64Array
from omendb_common.payload import join_name


def ring_places(partition_key: str | None, ids: IdColumn, payload: pa.RecordBatch | None) -> U64Array:
    """The place on the ring of every point of a batch, (n,); ``payload`` in typed columns.

    Raises:
        InvalidArgumentError: there is a partition key and a point has no string or integer there.
    """
    if partition_key is None:
        return ring.key_hashes(ids)
    columns = {} if payload is None else dict(zip(payload.schema.names, payload.columns, strict=True))
    texts = columns.get(join_name(partition_key, "s"))
    numbers = columns.get(join_name(partition_key, "i"))
    n = len(ids)
    filled = np.zeros(n, np.bool_)
    for column in (texts, numbers):
        if column is not None:
            filled |= column.is_valid().to_numpy(zero_copy_only=False)
    if not filled.all():
        raise InvalidArgumentError(
            f"row {int(np.argmin(filled))} has no string or integer there",
            field=f"metadata[{partition_key!r}]",
            bound="a value in every point: it is the collection's partition key",
        )
    if numbers is None:
        return ring.key_hashes(IdColumn(None, texts))
    ints = np.asarray(numbers.fill_null(0).to_numpy(zero_copy_only=False), np.int64).view(np.uint64)
    return ring.key_hashes(IdColumn(ints, texts))


__all__ = ["ring_places"]

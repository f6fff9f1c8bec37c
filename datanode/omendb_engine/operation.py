"""One write on its way through the group commit: what it brings, what was decided on it, what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omendb_common.claims import claims_of, waivers_of
from omendb_common.errors import InvalidArgumentError, ResourceExhaustedError
from omendb_common.ids import IdColumn, U64Array
from omendb_common.records import Buffer, Op, WriteBatch, body_bytes, encode_owned
from omendb_common.schema import BATCH_BODY_BYTES_MAX
from omendb_common.shard_calls import Claim
from omendb_engine.apply import Applied, UpdatePlan, take_batch
from omendb_engine.stamped import StampedResult, StampedWrite
from omendb_engine.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Acknowledgement of a write.

    ``count``: points written, or for a delete points that existed. ``durability``: how durable the write was
    when it was acknowledged (``fsync``, ``interval`` or ``os``).
    """

    ids: IdColumn
    count: int
    stamp: int
    lsn: int
    durability: str


class Operation:
    """One write waiting for its group."""

    __slots__ = (
        *(
            "applied",
            "auto",
            "batch",
            "claim",
            "create_only",
            "done",
            "error",
            "extra_bytes",
            "parts",
            "plan",
            "result",
        ),
        *("settled", "size", "solo", "stamp", "stamped", "tied", "verdicts", "versions"),
    )

    def __init__(
        self,
        batch: WriteBatch,
        parts: list[Buffer],
        *,
        auto: bool = False,
        create_only: bool = False,
        versions: U64Array | None = None,
        write: StampedWrite | None = None,
    ) -> None:
        self.batch = batch
        self.parts = parts
        self.size = body_bytes(parts)
        self.auto = auto
        self.create_only = create_only or (write is not None and write.create_only)
        self.versions = versions if write is None else write.versions
        self.claim = Claim.NONE if write is None else write.claim
        # They look at what earlier operations left, so those must be applied first.
        conditional = self.create_only or self.versions is not None
        self.solo = conditional or batch.op is Op.UPDATE or self.claim is Claim.CLAIM
        self.done = False
        self.error: BaseException | None = None
        self.result: WriteResult | None = None
        self.plan: UpdatePlan | None = None
        self.applied: Applied | None = None
        self.extra_bytes = 0
        # Came with stamps of its own: each row is decided on before it is logged.
        self.stamped = write is not None
        self.settled = write is not None and write.settled
        self.tied = write is not None and write.tied
        # The others get theirs when they are logged.
        self.stamp = 0 if write is None else write.stamp
        self.verdicts: Verdicts | None = None

    @staticmethod
    def of(
        batch: WriteBatch,
        *,
        auto: bool = False,
        create_only: bool = False,
        versions: U64Array | None = None,
        body: Sequence[Buffer] | None = None,
        write: StampedWrite | None = None,
    ) -> Operation:
        """Encode a batch, unless ``body`` is what it encodes to; InvalidArgumentError when it is too large."""
        parts, batch = encode_owned(batch) if body is None else (list(body), batch)
        operation = Operation(batch, parts, auto=auto, create_only=create_only, versions=versions, write=write)
        if operation.size > BATCH_BODY_BYTES_MAX:
            raise InvalidArgumentError(
                f"the batch encodes to {operation.size} bytes",
                field="batch",
                bound=f"at most {BATCH_BODY_BYTES_MAX} bytes",
                mend="send it in several batches",
            )
        return operation

    def take(self, rows: npt.NDArray[np.int64]) -> None:
        """Go on with some of the rows."""
        self.parts, self.batch = encode_owned(take_batch(self.batch, rows))
        self.size = body_bytes(self.parts)

    def mark(self, rows: npt.NDArray[np.int64], bases: U64Array) -> None:
        """Store claims on some of the points, or waivers of them, instead of deleting them."""
        ids = self.batch.ids.take(rows)
        marked = claims_of(ids, bases, self.stamp) if self.claim is Claim.CLAIM else waivers_of(ids, self.stamp)
        self.parts, self.batch = encode_owned(WriteBatch(Op.DELETE, marked))
        self.size = body_bytes(self.parts)

    def conclude(self, verdicts: Verdicts, lsn: int, durability: str) -> None:
        """End it: nothing of it is to be logged."""
        self.verdicts, self.done = verdicts, True
        self.result = WriteResult(self.batch.ids, 0, self.stamp, lsn, durability)

    def outcome(self) -> StampedResult:
        """What a write that came with its stamp is told."""
        result, verdicts = self.result, self.verdicts
        assert result is not None
        if verdicts is None:
            existed = 0 if self.applied is None else self.applied.existed
            return StampedResult(result.lsn, result.durability, existed)
        return StampedResult(
            result.lsn,
            result.durability,
            verdicts.existed,
            verdicts.superseded,
            verdicts.newer,
            verdicts.missing,
            verdicts.partial,
            verdicts.barred,
            verdicts.open_rows,
            verdicts.open_stamps,
        )


def fail_all(group: Sequence[Operation], error: BaseException) -> None:
    """Tell everybody in the group who has no answer yet."""
    for operation in group:
        if not operation.done:
            operation.error, operation.done = error, True


def as_exhausted(error: BaseException) -> BaseException:
    """An error of the group's admission, with want of memory as what it means to the caller."""
    if isinstance(error, MemoryError):
        return ResourceExhaustedError("no memory for the batch", field="memory", mend="use smaller batches")
    return error


__all__ = ["Operation", "WriteResult", "as_exhausted", "fail_all"]

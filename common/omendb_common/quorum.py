"""How many of N replicas make a quorum."""

from __future__ import annotations

from omendb_common.errors import InvalidArgumentError

REPLICATION_MAX = 7


def majority(n: int) -> int:
    """The smallest count of which any two share a replica; for even ``n`` more than half."""
    return n // 2 + 1


def check_quorums(replication: int, write_quorum: int, read_quorum: int) -> None:
    """Raise InvalidArgumentError unless 1 <= W, R <= N <= ``REPLICATION_MAX``."""
    if not 1 <= replication <= REPLICATION_MAX:
        raise InvalidArgumentError(f"got {replication}", field="replication", bound=f"1..{REPLICATION_MAX}")
    for name, value in (("write_quorum", write_quorum), ("read_quorum", read_quorum)):
        if not 1 <= value <= replication:
            raise InvalidArgumentError(f"got {value}", field=name, bound=f"1..{replication}")


__all__ = ["REPLICATION_MAX", "check_quorums", "majority"]

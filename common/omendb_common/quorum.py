"""How many of N replicas make a quorum."""

from __future__ import annotations

from dataclasses import dataclass

from omendb_common.errors import InvalidArgumentError

REPLICATION_MAX = 7


@dataclass(frozen=True, slots=True)
class Quorums:
    """How many of the ``replication`` replicas of a shard a ``write`` takes, and a ``read``."""

    replication: int
    write: int
    read: int

    @property
    def majority(self) -> int:
        """So many that any two of them share a replica."""
        return majority(self.replication)

    @property
    def covering(self) -> int:
        """So many that one of them has what was acknowledged, whichever they are."""
        return self.replication - self.write + 1

    @property
    def meet(self) -> bool:
        """Whether every read meets every write that was acknowledged."""
        return self.write + self.read > self.replication

    def check(self) -> None:
        """Raise InvalidArgumentError unless 1 <= W, R <= N <= ``REPLICATION_MAX``."""
        check_quorums(self.replication, self.write, self.read)


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


def check_asked(replication: int | None, write_quorum: int | None, read_quorum: int | None) -> None:
    """Raise InvalidArgumentError for a number that no collection can have; None asks for nothing."""
    numbers = {"replication": replication, "write_quorum": write_quorum, "read_quorum": read_quorum}
    for name, value in numbers.items():
        if value is not None and not 1 <= value <= REPLICATION_MAX:
            raise InvalidArgumentError(f"got {value}", field=name, bound=f"1..{REPLICATION_MAX}")


__all__ = ["REPLICATION_MAX", "Quorums", "check_asked", "check_quorums", "majority"]

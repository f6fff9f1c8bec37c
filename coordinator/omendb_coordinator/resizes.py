"""The next step of a shard to the replication and the quorums that were asked for. Pure.

Members change one at a time, and with each one a quorum changes by one at most. What holds at both ends holds all the
way: reads meet writes, writes of a majority meet each other, and reads of a majority too. What is left then changes in
one step without members.
"""

from __future__ import annotations

from omendb_common.quorum import Quorums, majority


def next_quorums(now: Quorums, wished: Quorums) -> Quorums:
    """The numbers after the next step; ``wished`` itself when that is the last."""
    if wished.replication > now.replication:
        write, read = now.write + (now.write < wished.write), now.read + (now.read < wished.read)
        return Quorums(now.replication + 1, write, read)
    if wished.replication < now.replication:
        return _fewer(now, wished)
    return wished


def _fewer(now: Quorums, wished: Quorums) -> Quorums:
    n = now.replication - 1
    least = majority(n)
    write, read = min(now.write, n), min(now.read, n)
    # Neither is made smaller than what is wished for, nor than a majority where that is wished for.
    if write > wished.write and (write > least or wished.write < wished.majority):
        write -= write - 1 + read > n or not wished.meet
    if read > wished.read and (read > least or wished.read < wished.majority):
        read -= write + read - 1 > n or not wished.meet
    return Quorums(n, write, read)


__all__ = ["next_quorums"]

"""A field update that a replica laid over an old version of its point is not taken for the whole point (P8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from omendb_common.errors import UnavailableError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import DataNode, Looked, State, Verdict
from omendb_router.versions import newest, put_together
from tests.unit.router.router_cases import MAJORITY, Cluster, fetch, play, put

CIRCUIT_S = 6.0
"""After so long a node that was away is asked again."""


@dataclass
class Without:
    """A data node that refuses some kinds of calls."""

    node: Any
    refused: tuple[str, ...]

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def refuse(*_: Any) -> Any:
            raise UnavailableError("connection refused", outcome="none")

        asked: Callable[..., Awaitable[Any]] = getattr(self.node, name)
        return refuse if name in self.refused else asked


def refuse(c: Cluster, name: str, *calls: str) -> Callable[[], None]:
    """Let a node refuse these calls; returns what ends that."""
    node: DataNode = c.network[name].node
    c.network[name].node = Without(node, calls)  # type: ignore[assignment]  # answers every call that a node does

    def mend() -> None:
        c.network[name].node = node

    return mend


@pytest.mark.parametrize("engine", [False, True])
@pytest.mark.parametrize("away", ["d1", "d2", "d3", None])
def test_an_update_over_an_old_version_hides_no_later_one(away: str | None, engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [1], [1], c.soon())
        c.weather("d3", down=True)
        await put(r, [1], [2], c.soon())
        c.clear()
        await asyncio.sleep(CIRCUIT_S)
        # The update is acknowledged by d2, over the second version, and by d3, over the first; d1 misses it.
        for mend in [refuse(c, "d1", "apply"), refuse(c, "d3", "lookup")]:
            c.loop.call_later(CIRCUIT_S, mend)
        await r.update("c", IdColumn.of([1]), None, columns_from_rows([{"u": 7}]), deadline=c.soon())
        await asyncio.sleep(2 * CIRCUIT_S)
        if away is not None:
            c.weather(away, down=True)
        for _ in range(3):
            assert await fetch(r, [1], c.soon(), MAJORITY) == {1: {"v": 2, "u": 7}}

    play(story, engine=engine)


def looked(base: int, *updates: int, deleted: bool = False, content: int = 0) -> Looked:
    """A replica's whole record of point 1."""
    ids, top = IdColumn.of([1]), max(base, *updates, 0)
    batches = [WriteBatch(Op.DELETE if deleted else Op.UPSERT, ids, stamps=np.array([base], np.uint64))]
    batches += [WriteBatch(Op.UPDATE, ids, stamps=np.array([stamp], np.uint64)) for stamp in updates]
    return Looked(
        Verdict.OK,
        np.array([State.DELETED if deleted else State.LIVE], np.uint8),
        np.array([top], np.uint64),
        np.array([hash((base, updates, content))], np.int64).view(np.uint64),
        tuple(batches),
    )


@pytest.mark.parametrize(
    "one, other, torn",
    [
        (looked(5), looked(5), False),
        (looked(7), looked(5), False),
        (looked(7), looked(5, 6), False),
        (looked(5, 7), looked(5), False),
        (looked(5, 7), looked(6), True),
        (looked(5, 7), looked(6, 7), True),
        (looked(5, 7), looked(5, 6), True),
        (looked(5, 7), looked(6, deleted=True), True),
        (looked(7, deleted=True), looked(5, 6), False),
    ],
)
def test_only_what_lies_below_the_newest_base_is_covered(one: Looked, other: Looked, torn: bool) -> None:
    for answers in ([one, other], [other, one]):
        assert put_together(newest(answers), answers, IdColumn.of([1])).torn[0] == torn

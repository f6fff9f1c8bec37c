"""Several nodes with a replica each of one shard, and exchanges between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omendb_common.ids import IdColumn
from omendb_common.records import WriteBatch
from omendb_common.schema import VectorField
from omendb_common.shard_calls import DataNode, Verdict
from omendb_datanode.config import RepairSettings
from omendb_datanode.replicate.exchange import Exchange
from omendb_datanode.replicate.pace import Pace
from tests.unit.datanode.datanode_cases import Node, open_one
from tests.unit.engine.engine_cases import schema_of, settings_of, state_of

LATE = 1 << 60
"""A stamp above all that tests write."""
QUICK = RepairSettings(settle_s=0.0, bytes_per_s=1 << 40, batch_rows=7)


@contextmanager
def nodes_in(path: Path, count: int = 2, rows: int = 30) -> Iterator[list[Node]]:
    """Nodes with an empty replica each."""
    schema = schema_of(VectorField(4))
    nodes = [Node(open_one(path / f"r{n}", settings_of(rows=rows + n), schema)) for n in range(count)]
    try:
        yield nodes
    finally:
        for node in nodes:
            node.threads.close()
            node.replica.close()


def exchange(here: Node, there: Node, other: DataNode | None = None, **more: Any) -> Exchange:
    """An exchange that ``here`` begins; ``other`` stands before the rules of ``there``."""
    settings = more.pop("settings", QUICK)
    pace = Pace(here.clock, settings)
    floor = here.replica.maintenance.gc_floor
    return Exchange(here.rules, other or there.rules, here.shard, floor, here.clock, pace, settings, **more)


async def write(nodes: Sequence[Node], batch: WriteBatch, stamp: int) -> None:
    """Write to some of the nodes."""
    for node in nodes:
        answer = await node.apply(batch, stamp)
        assert answer.verdict is Verdict.OK, answer.error


def dump(node: Node, ids: Any = range(400)) -> tuple[Any, ...]:
    """All that can be known of some ids, and all points."""
    versions = node.replica.versions(IdColumn.of(list(ids)))
    return versions.states.tolist(), versions.stamps.tolist(), versions.digests().tolist(), state_of(node.replica)

"""What a fleet does beside its work: a replica that missed writes is mended, and replicas move between data nodes.

Each is brought about on purpose, and tells whether it is under way, so that a pass that saw nothing of it can be left
out. Mending is seen in what data nodes count of the rows that they send each other, a move in the cluster's status.
"""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from omendb import Client, OmenDBError
from omendb.cli.place import ROUTER, place_of
from omendb.fleet.fleet import Fleet
from omendb_common.deadline import Deadline
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_common.wire.with_coordinators import with_coordinators

COUNTED = ["--metrics-listen", "127.0.0.1:0"]
_SENT = re.compile(r"^omendb_repaired_rows_total\{[^}]*\} (\S+)$", re.MULTILINE)
_LOOK_S = 0.25
_CALL_S = 10.0
_PATIENCE_S = 60.0


def rows_sent(metrics: str) -> int:
    """Rows that a data node's metrics say it has sent, or fetched, to bring replicas together."""
    return sum(int(float(value)) for value in _SENT.findall(metrics))


def rows_mended(fleet: Fleet) -> int:
    """Rows that all data nodes that run have sent each other since each was started."""
    sent = 0
    for node in fleet.plan.of("datanode"):
        told = fleet.process(node.name).ready() if fleet.process(node.name).pid is not None else None
        if told is not None:
            with urllib.request.urlopen(f"http://{told['metrics']}/metrics", timeout=_CALL_S) as answer:
                sent += rows_sent(answer.read().decode())
    return sent


def holders(status: dict[str, Any]) -> list[str]:
    """The data nodes that have a replica of the only shard, by name."""
    (collection,) = status["collections"]
    (shard,) = collection["shards"]
    return sorted(replica["node_id"] for replica in shard["replicas"])


def next_move(held: Sequence[str], nodes: Sequence[str]) -> tuple[str, str]:
    """From which node to which a replica moves next: to the free one, from the one after it, so that all take turns."""
    free = next(place for place, node in enumerate(nodes) if node not in held)
    after = [*nodes[free + 1 :], *nodes[:free]]
    return next(node for node in after if node in held), nodes[free]


@contextmanager
def away(fleet: Fleet) -> Iterator[str]:
    """End the last data node that has a replica, and start it again after the body; gives its name."""
    name = holders(fleet.status())[-1]
    fleet.process(name).stop(_CALL_S)
    try:
        yield name
    finally:
        fleet.start(name)
    fleet.wait_member(name, _PATIENCE_S)


class Moving:
    """Moves a replica of the only shard on and on, beside the body of a ``with``; the last one ends with it."""

    def __init__(self, fleet: Fleet) -> None:
        self.moves = 0
        self._fleet = fleet
        self._place = place_of(fleet.folder, None, (None, None, None), ROUTER)
        self._nodes = [node.name for node in fleet.plan.of("datanode")]
        self._over, self._under_way = threading.Event(), threading.Event()
        self._failure: OmenDBError | None = None
        self._thread = threading.Thread(target=self._keep_moving)

    def __enter__(self) -> Moving:
        self._thread.start()
        if not self._under_way.wait(_PATIENCE_S):
            self._over.set()
            raise TimeoutError("no replica began to move") from self._failure
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def under_way(self) -> bool:
        """Whether a replica was on its way when last looked."""
        return self._under_way.is_set()

    def _keep_moving(self) -> None:
        try:
            with self._fleet.client() as client:
                while not self._over.is_set():
                    self._move(client)
        except OmenDBError as error:
            self._failure = error

    def _move(self, client: Client) -> None:
        with_coordinators(
            *(self._place.coordinators, self._begin, _CALL_S),
            tls=self._place.tls,
            name=self._place.node_id,
        )
        self._under_way.set()
        until_s = time.monotonic() + _PATIENCE_S
        while client.cluster_status()["moves"] and time.monotonic() < until_s:
            # Not ended with the body: the next case begins with every replica in its place.
            time.sleep(_LOOK_S)
        self._under_way.clear()
        self.moves += 1

    async def _begin(self, client: CoordinatorClient, deadline: Deadline) -> None:
        (info,) = (await client.refresh(0, deadline)).collections.values()
        (shard,) = info.shards
        held = [replica.node_id for replica in shard.replicas]
        source, target = next_move(held, self._nodes)
        await client.begin_move(info.schema.uuid, shard.shard_id, shard.epoch, source, target, deadline)


__all__ = ["COUNTED", "Moving", "away", "holders", "next_move", "rows_mended", "rows_sent"]

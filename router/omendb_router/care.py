"""Work on replicas as wholes: numbers, indexes, flush and compaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omendb_common.deadline import Deadline
from omendb_common.shard_calls import Maintain, Maintained, Task, Verdict
from omendb_common.topology import CollectionInfo
from omendb_router.asked import Asked, check_enough, hear
from omendb_router.fanout import Asking, Fanout, Heard, Unheard, together
from omendb_router.stamps import Stamps
from omendb_router.tally import weakest

_SUMS = ("points", "growing_rows", "unindexed_rows", "index_queue", "disk_bytes")


class Care:
    """Asks replicas for what concerns them as wholes."""

    def __init__(self, fanout: Fanout, stamps: Stamps) -> None:
        self._fanout = fanout
        self._stamps = stamps

    def _shards(self, info: CollectionInfo) -> list[Asked]:
        return [Asked(info, shard, 1, self._stamps.origin).single for shard in info.shards]

    async def one(self, asked: Asked, task: Task, deadline: Deadline) -> tuple[str, Any]:
        """Ask the most promising replica of a shard: (its node, its value)."""
        call = Maintain(asked.ref, task)
        good = await hear(self._fanout, asked, "care", lambda _, node: node.maintain(call, deadline), deadline)
        return good[0].node_id, good[0].answer.value

    async def everywhere(self, info: CollectionInfo, task: Task, deadline: Deadline) -> list[Any]:
        """Have every replica that answers do it; the first refusal is raised when all have answered."""
        return [
            value
            for part in await together([self._of_shard(a, task, deadline) for a in self._shards(info)])
            for value in part
        ]

    async def _of_shard(self, asked: Asked, task: Task, deadline: Deadline) -> list[Any]:
        call = Maintain(asked.ref, task)
        asking: Asking[Maintained] = self._fanout.asking("care", deadline)
        targets = asked.readers
        for node_id in targets:
            asking.start(node_id, lambda _, node: node.maintain(call, deadline))
        good: list[Heard[Maintained]] = []
        bad: list[Heard[Maintained] | Unheard] = []
        try:
            while asking.pending:
                reply = await asking.next()
                if isinstance(reply, Heard) and reply.answer.verdict is Verdict.OK:
                    good.append(reply)
                elif reply is not None:
                    bad.append(reply)
        finally:
            asking.cancel()
        # Replicas that do not answer catch up by themselves; one that refuses has something to say.
        said = [b for b in bad if isinstance(b, Heard)]
        need = len(good) + len(said) if said else 1
        check_enough(asked, good, bad, deadline, need=max(need, 1))
        return [heard.answer.value for heard in good]

    async def wait_until_indexed(self, info: CollectionInfo, deadline: Deadline) -> bool:
        """Wait for the indexes of every replica that answers; whether all are there."""
        return all(await self.everywhere(info, "wait_until_indexed", deadline))

    async def stats(self, info: CollectionInfo, deadline: Deadline) -> dict[str, Any]:
        """Numbers of one replica of each shard, and what they come to together."""
        asked = self._shards(info)
        answers = await together([self.one(a, "stats", deadline) for a in asked])
        shards = [
            {"shard_id": a.shard.shard_id, "node_id": node_id, **value}
            for a, (node_id, value) in zip(asked, answers, strict=True)
        ]
        return {**totals([value for _, value in answers]), "shards": shards}

    async def verify(self, info: CollectionInfo, deadline: Deadline) -> dict[str, Any]:
        """Have one replica of each shard compare itself with all others: whether all are equal, and what each found."""
        asked = self._shards(info)
        answers = await together([self.one(a, "verify", deadline) for a in asked])
        shards = [
            {"shard_id": a.shard.shard_id, "node_id": node_id, **value}
            for a, (node_id, value) in zip(asked, answers, strict=True)
        ]
        return {"equal": all(shard["equal"] for shard in shards), "shards": shards}


def totals(stats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers of several replicas as those of one."""
    out: dict[str, Any] = {name: sum(int(s.get(name, 0)) for s in stats) for name in _SUMS}
    out["segments"] = [segment for s in stats for segment in s.get("segments", ())]
    out["index_progress"] = min((float(s.get("index_progress", 1.0)) for s in stats), default=1.0)
    durability = ""
    for s in stats:
        durability = weakest(durability, str(s.get("durability", "")))
    out["durability"] = durability
    out["failed"] = any(bool(s.get("failed")) for s in stats)
    out["last_error"] = next((s["last_error"] for s in stats if s.get("last_error")), None)
    return out


__all__ = ["Care", "totals"]

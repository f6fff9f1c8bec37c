"""Routes behind the writes, about the cluster, and about this process."""

from __future__ import annotations

from typing import Any

from omendb_common.errors import InvalidArgumentError
from omendb_common.schema import check_collection_name
from omendb_router.rest.bodies import Done, JsonObject, NoBody, WaitAnswer, WaitBody
from omendb_router.rest.calls import Call, Route


async def stats(call: Call) -> JsonObject:
    """Numbers about a collection."""
    return await call.router.stats(check_collection_name(call.path["name"]), call.deadline)


async def wait_until_indexed(call: Call) -> WaitAnswer:
    """Wait until every segment has its index."""
    asked: WaitBody = call.body
    if not 0 <= asked.timeout <= 3600:
        raise InvalidArgumentError(f"got {asked.timeout!r}", field="timeout", bound="seconds, 0..3600")
    collection = check_collection_name(call.path["name"])
    return WaitAnswer(indexed=await call.router.wait_until_indexed(collection, asked.timeout, call.deadline))


async def flush(call: Call) -> Done:
    """Turn the growing buffers into segments."""
    await call.router.flush(check_collection_name(call.path["name"]), call.deadline)
    return Done()


async def compact(call: Call) -> Done:
    """Merge and clean segments."""
    await call.router.compact(check_collection_name(call.path["name"]), call.deadline)
    return Done()


async def verify(call: Call) -> JsonObject:
    """Compare the replicas of every shard."""
    return await call.router.verify(check_collection_name(call.path["name"]), call.deadline)


async def cluster_status(call: Call) -> JsonObject:
    """Members, collections and shards, for people."""
    return await call.router.cluster_status(call.deadline)


def _care(path: str, name: str, summary: str, handler: Any, answer: Any, body: Any = NoBody) -> Route:
    return Route(
        "POST",
        f"/collections/{{name}}/{path}",
        name,
        summary,
        handler,
        answer,
        body,
        body_needed=False,
        care=True,
        tag="care",
    )


ROUTES = (
    Route(
        "GET",
        "/collections/{name}/stats",
        "stats",
        "Rows, segments, indexes, memory and disk of a collection",
        stats,
        None,
        tag="care",
    ),
    _care(
        "wait-until-indexed",
        "waitUntilIndexed",
        "Wait until every segment has its index; only speed depends on it",
        wait_until_indexed,
        WaitAnswer,
        WaitBody,
    ),
    _care("flush", "flush", "Turn the growing buffers into segments now", flush, Done),
    _care("compact", "compact", "Merge and clean segments now", compact, Done),
    _care("verify", "verify", "Compare the replicas of every shard by their hash trees", verify, None),
    Route("GET", "/cluster/status", "clusterStatus", "How the cluster is", cluster_status, None, tag="cluster"),
)

__all__ = ["ROUTES", "cluster_status", "compact", "flush", "stats", "verify", "wait_until_indexed"]

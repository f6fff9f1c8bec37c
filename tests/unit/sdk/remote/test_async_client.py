"""The client's coroutines: the same names, the same answers, and a cancelled one ends its call."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

import omendb
from omendb_common.errors import DatabaseClosedError, DeadlineExceededError, NotFoundError
from tests.unit.sdk.remote.face_server import FaceServer

V = np.array([[0, 0], [1, 1], [2, 2]], np.float32)
PLAIN = {"closed", "name", "path", "router"}
"""What needs no network."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_it_has_every_name_of_the_synchronous_one() -> None:
    assert public(omendb.Collection) - PLAIN <= public(omendb.AsyncCollection)
    assert public(omendb.Client) - PLAIN <= public(omendb.AsyncClient)
    for name in public(omendb.AsyncClient) - PLAIN:
        method = getattr(omendb.AsyncClient, name)
        assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method), name


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_write_read_search(server: FaceServer) -> None:
    async def work() -> None:
        async with omendb.AsyncClient(server.url) as client:
            assert await client.count() == 0 and await client.schema() is None
            written = await client.add_batch(V, {"n": [1, 2, 3]}, ["a", "b", "c"])
            assert written == ["a", "b", "c"] and await client.dimension() == 2
            hits = await client.search(V[1], k=2, timeout=10.0)
            assert [hit.id for hit in hits] == ["b", "a"] and hits[0].metadata == {"n": 2} and hits[0].vector is None
            both = await client.search(vectors=V[:2], k=1, include=["vector"])
            assert [r[0].vector.tolist() for r in both] == [[0, 0], [1, 1]]
            assert (await client.get("a")).metadata == {"n": 1} and len(await client.get(["a", "zz"])) == 2
            assert [r.id async for r in client.iterate({"n": {"$gte": 2}}, page_rows=1)] != []
            assert (await client.update(["a"], metadata={"n": [7]})).written == 1
            assert await client.delete(["b"]) == 1 and await client.count({"n": 7}) == 1
            await client.flush()
            await client.compact()
            assert await client.wait_until_indexed(30) and (await client.stats()).points == 2
            books = await client.create_collection("books", 3)
            assert isinstance(books, omendb.AsyncCollection) and books.name == "books"
            await books.upsert([1], [[1.0, 2.0, 3.0]])
            assert await client.count(collection="books") == 1 == await (await client.collection("books")).count()
            await client.rename_collection("books", "tomes")
            assert await client.list_collections() == ["default", "tomes"]
            await client.drop_collection("tomes")
            with pytest.raises(NotFoundError):
                await client.collection("tomes")
            assert await client.cluster_status() == {"cluster_id": "test"}
        with pytest.raises(DatabaseClosedError):
            await client.count()
        await client.close()

    run(work())


def test_it_connects_with_its_first_call_and_only_once(server: FaceServer) -> None:
    async def work() -> None:
        client = omendb.AsyncClient(server.url)
        assert await asyncio.gather(*(client.count() for _ in range(20))) == [0] * 20
        await client.close()

    run(work())


def test_many_calls_at_a_time(server: FaceServer) -> None:
    async def work() -> None:
        async with omendb.AsyncClient(server.url, calls_at_a_time=8) as client:
            await client.add_batch(V, ids=[0, 1, 2])
            found = await asyncio.gather(*(client.search(V[i % 3], k=1) for i in range(200)))
            assert [hits[0].id for hits in found] == [i % 3 for i in range(200)]

    run(work())


def test_a_cancelled_call_ends(server: FaceServer) -> None:
    entered, left = threading.Event(), threading.Event()
    count = server.router.count

    async def slow(*arguments: Any, **options: Any) -> int:
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return await count(*arguments, **options)

    async def work() -> None:
        async with omendb.AsyncClient(server.url, calls_at_a_time=1) as client:
            await client.add_batch(V)
            server.router.count = slow  # type: ignore[method-assign]
            task = asyncio.create_task(client.count())
            assert await asyncio.to_thread(entered.wait, 10)
            with pytest.raises(DeadlineExceededError, match="waited for a turn"):
                await client.count(timeout=0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(left.wait, 10), "the server learns that nobody waits any more"
            server.router.count = count  # type: ignore[method-assign]
            assert await client.count() == 3

    run(work())

"""The client for programs with an event loop: the same names, as coroutines.

There is one core, the synchronous one. A coroutine runs it on a thread of a small pool, where it waits for the network
without holding the interpreter; cancelling the coroutine breaks the call off.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from omendb.client import DEFAULT_URL, Client
from omendb.collection import Collection, FilterLike
from omendb.database import Database
from omendb.records import Record
from omendb.remote.cancelling import CANCEL_SCOPE, CancelScope
from omendb_common.errors import DatabaseClosedError, DeadlineExceededError
from omendb_common.schema import CollectionSchema

P = ParamSpec("P")
R = TypeVar("R")

CALLS_AT_A_TIME = 64
_HIT_COLUMNS = ("id", "distance", "score", "metadata")


class Threads:
    """A bounded pool for the calls of one client; a call waits for its turn within its own timeout."""

    def __init__(self, at_a_time: int) -> None:
        self._pool = ThreadPoolExecutor(at_a_time, thread_name_prefix="omendb-aio")
        self._turns = asyncio.Semaphore(at_a_time)

    async def run(self, call: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """``call`` on a thread; cancelling this ends its network calls."""
        given, started = kwargs.get("timeout"), time.perf_counter()
        # One that is no number of seconds is refused by the call.
        timeout = given if isinstance(given, (int, float)) and given > 0 else None
        try:
            async with asyncio.timeout(timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise DeadlineExceededError(
                "waited for a turn", field="timeout", mend="allow more calls at a time", outcome="none"
            ) from None
        try:
            if timeout is not None:
                kwargs["timeout"] = max(timeout - (time.perf_counter() - started), 1e-3)
            scope, context = CancelScope(), contextvars.copy_context()
            context.run(CANCEL_SCOPE.set, scope)
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(
                    self._pool, functools.partial(context.run, functools.partial(call, *args, **kwargs))
                )
            except asyncio.CancelledError:
                scope.cancel()
                raise
        finally:
            self._turns.release()

    def close(self) -> None:
        """Let the threads go when their calls are done."""
        self._pool.shutdown(wait=False)


def awaited(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[AsyncCollection, P], Coroutine[Any, Any, R]]:
    """The coroutine of a method of the synchronous collection or database."""

    @functools.wraps(method)
    async def run(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._threads.run(method, await self._target(), *args, **kwargs)

    return run


class AsyncCollection:
    """A collection whose calls are coroutines. The arguments, answers and errors are those of :class:`Collection`."""

    def __init__(self, collection: Collection | None, threads: Threads) -> None:
        self._collection = collection
        self._threads = threads

    async def _target(self) -> Any:
        return self._collection

    add_batch = awaited(Collection.add_batch)
    upsert = awaited(Collection.upsert)
    update = awaited(Collection.update)
    delete = awaited(Collection.delete)
    get: Callable[..., Coroutine[Any, Any, Any]] = awaited(Collection.get)
    scroll = awaited(Collection.scroll)
    count = awaited(Collection.count)
    explain = awaited(Collection.explain)
    stats = awaited(Collection.stats)
    wait_until_indexed = awaited(Collection.wait_until_indexed)
    flush = awaited(Collection.flush)
    compact = awaited(Collection.compact)

    async def search(self, query: Any = None, k: int = 10, **arguments: Any) -> Any:
        """:meth:`Collection.search`. Without ``include`` the hits have no vectors, which would be fetched later."""
        if arguments.get("include") is None:
            arguments["include"] = _HIT_COLUMNS
        return await self._threads.run(Collection.search, await self._target(), query, k, **arguments)

    async def iterate(
        self, filters: FilterLike = None, *, include: Sequence[str] = ("metadata",), page_rows: int = 1000, **call: Any
    ) -> AsyncIterator[Record]:
        """:meth:`Collection.iterate`, a page at a time."""
        cursor: str | None = None
        while True:
            page = await self.scroll(page_rows, cursor, filters, include=include, **call)
            for record in page.records:
                yield record
            cursor = page.cursor
            if cursor is None:
                return

    @property
    def name(self) -> str:
        """The collection's name."""
        return "" if self._collection is None else self._collection.name

    async def schema(self) -> CollectionSchema | None:
        """Vector fields, metric and element type; None for a default collection nothing was written to."""
        target = await self._target()
        return await self._threads.run(lambda: target.schema)

    async def dimension(self) -> int | None:
        """The dimension of the collection's vectors; None while it has no schema."""
        target = await self._target()
        return await self._threads.run(lambda: target.dimension)


class AsyncClient(AsyncCollection):
    """:class:`Client` with coroutines; it connects in ``async with``, or with its first call.

    ::

        async with omendb.AsyncClient("http://localhost:8480") as client:
            hits = await client.search(collection="documents", vectors=embeddings, k=10, timeout=0.1)

    Args:
        url: as of :class:`Client`, like all ``options``.
        calls_at_a_time: more calls than these wait for their turn.
    """

    def __init__(
        self, url: str | Sequence[str] = DEFAULT_URL, *, calls_at_a_time: int = CALLS_AT_A_TIME, **options: Any
    ):
        super().__init__(None, Threads(calls_at_a_time))
        self._connect = functools.partial(Client, url, **options)
        self._connecting = asyncio.Lock()
        self._closed = False

    async def _target(self) -> Client:
        if self._closed:
            raise DatabaseClosedError(
                "the client is closed", field="client", bound="an open client", mend="open it again"
            )
        if self._collection is None:
            async with self._connecting:
                if self._collection is None:
                    self._collection = await self._threads.run(self._connect)
        assert isinstance(self._collection, Client)
        return self._collection

    list_collections = awaited(Database.list_collections)
    drop_collection = awaited(Database.drop_collection)
    rename_collection = awaited(Database.rename_collection)
    alter_collection = awaited(Database.alter_collection)
    cluster_status = awaited(Client.cluster_status)

    async def create_collection(self, name: str, *args: Any, **arguments: Any) -> AsyncCollection:
        """:meth:`Database.create_collection`."""
        return await self._handed_out(Database.create_collection, name, *args, **arguments)

    async def collection(self, name: str, **arguments: Any) -> AsyncCollection:
        """:meth:`Database.collection`."""
        return await self._handed_out(Database.collection, name, **arguments)

    async def close(self) -> None:
        """Let go of connections and threads; closing twice is fine."""
        if not self._closed:
            self._closed = True
            if self._collection is not None:
                await self._threads.run(Database.close, self._collection)
            self._threads.close()

    async def __aenter__(self) -> Self:
        await self._target()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _handed_out(self, make: Callable[..., Collection], *args: Any, **arguments: Any) -> AsyncCollection:
        return AsyncCollection(await self._threads.run(make, await self._target(), *args, **arguments), self._threads)


__all__ = ["CALLS_AT_A_TIME", "AsyncClient", "AsyncCollection", "Threads", "awaited"]

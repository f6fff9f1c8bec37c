"""A data node behind frames answers as it does without them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common import shard_calls as calls
from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, DeadlineExceededError, InvalidArgumentError, UnavailableError
from omendb_common.security.dev_certificates import DevAuthority
from omendb_common.shard_calls import DataNode, Verdict
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.datanode_server import serve_datanode
from omendb_common.wire.frame_connection import FrameIdentity
from tests.unit.wire.frame_cases import CLOCK, NODE, ROUTER, serving, soon, until
from tests.unit.wire.shard_cases import SHARD, answer, any_answer, any_call, plain, search

METHODS = ("apply", "search", "lookup", "score", "repair", "scroll", "select", "maintain", "sums", "entries")


class Scripted:
    """A data node that answers what it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Any = None
        self.held: asyncio.Event | None = None
        self.cancelled = 0

    async def _reply(self, call: Any, deadline: Deadline) -> Any:
        self.asked.append(call)
        if self.held is not None:
            try:
                await self.held.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    apply = search = lookup = score = repair = scroll = select = maintain = sums = entries = _reply


class Pair:
    """A scripted node, served, and a remote one that calls it; each on the loop of one runner."""

    async def __aenter__(self) -> Pair:
        self.node = Scripted()
        self.server = await serve_datanode(self.node, "127.0.0.1:0", identity=NODE)
        self.remote = RemoteDataNode(self.server.address, identity=ROUTER, node_id="d1", coalesce=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.remote.close()
        await self.server.stop(drain_s=0.0)


def method_of(call: Any) -> str:
    return type(call).__name__.lower()


def test_every_call_goes_there_and_every_answer_comes_back() -> None:
    # One loop for all cases: a connection for each would test the kernel.
    with asyncio.Runner() as runner:
        pair = runner.run(_entered())

        @settings(max_examples=60, deadline=None)
        @given(any_call().flatmap(lambda c: st.tuples(st.just(c), any_answer(METHODS.index(method_of(c)) + 1))))
        def there_and_back(case: tuple[Any, tuple[int, Any]]) -> None:
            call, (_, scripted) = case
            pair.node.answer = scripted
            got = runner.run(getattr(pair.remote, method_of(call))(call, soon()))
            assert plain(got) == plain(scripted) and plain(pair.node.asked[-1]) == plain(call)

        there_and_back()
        runner.run(pair.__aexit__())


async def _entered() -> Pair:
    return await Pair().__aenter__()


SELECT = calls.Select(SHARD)


def test_an_error_of_the_node_is_raised_as_it_was() -> None:
    async def scene() -> None:
        async with Pair() as pair:
            pair.node.answer = AlreadyExistsError("there is one", field="ids")
            with pytest.raises(AlreadyExistsError, match="ids: there is one"):
                await pair.remote.select(SELECT, soon())

    asyncio.run(scene())


def test_a_malformed_call_is_the_callers_fault_and_a_malformed_answer_the_nodes() -> None:
    async def garbage(request: Any) -> Any:
        return b"\xff\xff\xff", ()

    async def scene() -> None:
        async with Pair() as pair:
            with pytest.raises(InvalidArgumentError):
                await pair.remote.frames.call(99, b"", deadline=soon())
            with pytest.raises(InvalidArgumentError):
                await pair.remote.frames.call(2, b"\xff", deadline=soon())
            assert not pair.node.asked
        async with serving(garbage) as server:
            remote = RemoteDataNode(server.address, identity=ROUTER)
            with pytest.raises(UnavailableError, match="malformed answer") as caught:
                await remote.select(SELECT, soon())
            assert caught.value.outcome == "unknown"
            await remote.close()

    asyncio.run(scene())


def test_a_read_ends_with_its_caller_and_a_write_does_not() -> None:
    async def scene() -> None:
        async with Pair() as pair:
            pair.node.held = asyncio.Event()
            pair.node.answer = calls.Applied(Verdict.OK)
            with pytest.raises(DeadlineExceededError) as caught:
                await pair.remote.select(SELECT, soon(0.05))
            assert caught.value.outcome == "unknown"
            await until(lambda: pair.node.cancelled == 1)
            with pytest.raises(DeadlineExceededError):
                await pair.remote.repair(calls.Repair(SHARD, ()), soon(0.05))
            await pair.remote.close()
            await until(lambda: pair.server.connections == 0)
            assert pair.node.cancelled == 1 and pair.server.in_flight == 1
            pair.node.held.set()
            await until(lambda: pair.server.in_flight == 0)
            assert pair.node.cancelled == 1

    asyncio.run(scene())


@pytest.mark.parametrize("role", ["coordinator", "client", ""])
def test_only_routers_and_data_nodes_may_call(role: str) -> None:
    async def scene() -> None:
        async with Pair() as pair:
            stranger = RemoteDataNode(pair.server.address, identity=FrameIdentity("c1", role, "x"))
            with pytest.raises(UnavailableError) as caught:
                await stranger.select(SELECT, soon())
            assert caught.value.outcome == "none" and not pair.node.asked
            await stranger.close()

    asyncio.run(scene())


def test_it_is_a_data_node() -> None:
    """The type checker holds the client to the port; this holds the tables to it."""

    def port(node: DataNode) -> DataNode:
        return node

    async def scene() -> None:
        remote = RemoteDataNode("h:1", identity=ROUTER)
        assert port(remote) is remote and remote.address == "h:1"
        assert all(hasattr(remote, method) for method in METHODS)
        await remote.close()

    asyncio.run(scene())


def test_searches_of_one_moment_reach_the_node_as_one_over_tls(tmp_path: Any) -> None:
    authority = DevAuthority.open(tmp_path, "c1", CLOCK)

    class Node(Scripted):
        async def search(self, call: calls.Search, deadline: Deadline) -> calls.ShardHits:
            self.asked.append(call)
            return answer(call)

    async def scene() -> None:
        node = Node()
        server = await serve_datanode(node, "127.0.0.1:0", identity=NODE, tls=authority.issue("datanode", "d1", CLOCK))
        remote = RemoteDataNode(server.address, identity=ROUTER, tls=authority.issue("router", "r1", CLOCK))
        asked = [search(i) for i in range(50)]
        got = await asyncio.gather(*(remote.search(call, soon()) for call in asked))
        assert [plain(g) for g in got] == [plain(answer(call)) for call in asked]
        assert [len(call.queries) for call in node.asked] == [50]
        await remote.close()
        await server.stop()

    uvloop.run(scene())

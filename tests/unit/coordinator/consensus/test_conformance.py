"""What every implementation of the seam promises the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_coordinator.consensus.seam import COMMAND_BYTES_MAX, Consensus, NotLeaderError
from tests.unit.coordinator.consensus.group_cases import ListMachine, MemoryNetwork, cluster, until
from tests.unit.coordinator.memory_group import MemoryGroup

Seam = tuple[Consensus, ListMachine]
Made = Callable[[], AbstractAsyncContextManager[Seam]]


@asynccontextmanager
async def _memory() -> AsyncIterator[Seam]:
    machine = ListMachine()
    yield MemoryGroup(machine), machine


def _raft(count: int, network: type[MemoryNetwork] | None) -> Made:
    @asynccontextmanager
    async def made() -> AsyncIterator[Seam]:
        async with cluster(count, network=None if network is None else network()) as group:
            leader = await group.leader()
            yield leader, group.machines[leader.status.node_id]

    return made


IMPLEMENTATIONS: dict[str, Made] = {
    "memory": _memory,
    "one": _raft(1, None),
    "three in memory": _raft(3, MemoryNetwork),
    "three over loopback": _raft(3, None),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def made(request: pytest.FixtureRequest) -> Made:
    return IMPLEMENTATIONS[request.param]


def run(made: Made, story: Callable[[Consensus, ListMachine], Coroutine[Any, Any, None]]) -> None:
    async def tell() -> None:
        async with made() as (consensus, machine):
            await story(consensus, machine)

    asyncio.run(tell())


def test_a_proposal_is_applied_when_it_returns_and_says_what_the_machine_said(made: Made) -> None:
    async def story(consensus: Consensus, machine: ListMachine) -> None:
        first = await consensus.propose(b"one", 10.0)
        second = await consensus.propose(b"two", 10.0)
        assert (first.result, second.result) == (b"1", b"2")
        assert second.index > first.index > 0
        assert machine.items == [b"one", b"two"]
        assert consensus.status.applied_index >= second.index

    run(made, story)


def test_many_at_once_are_applied_once_each(made: Made) -> None:
    async def story(consensus: Consensus, machine: ListMachine) -> None:
        answers = await asyncio.gather(*(consensus.propose(b"%d" % number, 10.0) for number in range(200)))
        assert len({answer.index for answer in answers}) == 200
        assert sorted(machine.items) == sorted(b"%d" % number for number in range(200))
        for answer in answers:
            assert machine.items[int(answer.result) - 1] in machine.items

    run(made, story)


def test_a_read_index_is_not_before_what_was_acknowledged(made: Made) -> None:
    async def story(consensus: Consensus, machine: ListMachine) -> None:
        for number in range(10):
            committed = await consensus.propose(b"%d" % number, 10.0)
            index = await consensus.read_index(10.0)
            assert committed.index <= index <= consensus.status.applied_index

    run(made, story)


def test_the_status_tells_who_leads(made: Made) -> None:
    async def story(consensus: Consensus, machine: ListMachine) -> None:
        status = consensus.status
        assert (status.role, status.leader) == ("leader", status.node_id)
        assert status.node_id in status.members
        assert status.term > 0

    run(made, story)


@pytest.mark.parametrize("name", [name for name in IMPLEMENTATIONS if name != "memory"])
def test_a_command_that_is_too_long_is_refused(name: str) -> None:
    async def story(consensus: Consensus, machine: ListMachine) -> None:
        await consensus.propose(b"x" * COMMAND_BYTES_MAX, 10.0)
        with pytest.raises(InvalidArgumentError):
            await consensus.propose(b"x" * (COMMAND_BYTES_MAX + 1), 10.0)

    run(IMPLEMENTATIONS[name], story)


@pytest.mark.parametrize("network", [MemoryNetwork, None], ids=["in memory", "over loopback"])
def test_followers_refuse_and_name_the_leader(network: type[MemoryNetwork] | None) -> None:
    async def story() -> None:
        async with cluster(3, network=None if network is None else network()) as group:
            leader = (await group.leader()).status.node_id
            await until(lambda: all(member.status.leader == leader for member in group.groups.values()))
            for name, member in group.groups.items():
                if name != leader:
                    for call in (member.propose(b"x", 5.0), member.read_index(5.0)):
                        with pytest.raises(NotLeaderError) as error:
                            await call
                        assert error.value.leader == leader
                        assert error.value.outcome == "none"

    asyncio.run(story())

"""A group on an event loop: restarts, cuts, failures, and what callers are told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_common.disk import RealDisk
from omendb_common.errors import CorruptionError, DatabaseLockedError, InvalidArgumentError, UnavailableError
from omendb_coordinator.consensus.group import RaftGroup
from omendb_coordinator.consensus.seam import ConsensusStatus, NotLeaderError
from tests.unit.coordinator.consensus.group_cases import FAST, ListMachine, MemoryNetwork, cluster, until


def test_a_group_restarts_with_everything_that_it_acknowledged() -> None:
    async def story() -> None:
        async with cluster(3, network=MemoryNetwork()) as group:
            leader = await group.leader()
            for number in range(20):
                await leader.propose(b"%d" % number, 10.0)
            for name in list(group.groups):
                await group.stop(name)
            for name in group.peers:
                await group.start(name)
            await group.leader()
            await group.settled()
            for machine in group.machines.values():
                assert machine.items == [b"%d" % number for number in range(20)]

    asyncio.run(story())


def test_a_member_that_was_away_for_long_gets_a_snapshot() -> None:
    async def story() -> None:
        settings = replace(FAST, snapshot_entries=20, keep_entries=5, chunk_bytes=64)
        async with cluster(3, network=MemoryNetwork(), settings=settings) as group:
            leader = await group.leader()
            away = next(name for name in group.groups if name != leader.status.node_id)
            await group.stop(away)
            for number in range(100):
                await leader.propose(b"%d" % number, 10.0)
            await group.start(away)
            await group.settled()
            assert group.machines[away].items == group.machines[leader.status.node_id].items
            assert group.machines[away].restored > 0
            # And from its own snapshot the next time.
            await group.stop(away)
            await group.start(away)
            await group.settled()
            assert len(group.machines[away].items) == 100

    asyncio.run(story())


def test_a_leader_that_is_cut_off_stops_leading_and_its_callers_do_not_know() -> None:
    async def story() -> None:
        network = MemoryNetwork()
        async with cluster(3, network=network) as group:
            old = await group.leader()
            name = old.status.node_id
            network.cut = {name}
            with pytest.raises(UnavailableError) as error:
                await old.propose(b"lost?", 10.0)
            assert error.value.outcome == "unknown"
            with pytest.raises(UnavailableError):
                await old.read_index(10.0)
            new = await group.leader(*(other for other in group.groups if other != name))
            await new.propose(b"kept", 10.0)
            network.cut = set()
            await group.settled()
            assert {tuple(machine.items) for machine in group.machines.values()} == {(b"kept",)}
            assert old.status.leader == new.status.node_id

    asyncio.run(story())


def test_a_caller_that_waits_too_long_is_told_that_nobody_knows() -> None:
    async def story() -> None:
        network = MemoryNetwork()
        async with cluster(3, network=network) as group:
            leader = await group.leader()
            network.cut = set(group.groups)
            with pytest.raises(UnavailableError) as error:
                await leader.propose(b"x", 0.02)
            assert error.value.outcome == "unknown"
            network.cut = set()

    asyncio.run(story())


def test_stopping_hands_the_lead_over() -> None:
    async def story() -> None:
        async with cluster(3, network=MemoryNetwork()) as group:
            leader = await group.leader()
            await leader.propose(b"x", 10.0)
            await group.settled()
            name = leader.status.node_id
            term = leader.status.term
            await group.stop(name)
            assert (await group.leader()).status.term == term + 1

    asyncio.run(story())


def test_those_who_wait_when_a_member_stops_are_told() -> None:
    async def story() -> None:
        network = MemoryNetwork()
        async with cluster(3, network=network) as group:
            leader = await group.leader()
            network.cut = set(group.groups)
            waiting = asyncio.ensure_future(leader.propose(b"x", 10.0))
            await asyncio.sleep(0)
            await group.stop(leader.status.node_id)
            with pytest.raises(UnavailableError):
                await waiting
            with pytest.raises(UnavailableError):
                await leader.propose(b"y", 1.0)

    asyncio.run(story())


def test_a_poisonous_command_ends_the_member_once_and_for_all() -> None:
    """D1 (S8): no second application, no half-dead member that goes on talking."""

    async def story() -> None:
        async with cluster(1) as group:
            leader = await group.leader()
            machine = group.machines["c1"]
            await leader.propose(b"fine", 10.0)
            with pytest.raises(UnavailableError) as error:
                await leader.propose(machine.poison, 10.0)
            assert error.value.outcome == "unknown"
            assert isinstance(group.fatal["c1"], ArithmeticError)
            with pytest.raises(UnavailableError):
                await leader.propose(b"after", 10.0)
            assert machine.items == [b"fine"]

    asyncio.run(story())


def test_a_failed_sync_ends_the_member_before_anybody_is_told() -> None:
    async def story() -> None:
        async with cluster(1) as group:
            leader = await group.leader()
            disk = group.disks["c1"]
            assert isinstance(disk, SimDisk)
            disk.faults.fail("datasync")
            with pytest.raises(UnavailableError) as error:
                await leader.propose(b"x", 10.0)
            assert error.value.outcome == "unknown"
            assert isinstance(group.fatal["c1"], OSError)
            assert group.machines["c1"].items == []

    asyncio.run(story())


def test_a_callback_that_raises_changes_nothing() -> None:
    """D2 (S7): a caller's exception must not reach the log."""

    async def story() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        network = MemoryNetwork()
        async with cluster(3, network=network) as group:
            seen: list[ConsensusStatus] = []

            def broken(status: ConsensusStatus) -> None:
                seen.append(status)
                raise RuntimeError("Event loop is closed")

            for member in group.groups.values():
                member.on_change(broken)
            leader = await group.leader()
            waiting = asyncio.ensure_future(leader.propose(b"given up", 10.0))
            await asyncio.sleep(0)
            waiting.cancel()
            await leader.propose(b"x", 10.0)
            await group.settled()
            assert [machine.items[-1] for machine in group.machines.values()] == [b"x"] * 3
            assert all(len(machine.items) <= 2 for machine in group.machines.values())
            assert any(status.role == "leader" for status in seen)
            assert all(isinstance(complaint, RuntimeError) for complaint in complaints)
            assert complaints

    asyncio.run(story())


def test_a_lost_disk_comes_back_by_rejoining_only() -> None:
    async def story() -> None:
        network = MemoryNetwork()
        async with cluster(3, network=network) as group:
            leader = await group.leader()
            await leader.propose(b"x", 10.0)
            lost = next(name for name in group.groups if name != leader.status.node_id)
            await group.stop(lost)
            group.disks[lost] = SimDisk()
            with pytest.raises(InvalidArgumentError):
                await group.start(lost)
            group.groups.pop(lost)
            await group.start(lost, rejoin=True)
            await until(lambda: group.machines[lost].items == [b"x"])
            assert group.groups[lost].status.role == "rejoining"
            await until(lambda: group.groups[lost].status.role == "follower")

    asyncio.run(story())


def test_a_new_disk_that_does_not_say_so_is_kept_out() -> None:
    """Started with bootstrap again, a member that lost its disk would vote as if it had promised nothing."""

    async def story() -> None:
        async with cluster(3) as group:
            leader = await group.leader()
            await leader.propose(b"x", 10.0)
            await group.settled()
            lost = next(name for name in group.groups if name != leader.status.node_id)
            await group.stop(lost)
            group.disks[lost] = SimDisk()
            member = await group.start(lost, bootstrap=True)
            for number in range(10):
                await leader.propose(b"%d" % number, 10.0)
            await until(lambda: member.status.role == "candidate")
            assert member.status.leader is None
            assert member.status.last_index == 0
            await group.stop(lost)
            group.disks[lost] = SimDisk()
            await group.start(lost, rejoin=True)
            await group.settled()

    asyncio.run(story())


def test_one_process_per_member(tmp_path: Path) -> None:
    async def story() -> None:
        def group() -> RaftGroup:
            peers = {"c1": ("127.0.0.1", 0)}
            return RaftGroup(RealDisk(), f"{tmp_path}/raft", "c1", peers, ListMachine(), bootstrap=True)

        first, second = group(), group()
        await first.start()
        with pytest.raises(DatabaseLockedError):
            await second.start()
        await first.stop()
        third = group()
        await third.start()
        await third.stop()

    asyncio.run(story())


def test_a_folder_that_is_damaged_does_not_start() -> None:
    async def story() -> None:
        async with cluster(1) as group:
            await (await group.leader()).propose(b"x", 10.0)
            await group.stop("c1")
            disk = group.disks["c1"]
            assert isinstance(disk, SimDisk)
            disk.unlink("raft/raft.vote")
            with pytest.raises(CorruptionError):
                await group.start("c1", bootstrap=True)
            group.groups.clear()

    asyncio.run(story())


def test_nonsense_is_refused_when_a_member_is_made() -> None:
    async def story() -> None:
        peers = {"c1": ("127.0.0.1", 0)}
        with pytest.raises(InvalidArgumentError):
            RaftGroup(SimDisk(), "raft", "c2", peers, ListMachine())
        with pytest.raises(InvalidArgumentError):
            RaftGroup(SimDisk(), "raft", "c1", peers, ListMachine(), bootstrap=True, rejoin=True)
        never_started = RaftGroup(SimDisk(), "raft", "c1", peers, ListMachine())
        with pytest.raises(UnavailableError):
            await never_started.propose(b"x", 1.0)
        with pytest.raises(UnavailableError):
            _ = never_started.status

    asyncio.run(story())


def test_a_term_that_ends_takes_its_leaders_reads_with_it() -> None:
    async def story() -> None:
        network = MemoryNetwork()
        async with cluster(3, network=network) as group:
            leader = await group.leader()
            network.cut = {leader.status.node_id}
            reads = await asyncio.gather(*(leader.read_index(10.0) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(read, NotLeaderError) for read in reads)

    asyncio.run(story())

"""A group whose members meet full disks, failed syncs, torn logs, damaged snapshots, set clocks and large states."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_common.clock import SystemClock
from omendb_common.errors import CorruptionError
from omendb_coordinator.consensus.group import RaftGroup
from omendb_coordinator.consensus.seam import COMMAND_BYTES_MAX
from omendb_coordinator.consensus.settings import RaftSettings
from tests.unit.coordinator.consensus.group_cases import FAST, Cluster, ListMachine, MemoryNetwork, cluster, until

SNAPSHOTS = replace(FAST, snapshot_entries=10, keep_entries=2, chunk_bytes=64)


def disk_of(group: Cluster, name: str) -> SimDisk:
    disk = group.disks[name]
    assert isinstance(disk, SimDisk)
    return disk


def other_than(group: Cluster, leader: RaftGroup) -> str:
    return next(name for name in group.groups if name != leader.status.node_id)


async def write_all(group: Cluster, numbers: range) -> None:
    """Acknowledged commands, whoever leads by then."""
    leader = await group.leader(*(name for name in group.groups if name not in group.fatal))
    for number in numbers:
        await leader.propose(b"%d" % number, 10.0)


async def all_have(group: Cluster, numbers: range, sixth: bytes | None = None) -> None:
    """Every member comes to have just these commands, in this order, and one after the fifth if it is given."""
    expected = [b"%d" % number for number in numbers]
    if sixth is not None:
        expected.insert(5, sixth)
    await until(lambda: all(machine.items == expected for machine in group.machines.values()))


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize("fault", ["full disk", "failed sync", "failed write"])
def test_a_member_whose_disk_fails_ends_and_the_others_go_on(role: str, fault: str) -> None:
    async def story() -> None:
        async with cluster(3, network=MemoryNetwork()) as group:
            await write_all(group, range(5))
            leader = await group.leader()
            name = leader.status.node_id if role == "leader" else other_than(group, leader)
            disk = disk_of(group, name)
            if fault == "full disk":
                disk.capacity_bytes = disk.used_bytes()
            else:
                disk.faults.fail("datasync" if fault == "failed sync" else "pwrite")
            # Larger than the room that a file may have left. On a leader this may be known to nobody, or to everybody.
            last = b"5" * (128 << 10)
            doomed = asyncio.ensure_future(leader.propose(last, 10.0))
            await until(lambda: name in group.fatal)
            await asyncio.gather(doomed, return_exceptions=True)
            error = group.fatal[name]
            assert isinstance(error, OSError)
            assert error.errno == (errno.ENOSPC if fault == "full disk" else errno.EIO)
            rest = [other for other in group.groups if other != name]
            await group.leader(*rest)
            await write_all(group, range(5, 10))
            known = any(last in group.machines[other].items for other in rest)
            # The disk is well again: what it has is what it said, and it gets the rest.
            disk.capacity_bytes = None
            del group.fatal[name]
            await group.stop(name)
            await group.start(name)
            await all_have(group, range(10), last if known else None)

    asyncio.run(story())


@pytest.mark.parametrize("torn", [b"\0", b"\x20\0\0\0half of a record", bytes(4096)])
def test_a_log_that_ends_in_a_torn_record_goes_on_before_it(torn: bytes) -> None:
    async def story() -> None:
        async with cluster(3, network=MemoryNetwork()) as group:
            await write_all(group, range(5))
            await group.settled()
            name = other_than(group, await group.leader())
            await group.stop(name)
            disk = disk_of(group, name)
            log = disk.open("raft/raft.log", "rw")
            log.pwrite([torn], log.size())
            log.close()
            await group.start(name)
            await write_all(group, range(5, 10))
            await all_have(group, range(10))

    asyncio.run(story())


def test_a_member_with_a_damaged_snapshot_does_not_start_and_rejoins_without_its_folder() -> None:
    async def story() -> None:
        async with cluster(3, network=MemoryNetwork(), settings=SNAPSHOTS) as group:
            await write_all(group, range(40))
            await group.settled()
            name = other_than(group, await group.leader())
            await group.stop(name)
            disk = disk_of(group, name)
            newest = max(path for path in disk.listdir("raft") if path.startswith("snapshot-"))
            disk.damage(f"raft/{newest}", disk.size(f"raft/{newest}") - 1, b"\xff")
            with pytest.raises(CorruptionError):
                await group.start(name)
            group.groups.pop(name)
            group.disks[name] = SimDisk()
            await group.start(name, rejoin=True)
            await write_all(group, range(40, 50))
            await all_have(group, range(50))
            await until(lambda: group.groups[name].status.role == "follower")

    asyncio.run(story())


class JumpingClock(SystemClock):
    """A clock that somebody sets, by hours and back, every time that it is looked at."""

    def __init__(self) -> None:
        self.looked = 0

    def wall_ms(self) -> int:
        self.looked += 1
        hours = self.looked if self.looked % 2 else -self.looked
        return super().wall_ms() + hours * 3_600_000


def test_no_clock_that_can_be_set_is_looked_at() -> None:
    async def story() -> None:
        clock = JumpingClock()
        group = RaftGroup(
            SimDisk(), "raft", "c1", {"c1": ("127.0.0.1", 0)}, ListMachine(), clock=clock, bootstrap=True, settings=FAST
        )
        await group.start()
        await until(lambda: group.status.role == "leader")
        await group.propose(b"x", 10.0)
        await group.stop()
        assert not clock.looked

    asyncio.run(story())


def test_snapshots_of_a_large_state_cost_nobody_the_lead() -> None:
    """20 MB in all: taken by everybody, sent to one that was away."""
    settings = RaftSettings(
        heartbeat_s=0.2, election_min_s=3.0, election_max_s=6.0, snapshot_bytes=8 << 20, keep_entries=2
    )

    async def story() -> None:
        async with cluster(3, network=MemoryNetwork(), settings=settings) as group:
            leader = await group.leader()
            term = leader.status.term
            away = other_than(group, leader)
            await group.stop(away)
            command = bytes([65]) * (COMMAND_BYTES_MAX - 1)
            for start in range(0, 80, 8):
                await asyncio.gather(*(leader.propose(command, 60.0) for _ in range(start, start + 8)))
            await group.start(away)
            await until(lambda: len(group.machines[away].items) == 80)
            assert group.machines[away].restored > 0
            assert (leader.status.role, leader.status.term) == ("leader", term)

    asyncio.run(story())

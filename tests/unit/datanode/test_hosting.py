"""A node and its map: what it makes, opens, fences, lets go, and what it must never make again."""

from __future__ import annotations

import asyncio
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.disk import RealDisk
from omendb_common.errors import CorruptionError, InvalidArgumentError, UnavailableError
from omendb_common.ids import IdColumn
from omendb_common.ring import RING
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.shard_calls import Apply, Lookup, ShardRef, State, Verdict
from omendb_common.topology import CollectionInfo, ReplicaPlace, ReplicaState, Shard, Topology
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosted import Hosted
from omendb_datanode.hosting import Hosting
from omendb_datanode.node_folder import open_identity, read_held
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.ballast import DiskGuard
from omendb_engine.replica import Replica
from tests.unit.datanode.datanode_cases import upsert
from tests.unit.engine.engine_cases import UnsyncedDisk, ids_of, settings_of

CLOCK = SystemClock()
ME = "d1"
U1, U2, U3 = (str(uuid.UUID(int=n)) for n in (1, 2, 3))


@dataclass
class Source:
    """A map that the test changes; ``behind`` is one that only a refresh brings."""

    topology: Topology
    behind: Topology | None = None
    callbacks: list[Callable[[Topology], None]] = field(default_factory=list)

    async def refresh(self, revision: int, deadline: Deadline) -> Topology:
        """The map that was behind, if there is one."""
        if self.behind is not None:
            self.publish(self.behind)
        if self.topology.revision < revision:
            raise UnavailableError("nobody knows a newer map")
        return self.topology

    def on_change(self, callback: Callable[[Topology], None]) -> None:
        """Remember the callback."""
        self.callbacks.append(callback)

    def publish(self, topology: Topology) -> None:
        """A newer map."""
        self.topology = topology
        for callback in self.callbacks:
            callback(topology)


def collection(
    name: str,
    uid: str,
    epoch: int,
    *nodes: str,
    state: ReplicaState = "active",
    floor: int = 0,
    fence: int = 0,
    session: int = 0,
) -> CollectionInfo:
    """A collection of one shard on ``nodes``, of which this node's replica has ``state`` and ``session``."""
    places = tuple(ReplicaPlace(n, state, session) if n == ME else ReplicaPlace(n) for n in nodes)
    shard = Shard(0, 0, RING, epoch, places, floor, fence=fence)
    return CollectionInfo(name, CollectionSchema(uid, (VectorField(4),)), (shard,), len(nodes), 1, 1, None, epoch)


def at(revision: int, *collections: CollectionInfo) -> Topology:
    """A map."""
    return Topology("cluster", revision, {c.name: c for c in collections})


def hosting(path: Path, source: Source, **more: object) -> Hosting:
    """A node's hosting on a folder."""
    return Hosting(UnsyncedDisk(), str(path), ME, source, settings_of(workers=1), CLOCK, retry_s=0.02, **more)  # type: ignore[arg-type]


def ref(uid: str = U1, epoch: int = 1) -> ShardRef:
    """Shard 0 of a collection."""
    return ShardRef(uid, 0, epoch, 1)


def found(hosted: Hosting, uid: str = U1) -> Hosted:
    """The replica, which must be there."""
    place = hosted.find(ref(uid))
    assert place is not None
    return place


async def in_force(hosted: Hosting, revision: int) -> None:
    """Wait until a map is in force."""
    await hosted.refresh(revision, Deadline.after(CLOCK, 20))
    assert hosted.revision >= revision


async def until(holds: Callable[[], object]) -> None:
    """Wait for what happens behind the map."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


def folders(path: Path) -> list[str]:
    """Folders of replicas."""
    return sorted(p.name for p in (path / "replicas").iterdir())


def test_it_follows_the_map(tmp_path: Path) -> None:
    async def story() -> None:
        seen: list[int] = []
        source = Source(at(3, collection("a", U1, 3, ME, "d2"), collection("b", U2, 2, "d2")))
        hosted = hosting(tmp_path, source, opened=seen.append)
        await hosted.start()
        assert hosted.revision == 3 and hosted.find(ref(U2)) is None and folders(tmp_path) == [f"{U1}.0"]
        first = found(hosted)
        assert (first.epoch, first.fence) == (3, 0) and seen == [0]
        first.replica.write_at(upsert([1, 2]), 1 << 40)
        # Renamed, and another one made.
        source.publish(at(5, collection("z", U1, 3, ME, "d2"), collection("c", U3, 5, ME)))
        await in_force(hosted, 5)
        assert found(hosted).replica is first.replica and found(hosted, U3).epoch == 5
        # Dropped: the replica closes and its files go.
        source.publish(at(6, collection("c", U3, 5, ME)))
        await in_force(hosted, 6)
        assert hosted.find(ref()) is None
        await until(lambda: first.replica.closed and folders(tmp_path) == [f"{U3}.0"])
        await until(lambda: list((tmp_path / "trash").iterdir()) == [])
        assert hosted.report() == {f"{U3}.0": "open"}
        await hosted.stop()

    asyncio.run(story())


@contextmanager
def held_up(replica: Replica) -> Iterator[threading.Event]:
    """A replica that cannot be closed before the event is set, as while a step of its index is built."""
    begun, gate = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        gate.wait()

    thread = threading.Thread(target=lambda: replica.exclusively(wait))
    thread.start()
    begun.wait()
    try:
        yield gate
    finally:
        gate.set()
        thread.join()


def test_a_new_collection_does_not_wait_for_the_end_of_an_old_one(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        old = found(hosted).replica
        old.write_at(upsert([1]), 1 << 40)
        with held_up(old) as gate:
            source.publish(at(5, collection("b", U2, 5, ME)))
            await in_force(hosted, 5)
            assert hosted.find(ref()) is None, "nobody reaches it any more"
            found(hosted, U2).replica.write_at(upsert([1]), 1 << 40)
            source.publish(at(6, collection("b", U2, 5, ME), collection("c", U3, 6, ME)))
            await in_force(hosted, 6)
            assert found(hosted, U3).replica.writing and not old.closed
            gate.set()
            await until(lambda: folders(tmp_path) == [f"{U2}.0", f"{U3}.0"])
        assert old.closed
        await hosted.stop()

    asyncio.run(story())


def test_a_replica_that_is_given_back_while_it_closes_is_made_anew(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        old = found(hosted).replica
        old.write_at(upsert([1]), 1 << 40)
        with held_up(old) as gate:
            source.publish(at(5, collection("a", U1, 5, "d2")))
            await in_force(hosted, 5)
            source.publish(at(7, collection("a", U1, 7, ME, "d2", state="joining")))
            await until(lambda: hosted.report() == {f"{U1}.0": "opening"})
            assert hosted.find(ref()) is None
            gate.set()
            await in_force(hosted, 7)
        assert found(hosted).replica is not old and ids_of(found(hosted).replica) == []
        await hosted.stop()

    asyncio.run(story())


def test_a_lost_replica_that_is_dropped_while_it_closes_is_removed(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        with held_up(found(hosted).replica) as gate:
            source.publish(at(5, collection("a", U1, 5, ME, state="lost")))
            await in_force(hosted, 5)
            source.publish(at(6))
            await in_force(hosted, 6)
            assert folders(tmp_path) == [f"{U1}.0"]
            gate.set()
            await until(lambda: folders(tmp_path) == [])
        await hosted.stop()
        assert read_held(UnsyncedDisk(), str(tmp_path)).names == frozenset()

    asyncio.run(story())


def test_what_it_holds_outlives_it(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME)))
        for start in range(3):
            seen: list[int] = []
            hosted = hosting(tmp_path, source, opened=seen.append)
            await hosted.start()
            replica = found(hosted).replica
            assert len(ids_of(replica)) == start and seen == [start << 30]
            replica.write_at(upsert([start]), (start + 1) << 30)
            await hosted.stop()

    asyncio.run(story())


def test_a_newer_epoch_is_pulled_and_other_members_raise_the_fence(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME, "d2")))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        await hosted.refresh(9, Deadline.after(CLOCK, 20))
        assert hosted.revision == 3, "nobody knows a newer map: the caller gets on with what there is"
        # Another state of the same replicas: who counts is the same.
        found(hosted).replica.raise_floors(repaired_through=80)
        source.publish(at(4, collection("a", U1, 4, ME, "d2", floor=77)))
        await in_force(hosted, 4)
        assert (found(hosted).epoch, found(hosted).fence) == (4, 0)
        assert found(hosted).replica.maintenance.gc_floor == 77
        source.behind = at(6, collection("a", U1, 6, ME, "d3", floor=77, fence=6))
        await in_force(hosted, 6)
        assert (found(hosted).epoch, found(hosted).fence) == (6, 6)
        await hosted.stop()
        again = hosting(tmp_path, Source(source.topology))
        await again.start()
        assert (found(again).fence, found(again).replica.maintenance.gc_floor) == (6, 77), "on stable storage"
        await again.stop()

    asyncio.run(story())


def test_an_old_copy_answers_nothing_and_a_new_one_that_joins_does(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME, "d2"), collection("b", U2, 3, ME, "d2")))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        found(hosted, U1).replica.raise_floors(repaired_through=80)
        found(hosted, U2).replica.raise_floors(repaired_through=79)
        await hosted.stop()
        newer = at(
            4,
            collection("a", U1, 4, ME, "d2", floor=80),
            collection("b", U2, 4, ME, "d2", floor=80),
            collection("c", U3, 4, ME, "d2", floor=80, state="joining"),
        )
        again = hosting(tmp_path, Source(newer))
        await again.start()
        assert found(again, U1).replica.maintenance.gc_floor == found(again, U3).replica.maintenance.gc_floor == 80
        with pytest.raises(CorruptionError, match="an old copy"):
            again.find(ref(U2))
        assert [problem for problem in again.problems() if "old copy" in problem]
        await again.stop()

    asyncio.run(story())


def test_a_fence_that_rose_while_the_node_was_away_counts_from_its_start(tmp_path: Path) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await hosted.start()
        await hosted.stop()
        again = hosting(tmp_path, Source(at(9, collection("a", U1, 9, ME, "d3", fence=8))))
        await again.start()
        assert (found(again).epoch, found(again).fence) == (9, 8)
        assert found(again).replica.maintenance.fence_epoch == 8
        await again.stop()

    asyncio.run(story())


def test_another_session_is_another_replica(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME, "d2")))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        first = found(hosted).replica
        first.write_at(upsert([1, 2]), 1 << 40)
        # This node heard nothing of the time in which it had no replica.
        source.publish(at(7, collection("a", U1, 7, ME, "d2", state="joining", fence=7, session=7)))
        await in_force(hosted, 7)
        second = found(hosted).replica
        assert second is not first and ids_of(second) == []
        assert (found(hosted).epoch, found(hosted).fence) == (7, 7)
        await until(lambda: first.closed and folders(tmp_path) == [f"{U1}.0.7"])
        second.write_at(upsert([3]), 2 << 40)
        await hosted.stop()
        again = hosting(tmp_path, Source(at(8, collection("a", U1, 8, ME, "d2", fence=8, session=7))))
        await again.start()
        assert ids_of(found(again).replica) == [3]
        await again.stop()

    asyncio.run(story())


def test_a_map_is_in_force_when_the_writes_let_in_under_the_one_before_have_ended(tmp_path: Path) -> None:
    """Whoever fills a new replica asks under the newer map, and must find everything that the older one let in."""

    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME, "d2")))
        threads, made = EngineThreads(writers=1), list[ShardRules]()
        hosted = hosting(tmp_path, source, drained=lambda replica: made[0].drained(replica))
        rules = ShardRules(hosted, CLOCK, threads)
        made.append(rules)
        await hosted.start()
        soon, gate = Deadline.after(CLOCK, 20), threading.Event()

        def wait() -> None:
            gate.wait(20)

        threads.write(wait)
        late = asyncio.ensure_future(rules.apply(Apply(ref(epoch=3), 1 << 40, upsert([1])), soon))
        await asyncio.sleep(0)
        source.publish(at(5, collection("a", U1, 5, ME, "d3", fence=5)))
        await until(lambda: found(hosted).fence == 5)
        refused = await rules.apply(Apply(ref(epoch=3), 2 << 40, upsert([2])), soon)
        assert refused.verdict is Verdict.STALE_EPOCH
        asked = asyncio.ensure_future(rules.lookup(Lookup(ref(epoch=5), IdColumn.of([1])), soon))
        await asyncio.wait((asked, late), timeout=0.2)
        assert not asked.done() and not late.done() and hosted.revision == 3
        gate.set()
        assert (await late).verdict is Verdict.OK
        assert (await asked).states.tolist() == [State.LIVE]
        await hosted.stop()
        threads.close()

    asyncio.run(story())


@pytest.mark.parametrize("damage", ["gone", "emptied"])
def test_a_replica_that_was_lost_is_never_made_anew(tmp_path: Path, damage: str) -> None:
    """An empty replica would answer "absent" in quorums for points that were acknowledged (P16)."""

    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME, "d2"), collection("b", U2, 3, ME)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        found(hosted).replica.write_at(upsert([1]), 1 << 40)
        await hosted.stop()
        shutil.rmtree(tmp_path / "replicas" / f"{U1}.0")
        if damage == "emptied":
            (tmp_path / "replicas" / f"{U1}.0").mkdir()
        hosted = hosting(tmp_path, source)
        await hosted.start()
        with pytest.raises(CorruptionError):
            hosted.find(ref())
        assert found(hosted, U2).replica.writing, "the others serve"
        await hosted.stop()
        assert not (tmp_path / "replicas" / f"{U1}.0" / "CURRENT").exists()

    asyncio.run(story())


def test_an_operator_is_told_of_replicas_that_do_not_serve_and_of_full_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME, "d2"), collection("b", U2, 3, ME)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        assert hosted.problems() == []
        await hosted.stop()
        shutil.rmtree(tmp_path / "replicas" / f"{U1}.0")
        hosted = hosting(tmp_path, source)
        await hosted.start()
        (lost,) = hosted.problems()
        assert lost.startswith(f"replica {U1}.0: ") and "gone" in lost

        def level(answer: str) -> object:
            def told(_: DiskGuard) -> str:
                if answer == "error":
                    raise OSError(5, "tired")
                return answer

            return told

        for answer, expected in (("full", "full"), ("high", "nearly full"), ("error", "cannot be asked")):
            monkeypatch.setattr(DiskGuard, "level", level(answer))
            volume, again = hosted.problems()
            assert expected in volume and again == lost
        monkeypatch.undo()
        found(hosted, U2).replica.fail(OSError(5, "tired"))
        assert hosted.problems() == [lost, f"replica {U2}.0: failed"]
        await hosted.stop()

    asyncio.run(story())


@pytest.mark.parametrize("state", ["lost", "corrupt"])
def test_a_replica_that_the_map_calls_lost_is_not_served(tmp_path: Path, state: ReplicaState) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME, "d2", state=state)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        assert hosted.find(ref()) is None and folders(tmp_path) == [], "and none is made"
        source.publish(at(4, collection("b", U2, 4, ME)))
        await in_force(hosted, 4)
        found(hosted, U2).replica.write_at(upsert([1]), 1 << 40)
        source.publish(at(5, collection("b", U2, 5, ME, "d2", state=state)))
        await in_force(hosted, 5)
        assert hosted.find(ref(U2)) is None and folders(tmp_path) == [f"{U2}.0"], "closed, and kept"
        await hosted.stop()

    asyncio.run(story())


def test_an_older_map_deletes_nothing(tmp_path: Path) -> None:
    """Coordinators that were restored from an old backup do not know what was made since."""

    async def story() -> None:
        source = Source(at(30, collection("a", U1, 30, ME)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        await hosted.stop()
        hosted = hosting(tmp_path, Source(at(20)))
        await hosted.start()
        assert folders(tmp_path) == [f"{U1}.0"] and hosted.find(ref()) is None
        await hosted.stop()

    asyncio.run(story())


def test_one_that_cannot_be_opened_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME))))
        opens = hosted._open
        failures = [OSError(5, "the disk is tired"), OSError(5, "still")]

        def moody(*given: object) -> object:
            if failures:
                raise failures.pop()
            return opens(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(hosted, "_open", moody)
        await hosted.start()
        with pytest.raises(UnavailableError):
            hosted.find(ref())
        async with asyncio.timeout(20):
            while "open" not in hosted.report().values():
                await asyncio.sleep(0.005)
        found(hosted).replica.write_at(upsert([1]), 1 << 40)
        await hosted.stop()

    asyncio.run(story())


def test_a_map_that_could_not_be_put_in_force_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every call under the newer map would be refused until there is a still newer one."""

    async def story() -> None:
        source = Source(at(1, collection("a", U1, 1, ME, "d2")))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        raised: list[int] = []
        raise_floors = Replica.raise_floors

        def full(self: Replica, *, fence_epoch: int = 0, **floors: int) -> None:
            raised.append(fence_epoch)
            if len(raised) < 3:
                raise UnavailableError("the volume is full", field="disk")
            raise_floors(self, fence_epoch=fence_epoch, **floors)

        monkeypatch.setattr(Replica, "raise_floors", full)
        source.publish(at(2, collection("a", U1, 2, ME, "d3", fence=2)))
        await until(lambda: len(raised) == 1)
        assert found(hosted).epoch == 1
        await until(lambda: hosted.revision == 2)
        assert "under an older map: disk: the volume is full" in hosted.report()[f"{U1}.0"]
        assert hosted.problems()
        await until(lambda: found(hosted).epoch == 2)
        assert (found(hosted).fence, raised) == (2, [2, 2, 2])
        assert hosted.report() == {f"{U1}.0": "open"}
        await hosted.stop()

    asyncio.run(story())


@pytest.mark.parametrize("crash", ["folder made", "entry gone"])
def test_leftovers_of_a_crash_go(tmp_path: Path, crash: str) -> None:
    """A folder that is not in the list was not complete, or was given up."""

    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME))))
        await hosted.start()
        found(hosted).replica.write_at(upsert([1]), 1 << 40)
        await hosted.stop()
        (tmp_path / "REPLICAS").unlink()
        topology = at(4, collection("a", U1, 4, ME)) if crash == "folder made" else at(4)
        hosted = hosting(tmp_path, Source(topology))
        await hosted.start()
        if crash == "folder made":
            assert ids_of(found(hosted).replica) == []
        assert folders(tmp_path) == ([f"{U1}.0"] if crash == "folder made" else [])
        await hosted.stop()
        assert read_held(RealDisk(), str(tmp_path)).names == set(folders(tmp_path))

    asyncio.run(story())


def test_the_identity_of_a_folder(tmp_path: Path) -> None:
    disk, folder = RealDisk(), str(tmp_path)
    first = open_identity(disk, folder, "cluster", ME, "one")
    assert open_identity(disk, folder, "cluster", ME, "two") == first and first.incarnation == "one"
    for cluster, node in (("other", ME), ("cluster", "d2")):
        with pytest.raises(InvalidArgumentError):
            open_identity(disk, folder, cluster, node, "three")
    data = bytearray((tmp_path / "IDENTITY").read_bytes())
    data[20] ^= 1
    (tmp_path / "IDENTITY").write_bytes(data)
    with pytest.raises(CorruptionError):
        open_identity(disk, folder, "cluster", ME, "four")
    (tmp_path / "IDENTITY").unlink()
    (tmp_path / "replicas" / f"{U1}.0").mkdir(parents=True)
    with pytest.raises(CorruptionError):
        open_identity(disk, folder, "cluster", ME, "five")

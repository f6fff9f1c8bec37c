"""The catalog of a folder behind the coordinators' port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from omendb_common.clock import SystemClock
from omendb_common.config import load_settings
from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, DeadlineExceededError, InvalidArgumentError, NotFoundError
from omendb_common.metadata import NewCollection
from omendb_common.ring import RING
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.topology import Topology
from omendb_engine.folder import Folder
from omendb_server.local_metadata import NODE_ID, LocalMetadata

T = TypeVar("T")
CLOCK = SystemClock()
SCHEMA = CollectionSchema("", (VectorField(3),))


def soon() -> Deadline:
    return Deadline.after(CLOCK, 30)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    settings = load_settings(None, None, {}, {"workers.background_threads": 0, "storage.durability": "os"}).settings
    opened = Folder.open(str(tmp_path / "db"), settings=settings)
    yield opened
    opened.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_a_collection_is_one_shard_of_one_replica(folder: Folder) -> None:
    async def story() -> None:
        metadata = LocalMetadata(folder, CLOCK, "u")
        info = await metadata.create_collection(NewCollection("a", SCHEMA), soon())
        assert (info.replication, info.write_quorum, info.read_quorum) == (1, 1, 1)
        (shard,) = info.shards
        assert (shard.low, shard.high, shard.nodes("active")) == (0, RING, (NODE_ID,))
        assert info.schema == folder.replica("a").schema and info.schema.uuid
        assert metadata.topology.members[NODE_ID].role == "datanode"
        assert metadata.topology.by_uuid(info.schema.uuid) == info

    run(story())


def test_every_change_is_told_with_a_greater_revision(folder: Folder) -> None:
    async def story() -> None:
        metadata = LocalMetadata(folder, CLOCK, "u")
        told: list[Topology] = []
        metadata.on_change(told.append)
        await metadata.create_collection(NewCollection("a", SCHEMA), soon())
        assert (await metadata.alter_collection("a", soon(), replication=1, write_quorum=1)).name == "a"
        for wrong in ({"replication": 3}, {"write_quorum": 2}, {"read_quorum": 2}):
            with pytest.raises(InvalidArgumentError):
                await metadata.alter_collection("a", soon(), **wrong)
        await metadata.rename_collection("a", "b", soon())
        await metadata.drop_collection("b", soon())
        assert [sorted(topology.collections) for topology in told] == [["a"], ["b"], []]
        assert [topology.revision for topology in told] == [2, 3, 4]
        assert await metadata.refresh(0, soon()) is told[-1]

    run(story())


def test_it_begins_with_what_the_folder_holds(folder: Folder) -> None:
    folder.create("old", folder.new_schema(SCHEMA))
    assert sorted(LocalMetadata(folder, CLOCK, "u").topology.collections) == ["old"]


def test_what_a_single_node_cannot_do_is_refused(folder: Folder) -> None:
    async def story() -> None:
        metadata = LocalMetadata(folder, CLOCK, "u")
        wanted = {
            "shards": NewCollection("a", SCHEMA, shards=2),
            "replication": NewCollection("a", SCHEMA, replication=3),
            "write_quorum": NewCollection("a", SCHEMA, write_quorum=2),
            "read_quorum": NewCollection("a", SCHEMA, read_quorum=2),
        }
        for field, new in wanted.items():
            with pytest.raises(InvalidArgumentError) as caught:
                await metadata.create_collection(new, soon())
            assert caught.value.field == field
        with pytest.raises(InvalidArgumentError):
            await metadata.create_collection(NewCollection("a", SCHEMA, partition_key="tenant"), soon())
        with pytest.raises(InvalidArgumentError):
            await metadata.set_alias("x", "a", soon())
        with pytest.raises(InvalidArgumentError):
            await metadata.drain(NODE_ID, True, soon())
        assert not metadata.topology.collections
        await metadata.create_collection(NewCollection("a", SCHEMA, 1, 1, 1, 1), soon())

    run(story())


def test_names_that_are_taken_or_missing_are_said_to_be(folder: Folder) -> None:
    async def story() -> None:
        metadata = LocalMetadata(folder, CLOCK, "u")
        await metadata.create_collection(NewCollection("a", SCHEMA), soon())
        await metadata.create_collection(NewCollection("b", SCHEMA), soon())
        with pytest.raises(AlreadyExistsError):
            await metadata.create_collection(NewCollection("a", SCHEMA), soon())
        with pytest.raises(AlreadyExistsError):
            await metadata.rename_collection("a", "b", soon())
        for work in (metadata.drop_collection("x", soon()), metadata.rename_collection("x", "y", soon())):
            with pytest.raises(NotFoundError):
                await work
        with pytest.raises(InvalidArgumentError):
            await metadata.rename_collection("a", "-", soon())
        assert sorted(metadata.topology.collections) == ["a", "b"]

    run(story())


def test_changes_at_the_same_time_all_count(folder: Folder) -> None:
    async def story() -> None:
        metadata = LocalMetadata(folder, CLOCK, "u")
        names = [f"c{number}" for number in range(8)]
        await asyncio.gather(*(metadata.create_collection(NewCollection(n, SCHEMA), soon()) for n in names))
        assert sorted(metadata.topology.collections) == names == folder.names()
        taken = await asyncio.gather(
            *(metadata.create_collection(NewCollection("one", SCHEMA), soon()) for _ in range(5)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, AlreadyExistsError) for result in taken) == 4

    run(story())


def test_a_change_that_was_begun_is_made_though_nobody_waits(folder: Folder) -> None:
    async def story() -> None:
        metadata = LocalMetadata(folder, CLOCK, "u")
        late = Deadline.after(CLOCK, 1e-9)
        with pytest.raises(DeadlineExceededError) as caught:
            await metadata.create_collection(NewCollection("never", SCHEMA), late)
        assert caught.value.outcome == "none"
        asked = asyncio.create_task(metadata.create_collection(NewCollection("a", SCHEMA), soon()))
        await asyncio.sleep(0)
        asked.cancel()
        await metadata.close()
        assert sorted(metadata.topology.collections) == folder.names()
        assert "never" not in folder.names()

    run(story())


def test_news_wait_for_the_change_that_was_begun(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that find the replica gone ask for a newer map; the old one again would leave them with nothing to say."""
    gone, let_go = threading.Event(), threading.Event()
    drop = folder.drop

    def slow_drop(name: str) -> None:
        drop(name)
        gone.set()
        assert let_go.wait(30)

    async def story() -> None:
        metadata = LocalMetadata(folder, CLOCK, "u")
        await metadata.create_collection(NewCollection("a", SCHEMA), soon())
        dropping = asyncio.create_task(metadata.drop_collection("a", soon()))
        await asyncio.to_thread(gone.wait, 30)
        asked = asyncio.create_task(metadata.refresh(0, soon()))
        late = await metadata.refresh(0, Deadline.after(CLOCK, 0.01))
        assert "a" in late.collections and not asked.done()
        let_go.set()
        assert "a" not in (await asked).collections
        await dropping

    monkeypatch.setattr(folder, "drop", slow_drop)
    run(story())


def test_a_lease_is_there_for_the_asking(folder: Folder) -> None:
    async def story() -> None:
        lease = await LocalMetadata(folder, CLOCK, "u").lease_origin("r", 5 << 22, soon())
        assert lease.stamp_above == 5 << 22 < lease.stamp_bound and lease.origin > 0

    run(story())

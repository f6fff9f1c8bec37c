"""A node whose coordinators were restored from a copy: it makes nothing empty, and removes and serves no old one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from omendb_common.errors import CorruptionError, FormatVersionError, NotFoundError, UnavailableError
from omendb_common.topology import CollectionInfo, Topology
from omendb_datanode import keeping
from omendb_datanode.keeping import discard_kept
from omendb_datanode.node_folder import read_held
from tests.unit.datanode.datanode_cases import upsert
from tests.unit.datanode.test_hosting import (
    ME,
    U1,
    U2,
    U3,
    Source,
    at,
    collection,
    folders,
    found,
    hosting,
    in_force,
    ref,
    until,
)
from tests.unit.engine.engine_cases import UnsyncedDisk, ids_of

R = 1 << 51


def copied(info: CollectionInfo, revision: int = R) -> CollectionInfo:
    """A collection as a restored catalog has it."""
    shards = tuple(replace(s, epoch=revision, fence=revision, copied_fence=s.fence) for s in info.shards)
    return replace(info, shards=shards, revision=revision, restored=revision)


def restored(revision: int, *collections: CollectionInfo, since: int = R) -> Topology:
    """A map of a restored catalog."""
    return replace(at(revision, *collections), restored=since)


def test_what_the_copy_does_not_name_is_kept_and_told_of(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(9, collection("a", U1, 3, ME, "d2"), collection("later", U2, 8, ME, "d2")))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        later = found(hosted, U2).replica
        later.write_at(upsert([1, 2]), 1 << 40)
        source.publish(restored(R, copied(collection("a", U1, 3, ME, "d2"))))
        await in_force(hosted, R)
        assert found(hosted, U1).fence == R and hosted.find(ref(U2)) is None
        await until(lambda: later.closed)
        assert folders(tmp_path) == sorted([f"{U1}.0", f"{U2}.0"])
        assert [p for p in hosted.problems() if p.startswith(f"replica {U2}.0: kept")]
        # Whatever else comes and goes, now and after another start.
        source.publish(restored(R + 1, copied(collection("a", U1, 3, ME, "d2")), collection("c", U3, R + 1, ME)))
        await in_force(hosted, R + 1)
        source.publish(restored(R + 2, copied(collection("a", U1, 3, ME, "d2"))))
        await in_force(hosted, R + 2)
        await until(lambda: folders(tmp_path) == sorted([f"{U1}.0", f"{U2}.0"]))
        await hosted.stop()
        again = hosting(tmp_path, Source(restored(R + 3)))
        await again.start()
        await until(lambda: folders(tmp_path) == [f"{U2}.0"])
        assert read_held(UnsyncedDisk(), str(tmp_path)).kept == {f"{U2}.0"}
        await again.stop()
        # A copy that knows it, restored later: it is served as it is.
        newer = restored(2 * R, copied(collection("later", U2, 8, ME, "d2"), 2 * R), since=2 * R)
        last = hosting(tmp_path, Source(newer))
        await last.start()
        assert ids_of(found(last, U2).replica) == [1, 2] and not last.problems()
        await last.stop()

    asyncio.run(story())


def test_what_was_let_go_after_the_copy_is_not_made_anew_and_empty(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(9, collection("a", U1, 3, ME, "d2")))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        source.publish(
            restored(
                R,
                copied(collection("a", U1, 3, ME, "d2")),
                copied(collection("dropped", U2, 4, ME, "d2")),
                copied(collection("moved", U3, 7, ME, "d2", fence=6, session=6)),
            )
        )
        await in_force(hosted, R)
        for uid in (U2, U3):
            with pytest.raises(CorruptionError, match="let it go after the copy"):
                hosted.find(ref(uid))
        assert folders(tmp_path) == [f"{U1}.0"]
        # What a move makes since is a replica like any other.
        moved = copied(collection("moved", U3, 7, "d2", "d3", fence=6))
        joins = replace(collection("moved", U3, R + 5, ME, "d2", state="joining", session=R + 5), restored=R)
        source.publish(restored(R + 4, copied(collection("a", U1, 3, ME, "d2")), moved))
        await in_force(hosted, R + 4)
        source.publish(restored(R + 5, copied(collection("a", U1, 3, ME, "d2")), joins))
        await in_force(hosted, R + 5)
        assert ids_of(found(hosted, U3).replica) == []
        await hosted.stop()

    asyncio.run(story())


@pytest.mark.parametrize("running", [True, False])
def test_a_shard_whose_members_changed_after_the_copy_waits_for_people(tmp_path: Path, running: bool) -> None:
    async def story() -> None:
        source = Source(at(9, collection("a", U1, 9, ME, "d4", fence=9), collection("b", U2, 5, ME, "d2", fence=5)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        found(hosted, U1).replica.write_at(upsert([1]), 1 << 40)
        if not running:
            await hosted.stop()
        older = copied(collection("a", U1, 3, ME, "d2")), copied(collection("b", U2, 5, ME, "d2", fence=5))
        source.publish(restored(R, *older))
        if not running:
            hosted = hosting(tmp_path, source)
            await hosted.start()
        await in_force(hosted, R)
        assert found(hosted, U2).fence == R, "nothing had changed there"
        assert [p for p in hosted.problems() if "after the copy of the catalog was taken" in p]
        if running:
            # It goes on for those who still count the members that it knows, and for nobody else.
            assert (found(hosted, U1).epoch, found(hosted, U1).fence) == (9, 9)
        else:
            with pytest.raises(UnavailableError, match="members of the shard changed at 9"):
                hosted.find(ref(U1))
        accepted = replace(older[0], shards=(replace(older[0].shards[0], epoch=R + 1, fence=R + 1, copied_fence=R),))
        source.publish(restored(R + 1, accepted, older[1]))
        await in_force(hosted, R + 1)
        await until(lambda: not hosted.problems())
        assert found(hosted, U1).fence == R + 1 and ids_of(found(hosted, U1).replica) == [1]
        await hosted.stop()

    asyncio.run(story())


def test_the_level_before_does_not_start_on_a_folder_with_something_kept(tmp_path: Path) -> None:
    async def story() -> None:
        source = Source(at(9, collection("a", U1, 3, ME), collection("later", U2, 8, ME)))
        hosted = hosting(tmp_path, source, level=1)
        await hosted.start()
        await hosted.stop()
        again = hosting(tmp_path, Source(restored(R, copied(collection("a", U1, 3, ME)))))
        await again.start()
        await again.stop()
        older = hosting(tmp_path, source, level=1)
        with pytest.raises(FormatVersionError):
            await older.start()
        assert f"{U2}.0" in folders(tmp_path)

    asyncio.run(story())


def test_what_is_kept_goes_by_name_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def story() -> None:
        source = Source(at(9, collection("a", U1, 3, ME), collection("b", U2, 8, ME), collection("c", U3, 8, ME)))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        source.publish(restored(R, copied(collection("a", U1, 3, ME))))
        await in_force(hosted, R)
        await hosted.stop()

    asyncio.run(story())
    with pytest.raises(NotFoundError, match="is not kept"):
        discard_kept(UnsyncedDisk(), str(tmp_path), [f"{U2}.0", f"{U1}.0"])
    keeping.run(["--dir", str(tmp_path)])
    assert capsys.readouterr().out.split() == [f"{U2}.0", f"{U3}.0"]
    keeping.run(["--dir", str(tmp_path), "--discard", f"{U2}.0"])
    assert capsys.readouterr().out.split() == [f"{U3}.0"]
    assert folders(tmp_path) == sorted([f"{U1}.0", f"{U3}.0"])
    assert read_held(UnsyncedDisk(), str(tmp_path)).names == {f"{U1}.0", f"{U3}.0"}

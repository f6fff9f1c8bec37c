"""Damage at rest: found by reading again or by a call, and told until another replica is made in the place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omendb_common.deadline import Deadline
from omendb_common.errors import CorruptionError, InvalidArgumentError
from omendb_common.shard_calls import Maintain, Maintained, Sums, Verdict
from omendb_common.topology import Shard
from omendb_datanode.config import RepairSettings
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosting import Hosting
from omendb_datanode.node_folder import ReplicaKey
from omendb_datanode.replicate.scrubber import Scrubber
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.replica import Replica
from omendb_engine.scrub import scrub
from tests.unit.datanode.datanode_cases import upsert
from tests.unit.datanode.exchange_cases import QUICK
from tests.unit.datanode.test_hosting import CLOCK, ME, U1, U2, Source, at, collection, found, hosting, in_force, ref


class Told:
    """What the coordinators were told, and what they say."""

    def __init__(self) -> None:
        self.lost: list[tuple[ReplicaKey, int]] = []
        self.no: Exception | None = None

    async def lose(self, key: ReplicaKey, shard: Shard) -> None:
        """Take note."""
        self.lost.append((key, shard.epoch))
        if self.no is not None:
            raise self.no


def scrubber(hosted: Hosting, told: Told, settings: RepairSettings = QUICK) -> Scrubber:
    async def read(replica: Replica) -> Sequence[CorruptionError]:
        return scrub(replica)

    return Scrubber(
        *(CLOCK, settings),
        opened=hosted.opened,
        ruined=hosted.ruined,
        scrub=read,
        condemn=hosted.condemn,
        lose=told.lose,
    )


def sealed(hosted: Hosting, uid: str) -> Replica:
    replica = found(hosted, uid).replica
    replica.write_at(upsert(range(40)), 1 << 40)
    replica.flush()
    return replica


def flip(replica: Replica, name: str) -> None:
    (path, *_) = sorted(Path(replica.path).glob(f"segments/*/{name}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["keys.arrow", "vectors*.arrow", "stats/bloom.bin"])
def test_what_rots_is_found_and_the_replica_answers_nothing(tmp_path: Path, name: str) -> None:
    async def story() -> None:
        source = Source(at(3, collection("a", U1, 3, ME, "d2"), collection("b", U2, 3, ME, "d2")))
        hosted = hosting(tmp_path, source)
        await hosted.start()
        told = Told()
        keeper = scrubber(hosted, told, replace(QUICK, scrub_s=0.1))
        replica, sound = sealed(hosted, U1), sealed(hosted, U2)
        flip(replica, name)
        keeper._due_s = dict.fromkeys((replica, sound), 0.0)
        await keeper.look()
        assert (keeper.scrubs, keeper.damaged, told.lost) == (2, 1, [(ReplicaKey(U1, 0), 3)])
        with pytest.raises(CorruptionError):
            hosted.find(ref(U1))
        assert replica.closed and found(hosted, U2).replica is sound
        # It is told under the map of then, and not at every look.
        source.publish(at(4, collection("a", U1, 4, ME, "d2", "d3"), collection("b", U2, 4, ME, "d2")))
        await in_force(hosted, 4)
        await keeper.look()
        assert len(told.lost) == 1
        keeper._told_s = {}
        told.no = InvalidArgumentError("too few others")
        await keeper.look()
        assert told.lost[1:] == [(ReplicaKey(U1, 0), 4)]
        await hosted.stop()

    asyncio.run(story())


def test_a_call_that_meets_damage_has_the_whole_replica_read(tmp_path: Path) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await hosted.start()
        sealed(hosted, U1)
        await hosted.stop()
        (folder,) = (tmp_path / "replicas").iterdir()
        (path,) = folder.glob("segments/*/vectors*.arrow")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

        again = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await again.start()
        told = Told()
        keeper = scrubber(again, told, replace(QUICK, scrub_s=1e6))
        await keeper.look()
        assert keeper.scrubs == 0 and not told.lost, "vectors are read when they are needed"
        threads = EngineThreads()
        rules = ShardRules(again, CLOCK, threads, damaged=keeper.suspect)
        call = Sums(ref(U1, 3), 1 << 60, 0, 0, np.zeros(1, np.int64), fresh=True)
        answer = await rules.sums(call, Deadline.after(CLOCK, 20))
        assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, CorruptionError)
        await keeper.look()
        assert told.lost == [(ReplicaKey(U1, 0), 3)]
        threads.close()
        await again.stop()

    asyncio.run(story())


def test_whoever_asks_is_told_which_file_is_damaged_and_where(tmp_path: Path) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"), collection("b", U2, 3, ME, "d2"))))
        await hosted.start()
        told = Told()
        keeper = scrubber(hosted, told)
        replica, _ = sealed(hosted, U1), sealed(hosted, U2)
        rules = ShardRules(hosted, CLOCK, EngineThreads(), scrub=keeper.on_request)

        async def asked(uid: str) -> Maintained:
            return await rules.maintain(Maintain(ref(uid, 3), "scrub"), Deadline.after(CLOCK, 20))

        assert (await asked(U1)).value == {"damage": []}
        flip(replica, "vectors*.arrow")
        ((found,),) = ((await asked(U1)).value).values()
        assert found["path"].startswith(replica.path) and found["path"].endswith(".arrow")
        assert found["offset"] == 0 and "checksum" in found["problem"]
        assert (await asked(U1)).verdict is not Verdict.OK, "it answers nothing more"
        assert (await asked(U2)).value == {"damage": []}
        await keeper.look()
        assert told.lost == [(ReplicaKey(U1, 0), 3)]
        await hosted.stop()

    asyncio.run(story())


def test_files_of_segments_that_were_merged_away_are_no_damage(tmp_path: Path) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await hosted.start()
        replica = sealed(hosted, U1)
        held = replica.snapshot()
        for stamp in range(1, 6):
            replica.write_at(upsert(range(40), seed=stamp), (1 << 40) + stamp)
            replica.flush()
        replica.compact()
        snapshots = iter([held])
        now = replica.snapshot
        replica.snapshot = lambda: next(snapshots, None) or now()  # type: ignore[method-assign]
        assert scrub(replica) == []
        await hosted.stop()

    asyncio.run(story())

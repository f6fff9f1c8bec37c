"""Damage at rest: found by reading again or by a call, and told until another replica is made in the place."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omendb_common.checksum import BLOCK_BYTES, block_sums, crc32c
from omendb_common.deadline import Deadline
from omendb_common.disk import RealDisk
from omendb_common.errors import CorruptionError, DatabaseClosedError, DeadlineExceededError, InvalidArgumentError
from omendb_common.shard_calls import Looked, Lookup, Maintain, Maintained, Summed, Sums, Verdict
from omendb_common.topology import Shard
from omendb_datanode.config import RepairSettings
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosting import Hosting
from omendb_datanode.node_folder import ReplicaKey
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.scrubber import Scrubber
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.replica import Replica
from omendb_engine.scrub import Scrub
from omendb_engine.segment import layout, reader
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
    async def step(scrub: Scrub, deadline: Deadline) -> int | None:
        deadline.check("reading")
        return scrub.step()

    return Scrubber(
        *(CLOCK, settings),
        opened=hosted.opened,
        ruined=hosted.ruined,
        step=step,
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
        await keeper.turn()
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


@pytest.mark.parametrize("file", ["vectors", "digests"])
def test_a_call_that_meets_damage_has_the_whole_replica_read(tmp_path: Path, file: str) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await hosted.start()
        sealed(hosted, U1)
        await hosted.stop()
        (folder,) = (tmp_path / "replicas").iterdir()
        (path,) = folder.glob(f"segments/*/{file}.arrow")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

        again = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await again.start()
        told = Told()
        keeper = scrubber(again, told, replace(QUICK, scrub_s=1e6))
        await keeper.turn()
        await keeper.look()
        assert keeper.scrubs == 0 and not told.lost, "they are read when they are needed"
        threads = EngineThreads()
        rules = ShardRules(again, CLOCK, threads, damaged=keeper.suspect)
        deadline = Deadline.after(CLOCK, 20)
        answer: Summed | Looked
        if file == "digests":
            answer = await rules.sums(Sums(ref(U1, 3), 1 << 60, 0, 0, np.zeros(1, np.int64), fresh=True), deadline)
        else:
            ids = again.opened()[0].hosted.replica.snapshot().parts[0].all_ids()
            answer = await rules.lookup(Lookup(ref(U1, 3), ids, records=True), deadline)
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

        size = sum(path.stat().st_size for path in Path(replica.path).glob("segments/*/*") if path.suffix != ".json")
        told_of = (await asked(U1)).value
        assert told_of["damage"] == [] and 0 < told_of["bytes"] <= size
        flip(replica, "vectors*.arrow")
        (found,) = (await asked(U1)).value["damage"]
        assert found["path"].startswith(replica.path) and found["path"].endswith(".arrow")
        assert found["offset"] == 0 and "checksum" in found["problem"]
        assert (await asked(U1)).verdict is not Verdict.OK, "it answers nothing more"
        assert (await asked(U2)).value["damage"] == []
        await keeper.look()
        assert told.lost == [(ReplicaKey(U1, 0), 3)]
        await hosted.stop()

    asyncio.run(story())


def test_whoever_asks_may_say_how_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await hosted.start()
        sealed(hosted, U1)
        keeper = scrubber(hosted, Told())
        rates: list[float] = []

        async def spend(self: Pace, size: int) -> None:
            rates.append(self._bytes_per_s)

        monkeypatch.setattr(Pace, "spend", spend)
        rules = ShardRules(hosted, CLOCK, EngineThreads(), scrub=keeper.on_request)
        for asked, rate in ((0, QUICK.scrub_bytes_per_s), (4096, 4096)):
            rates.clear()
            assert keeper.oldest_s() >= 0.0
            call = Maintain(ref(U1, 3), "scrub", bytes_per_s=asked)
            answer = await rules.maintain(call, Deadline.after(CLOCK, 20))
            assert answer.verdict is Verdict.OK and set(rates) == {rate}, answer
        await hosted.stop()
        assert keeper.oldest_s() == 0.0, "nothing is open"

    asyncio.run(story())


@pytest.mark.parametrize("seen", [1, 2], ids=["before", "while they were read"])
def test_files_of_segments_that_were_merged_away_are_no_damage(tmp_path: Path, seen: int) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await hosted.start()
        replica = sealed(hosted, U1)
        held = replica.snapshot()
        for stamp in range(1, 6):
            replica.write_at(upsert(range(40), seed=stamp), (1 << 40) + stamp)
            replica.flush()
        replica.compact()
        snapshots = iter([held] * seen)
        now = replica.snapshot
        replica.snapshot = lambda: next(snapshots, None) or now()  # type: ignore[method-assign]
        scrub = Scrub(replica)
        while scrub.step() is not None:
            pass
        assert scrub.found == []
        await hosted.stop()

    asyncio.run(story())


@pytest.mark.parametrize("at", [0, 3 * BLOCK_BYTES + 5, 5 * BLOCK_BYTES])
def test_a_file_is_read_in_pieces_and_damage_is_named_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(reader, "REREAD_BYTES", 2 * BLOCK_BYTES)
    data = bytes(range(256)) * (5 * BLOCK_BYTES // 256) + b"the end"
    (tmp_path / "f").write_bytes(data)
    (tmp_path / "nothing").write_bytes(b"")
    entries = {n: layout.FileEntry(len(d), crc32c(d), block_sums(d)) for n, d in (("f", data), ("nothing", b""))}
    files = reader.Files(RealDisk(), str(tmp_path), entries)
    pieces = [2 * BLOCK_BYTES, 2 * BLOCK_BYTES, BLOCK_BYTES + len(b"the end")]
    assert (list(files.reread("f")), list(files.reread("nothing"))) == (pieces, [0])
    (tmp_path / "f").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(CorruptionError) as told:
        list(files.reread("f"))
    assert told.value.offset == at // BLOCK_BYTES * BLOCK_BYTES
    # Cut short between two pieces: it is damage, not the end of the process.
    (tmp_path / "f").write_bytes(data)
    pending = files.reread("f")
    next(pending)
    (tmp_path / "f").write_bytes(data[: 2 * BLOCK_BYTES])
    with pytest.raises(CorruptionError):
        next(pending)


def test_the_daily_reading_keeps_to_its_rate_and_a_suspect_is_read_at_once_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"), collection("b", U2, 3, ME, "d2"))))
        await hosted.start()
        told = Told()
        keeper = scrubber(hosted, told)
        slow, ruined = sealed(hosted, U1), sealed(hosted, U2)
        spent: list[int] = []
        waits, free = asyncio.Event(), asyncio.Event()

        async def spend(size: int) -> None:
            spent.append(size)
            waits.set()
            await free.wait()

        monkeypatch.setattr(keeper._pace, "spend", spend)
        keeper._due_s = {slow: 0.0, ruined: 1e18}
        turn = asyncio.create_task(keeper.turn())
        await waits.wait()
        flip(ruined, "keys.arrow")
        keeper.suspect(ref(U2, 3))
        await keeper.look()
        assert len(spent) == 1 and told.lost == [(ReplicaKey(U2, 0), 3)], "the other one still waits for its turn"
        before = keeper.bytes_read - sum(spent)
        free.set()
        await turn
        assert len(spent) > 2 and sum(spent) == keeper.bytes_read - before and keeper.scrubs == 2
        await hosted.stop()

    asyncio.run(story())


def test_requests_are_read_one_after_the_other_and_what_was_found_is_not_lost_with_who_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"), collection("b", U2, 3, ME, "d2"))))
        await hosted.start()
        told = Told()
        keeper = scrubber(hosted, told)
        replica, _ = sealed(hosted, U1), sealed(hosted, U2)
        scrubs: list[Scrub] = []
        waits, never = asyncio.Event(), asyncio.Event()

        async def step(scrub: Scrub, deadline: Deadline) -> int | None:
            scrubs.append(scrub)
            if scrub.found:
                waits.set()
                await never.wait()
            return scrub.step()

        keeper._step = step
        flip(replica, "keys.arrow")
        first = asyncio.create_task(keeper.on_request(ref(U1, 3), Deadline.after(CLOCK, 60)))
        await waits.wait()
        with pytest.raises(DeadlineExceededError):
            await keeper.on_request(ref(U2, 3), Deadline.after(CLOCK, 0))
        assert len(set(map(id, scrubs))) == 1, "the other one waits"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        never.set()
        await keeper.look()
        assert told.lost == [(ReplicaKey(U1, 0), 3)]
        assert (await keeper.on_request(ref(U2, 3), Deadline.after(CLOCK, 60)))["damage"] == []
        await hosted.stop()

    asyncio.run(story())


def test_a_replica_that_is_closed_while_it_is_read_is_not_damaged(tmp_path: Path) -> None:
    async def story() -> None:
        hosted = hosting(tmp_path, Source(at(3, collection("a", U1, 3, ME, "d2"))))
        await hosted.start()
        replica = sealed(hosted, U1)
        scrub = Scrub(replica)
        assert scrub.step()
        replica.close()
        for path in Path(replica.path).glob("segments/*/*.arrow"):
            path.unlink()
        with pytest.raises(DatabaseClosedError):
            while scrub.step() is not None:
                pass
        assert scrub.found == []

    asyncio.run(story())

"""P2, branch by branch: which verdict a router gets, in which order, and that nothing was applied unless it is OK."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omendb_common.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    DiskFullError,
    InvalidArgumentError,
    OmenDBError,
    ReplicaFailedError,
    ResourceExhaustedError,
    UnavailableError,
    VersionConflictError,
)
from omendb_common.filters import FilterOp
from omendb_common.ids import IdColumn
from omendb_common.records import Op, WriteBatch, encode_batch
from omendb_common.shard_calls import (
    MAX_AHEAD_MS,
    Applied,
    Apply,
    Lookup,
    Maintain,
    Repair,
    Score,
    Scroll,
    Search,
    Select,
    State,
    Verdict,
)
from omendb_datanode import shard_rules
from omendb_datanode.hosted import Hosted
from omendb_datanode.write_queue import WriteLimits
from tests.unit.datanode.datanode_cases import EPOCH, Node, delete, node_in, open_one, update, upsert, vectors
from tests.unit.engine.engine_cases import ids_of, settings_of, state_of, with_memory


def rows(answer: Applied) -> tuple[list[int], list[int], list[int]]:
    """Superseded rows, by what, and missing ones."""
    assert answer.verdict is Verdict.OK, answer.error
    return answer.superseded.tolist(), answer.newer.tolist(), answer.missing.tolist()


# -- the order of the rules


def test_a_replica_that_is_not_here(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        stranger = node.shard._replace(shard_id=9)
        answer = await node.rules.apply(Apply(stranger, node.clock.stamp(), upsert([1])), node.deadline())
        assert answer.verdict is Verdict.NOT_HERE and node.map.asked == [], "nobody is asked when no newer map is named"
        node.map.coming = {(stranger.collection_uuid, 9): Hosted(node.replica, EPOCH + 4)}
        call = Apply(stranger._replace(epoch=EPOCH + 4), node.clock.stamp(), upsert([1]))
        assert (await node.rules.apply(call, node.deadline())).verdict is Verdict.OK
        assert node.map.asked == [EPOCH + 4]

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert ids_of(node.replica) == [1]


@pytest.mark.parametrize(
    ("fence", "epoch", "comes", "verdict", "asked"),
    [
        (EPOCH, EPOCH - 1, EPOCH, Verdict.STALE_EPOCH, False),
        (EPOCH - 1, EPOCH - 1, EPOCH, Verdict.OK, False),
        (0, EPOCH, EPOCH, Verdict.OK, False),
        (0, EPOCH + 2, EPOCH + 2, Verdict.OK, True),
        (0, EPOCH + 2, EPOCH + 1, Verdict.STALE_EPOCH, True),
    ],
)
def test_epochs(tmp_path: Path, fence: int, epoch: int, comes: int, verdict: Verdict, asked: bool) -> None:
    async def story(node: Node) -> None:
        key = (node.shard.collection_uuid, 0)
        node.map.hosted[key] = Hosted(node.replica, EPOCH, fence)
        node.map.coming = {key: Hosted(node.replica, comes, fence)}
        call = Apply(node.shard._replace(epoch=epoch), node.clock.stamp(), upsert([1]))
        answer = await node.rules.apply(call, node.deadline())
        assert answer.verdict is verdict and bool(node.map.asked) is asked
        found = await node.rules.lookup(Lookup(call.shard, IdColumn.of([1])), node.deadline())
        assert found.verdict is verdict

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert (ids_of(node.replica) == [1]) is (verdict is Verdict.OK)


def test_a_stamp_ahead_of_the_clock(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        edge = node.clock.stamp(MAX_AHEAD_MS)
        assert (await node.apply(upsert([1]), edge + (1 << 22))).verdict is Verdict.CLOCK_AHEAD
        answer = await node.apply(upsert([1]), edge)
        assert answer.verdict is Verdict.OK and answer.hlc >= edge, "its clock tells the router of what it saw"
        late = WriteBatch(Op.DELETE, IdColumn.of([1]), stamps=np.array([edge + (1 << 22)], np.uint64))
        assert (await node.rules.repair(Repair(node.shard, (late,)), node.deadline())).verdict is Verdict.CLOCK_AHEAD

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert ids_of(node.replica) == [1]


# -- rows


def test_rows_one_by_one(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        t = [node.clock.stamp(counter=c) for c in range(10)]
        first = await node.apply(upsert([1, 2, 3], [{"a": 1}] * 3), t[5])
        assert rows(first) == ([], [], []) and first.existed == 0 and first.durability == "os"
        # 1 is older, 2 is newer elsewhere, 4 is unknown.
        assert rows(await node.apply(upsert([2]), t[7])) == ([], [], [])
        mixed = await node.apply(upsert([1, 2, 4]), t[6])
        assert rows(mixed) == ([1], [t[7]], []) and mixed.existed == 2 and not mixed.partial
        lsn = node.replica.snapshot().lsn
        again = await node.apply(upsert([1, 4], seed=9), t[6])
        assert rows(again) == ([], [], []) and node.replica.snapshot().lsn == lsn, "a repeated call is not logged again"
        assert rows(await node.apply(delete([3, 1]), t[8])) == ([], [], [])
        assert rows(await node.apply(upsert([3]), t[5])) == ([0], [t[8]], []), "a deletion holds older upserts off"
        assert rows(await node.apply(delete([99]), t[2])) == ([], [], [])
        assert rows(await node.apply(upsert([99]), t[1])) == ([0], [t[2]], []), "also of an id that never was"

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert sorted(ids_of(node.replica)) == [2, 4]


def test_updates_need_their_points(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        t = [node.clock.stamp(counter=c) for c in range(10)]
        await node.apply(upsert([1, 2], [{"a": 1, "b": 1}] * 2), t[3])
        answer = await node.apply(update([7, 1, 8], [{"a": 2}] * 3), t[4])
        assert rows(answer) == ([], [], [0, 2]), "the others are written"
        # An update is met by the fields that it names.
        assert rows(await node.apply(update([1], [{"b": 9}]), t[5])) == ([], [], [])
        late = await node.apply(update([1], [{"a": 3, "b": 3}]), t[4] + 1)
        assert rows(late) == ([0], [t[5]], []) and late.partial, "told to stamp again, though its field a counts"
        await node.apply(delete([2]), t[6])
        assert rows(await node.apply(update([2], [{"a": 5}]), t[5])) == ([0], [t[6]], [])
        assert rows(await node.apply(update([2], [{"a": 5}]), t[7])) == ([], [], [0])

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        picked, _ = node.replica.get(IdColumn.of([1]))
        assert picked.payload() == [{"a": 3, "b": 9}]


def test_an_upsert_under_a_newer_update_is_told_of_it(tmp_path: Path) -> None:
    """A completed update must not be hidden from the router of a write that began after it with a slow clock."""

    async def story(node: Node) -> None:
        t = [node.clock.stamp(counter=c) for c in range(10)]
        await node.apply(upsert([1], [{"a": 1, "b": 1}]), t[3])
        await node.apply(update([1], [{"a": 2}]), t[6])
        answer = await node.apply(upsert([1], [{"a": 9, "b": 9}]), t[5])
        assert rows(answer) == ([0], [t[6]], []) and answer.partial

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        picked, _ = node.replica.get(IdColumn.of([1]))
        assert picked.payload() == [{"a": 2, "b": 9}]


def test_the_floor_below_which_nobody_is_believed(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        t = [node.clock.stamp(counter=c) for c in range(10)]
        await node.apply(upsert([1]), t[2])
        node.replica.raise_floors(gc_floor=t[5])
        for at, batch in enumerate((upsert([1, 50]), update([1, 50], [{"a": 1}] * 2)), 3):
            assert rows(await node.apply(batch, t[at])) == ([1], [t[5]], []), "what is known here is judged by itself"
        # A deletion would be forgotten at once, and others that have not heard of it would bring the point back.
        assert rows(await node.apply(delete([1, 50]), t[5])) == ([0, 1], [t[5]] * 2, [])
        assert ids_of(node.replica) == [1]
        gone = WriteBatch(Op.DELETE, IdColumn.of([70]), stamps=np.array([t[4]], np.uint64))
        assert rows(await node.rules.repair(Repair(node.shard, (gone,)), node.deadline())) == ([], [], []), "no news"
        await node.apply(delete([1]), t[6])
        assert rows(await node.apply(upsert([50]), t[6])) == ([], [], [])
        record = WriteBatch(Op.UPSERT, IdColumn.of([60]), {"": vectors(1)}, stamps=np.array([t[4]], np.uint64))
        answer = await node.rules.repair(Repair(node.shard, (record,)), node.deadline())
        assert rows(answer) == ([0], [t[5]], [])

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert ids_of(node.replica) == [50]


def test_create_only(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        t = [node.clock.stamp(counter=c) for c in range(4)]
        assert rows(await node.apply(upsert([1, 2]), t[1], create_only=True)) == ([], [], [])
        assert rows(await node.apply(upsert([1, 2]), t[1], create_only=True)) == ([], [], []), "sent again"
        refused = await node.apply(upsert([2, 3]), t[2], create_only=True)
        assert refused.verdict is Verdict.REFUSED and isinstance(refused.error, AlreadyExistsError)

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert sorted(ids_of(node.replica)) == [1, 2]


def test_versions_are_demanded_in_one_step_with_the_write(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        t = [node.clock.stamp(counter=c) for c in range(9)]

        async def apply(batch: WriteBatch, stamp: int, *versions: int) -> Applied:
            return await node.apply(batch, stamp, versions=np.array(versions, np.uint64))

        assert rows(await apply(upsert([1, 2]), t[2], 0, 0)) == ([], [], [])
        assert rows(await apply(upsert([1, 2]), t[2], 0, 0)) == ([], [], []), "sent again"
        assert rows(await apply(update([1], [{"a": 1}]), t[3], t[2])) == ([], [], [])
        refused = await apply(upsert([1, 2]), t[5], t[2], t[2])
        assert refused.verdict is Verdict.REFUSED and isinstance(refused.error, VersionConflictError)
        assert refused.error.found == {1: t[3]}
        # A slow clock: both rows must be stamped again together, or one could be written without the other.
        assert rows(await apply(upsert([1, 2]), t[2] + 1, t[3], t[2])) == ([0, 1], [t[3], t[3]], [])
        assert rows(await apply(delete([1, 2]), t[6], t[3], t[2])) == ([], [], [])
        assert rows(await apply(delete([1, 2]), t[6], t[3], t[2])) == ([], [], []), "sent again"
        assert rows(await apply(upsert([1]), t[5], 0)) == ([0], [t[6]], []), "below the deletion"
        gone = await apply(upsert([1]), t[7], t[3])
        assert isinstance(gone.error, VersionConflictError) and gone.error.found == {1: 0}
        for wrong in (np.zeros(2, np.uint64), np.zeros(0, np.uint64)):
            bad = await node.apply(upsert([9]), t[8], versions=wrong)
            assert isinstance(bad.error, InvalidArgumentError)

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert ids_of(node.replica) == []


def test_a_body_is_logged_as_it_came(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        batch = upsert([1, 2], [{"a": 1}, {}])
        parts: list[Any] = list(encode_batch(batch))
        body = [b"".join(bytes(memoryview(p).cast("B")) for p in parts)]
        await node.apply(batch, node.clock.stamp(counter=5), body=[memoryview(body[0])])
        # Of which a row is dropped, it cannot be.
        await node.apply(upsert([3, 1], [{}, {"a": 2}]), node.clock.stamp(counter=4), body=body)

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        before = state_of(node.replica)
        schema = node.replica.schema
        node.replica.close()
        again = open_one(tmp_path / "replica", schema=schema)
        assert state_of(again) == before and sorted(ids_of(again)) == [1, 2, 3]
        again.close()


# -- what cannot be done


def _text(*values: bytes) -> IdColumn:
    """A string column of these bytes, as a wire might bring it."""
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
    return IdColumn(
        None, pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(b"".join(values)))
    )


HOSTILE: list[tuple[str, WriteBatch]] = [
    ("no ids", WriteBatch(Op.DELETE, IdColumn.empty())),
    ("an empty id", WriteBatch(Op.DELETE, _text(b"a", b""))),
    ("a long id", WriteBatch(Op.DELETE, _text(b"x" * 513))),
    ("bytes that are no text", WriteBatch(Op.DELETE, _text(b"\xff\xfe"))),
    ("a null id", WriteBatch(Op.DELETE, IdColumn(None, pa.array(["a", None], pa.string())))),
    ("an id twice", WriteBatch(Op.DELETE, IdColumn.of([5, 5]))),
    ("a deletion with vectors", replace(upsert([1]), op=Op.DELETE)),
    ("no vectors", WriteBatch(Op.UPSERT, IdColumn.of([1]))),
    ("another field", WriteBatch(Op.UPSERT, IdColumn.of([1]), {"": vectors(1), "x": vectors(1)})),
    ("another dimension", WriteBatch(Op.UPSERT, IdColumn.of([1]), {"": vectors(1)[:, :3]})),
    ("another type", WriteBatch(Op.UPSERT, IdColumn.of([1]), {"": vectors(1).astype(np.float64)})),
    ("too few vectors", WriteBatch(Op.UPSERT, IdColumn.of([1, 2]), {"": vectors(1)})),
    ("no number", WriteBatch(Op.UPSERT, IdColumn.of([1]), {"": vectors(1) * np.nan})),
    ("a column that is none", replace(upsert([1]), payload=pa.RecordBatch.from_pydict({"a": [1]}))),
    ("a column of another type", replace(upsert([1]), payload=pa.RecordBatch.from_pydict({"a#s": [1]}))),
    ("columns of other length", replace(upsert([1]), payload=pa.RecordBatch.from_pydict({"a#i": [1, 2]}))),
    ("stamps of their own", replace(upsert([1]), stamps=np.array([5], np.uint64))),
    ("keys of an upsert", replace(upsert([1]), keys=("a",))),
]


@pytest.mark.parametrize("batch", [b for _, b in HOSTILE], ids=[name for name, _ in HOSTILE])
def test_what_no_router_sends(tmp_path: Path, batch: WriteBatch) -> None:
    async def story(node: Node) -> None:
        answer = await node.apply(batch, node.clock.stamp())
        assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, InvalidArgumentError), answer
        assert (await node.apply(upsert([7]), node.clock.stamp())).verdict is Verdict.OK

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert ids_of(node.replica) == [7]


def test_questions_that_make_no_sense(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        deadline, shard = node.deadline(), node.shard
        calls: list[Any] = [
            node.rules.search(Search(shard, vectors(1)[:, :2], 3), deadline),
            node.rules.search(Search(shard, vectors(1), 0), deadline),
            node.rules.search(Search(shard, vectors(1), 3, field="nix"), deadline),
            node.rules.scroll(Scroll(shard, "nonsense", 3), deadline),
            node.rules.scroll(Scroll(shard, None, 0), deadline),
            node.rules.score(Score(shard, vectors(1)[0, :2], IdColumn.of([1])), deadline),
            node.rules.lookup(Lookup(shard, IdColumn.of(np.arange(1 << 18))), deadline),
            node.rules.lookup(Lookup(shard, IdColumn.of([1]), vectors=("nix",)), deadline),
            node.rules.maintain(Maintain(shard, "dance"), deadline),  # type: ignore[arg-type]
        ]
        for answer in await asyncio.gather(*calls):
            assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, InvalidArgumentError), answer

    with node_in(tmp_path) as node:
        asyncio.run(story(node))


def test_a_failed_replica_refuses_and_says_so(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        await node.apply(upsert([1]), node.clock.stamp())
        node.replica.fail(OSError("the disk is gone"))
        answer = await node.apply(upsert([2]), node.clock.stamp(1))
        assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, ReplicaFailedError)
        assert answer.error.outcome == "none"

    with node_in(tmp_path) as node:
        asyncio.run(story(node))


def test_a_full_disk_and_full_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(node: Node) -> None:
        await node.apply(upsert([1]), node.clock.stamp())
        with monkeypatch.context() as patch:
            patch.setattr(node.replica._guard, "check", _full)
            answer = await node.apply(upsert([2]), node.clock.stamp(1))
            assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, DiskFullError)
        big = upsert(np.arange(100_000, 400_000))
        answer = await node.apply(big, node.clock.stamp(1))
        assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, ResourceExhaustedError), answer
        assert answer.error.retry_after > 0
        assert (await node.apply(upsert([3]), node.clock.stamp(1))).verdict is Verdict.OK

    def _full(kind: str, size: int) -> None:
        raise DiskFullError("no space", retry_after=1.0)

    with node_in(tmp_path, with_memory(settings_of(rows=50), 64 << 20)) as node:
        node.replica.resources.budget.limit_bytes = 1 << 20
        asyncio.run(story(node))
        assert sorted(ids_of(node.replica)) == [1, 3]


def test_a_fault_is_one_calls_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret")

    async def story(node: Node) -> None:
        monkeypatch.setattr(node.replica, "search", broken)
        monkeypatch.setattr(node.replica, "write_all", broken)
        for answer in (
            await node.rules.search(Search(node.shard, vectors(1), 1), node.deadline()),
            await node.apply(upsert([1]), node.clock.stamp()),
        ):
            assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, UnavailableError)
            assert answer.error.outcome == "unknown" and "secret" not in str(answer.error)

    with node_in(tmp_path) as node:
        asyncio.run(story(node))


# -- time and queues


def test_a_deadline_that_passed_before(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        gone = node.deadline(0.0)
        answer = await node.rules.apply(Apply(node.shard, node.clock.stamp(), upsert([1])), gone)
        assert answer.verdict is Verdict.REFUSED and isinstance(answer.error, DeadlineExceededError)
        assert answer.error.outcome == "none"
        found = await node.rules.search(Search(node.shard, vectors(1), 1), gone)
        assert found.verdict is Verdict.REFUSED and isinstance(found.error, DeadlineExceededError)

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert ids_of(node.replica) == []


class _Gate:
    """Holds a replica's writes up until it is opened."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Semaphore(0)
        write_all = node.replica.write_all

        def waiting(writes: Any) -> Any:
            self.reached.release()
            assert self.open.wait(20)
            return write_all(writes)

        monkeypatch.setattr(node.replica, "write_all", waiting)


def test_a_deadline_that_passes_while_the_disk_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was written is not known: no verdict, but an exception that says so. It does happen here."""

    async def story(node: Node) -> None:
        gate = _Gate(node, monkeypatch)
        call = Apply(node.shard, node.clock.stamp(), upsert([1]))
        with pytest.raises(DeadlineExceededError) as caught:
            await node.rules.apply(call, node.deadline(0.05))
        assert caught.value.outcome == "unknown"
        gate.open.set()
        assert rows(await node.apply(upsert([1]), node.clock.stamp())) == ([], [], [])

    with node_in(tmp_path) as node:
        asyncio.run(story(node))
        assert ids_of(node.replica) == [1]


def test_a_queue_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(node: Node) -> None:
        gate = _Gate(node, monkeypatch)
        t = node.clock.stamp
        waiting = [asyncio.create_task(node.apply(upsert([0]), t(counter=1)))]
        await asyncio.to_thread(gate.reached.acquire)
        waiting += [asyncio.create_task(node.apply(upsert([n]), t(counter=n))) for n in range(1, 4)]
        await asyncio.sleep(0)
        refused = await node.apply(upsert([9]), t(counter=9))
        assert refused.verdict is Verdict.REFUSED and isinstance(refused.error, ResourceExhaustedError)
        assert refused.error.retry_after > 0
        gate.open.set()
        assert all(a.verdict is Verdict.OK for a in await asyncio.gather(*waiting))
        assert (await node.apply(upsert([9]), t(counter=9))).verdict is Verdict.OK

    with node_in(tmp_path, limits=WriteLimits(calls_max=3)) as node:
        asyncio.run(story(node))
        assert sorted(ids_of(node.replica)) == [0, 1, 2, 3, 9]


def test_many_callers_share_syncs_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        t = node.clock.stamp
        batches = [upsert([n, 1000 + n % 7], seed=n) for n in range(200)]
        batches[50] = upsert([3, 3])
        answers = await asyncio.gather(*(node.apply(b, t(counter=1 + (n * 37) % 200)) for n, b in enumerate(batches)))
        wrong = [n for n, a in enumerate(answers) if a.verdict is not Verdict.OK]
        assert wrong == [50] and isinstance(answers[50].error, InvalidArgumentError)
        newest = {
            1000 + r: max(t(counter=1 + (n * 37) % 200) for n in range(200) if n % 7 == r and n != 50) for r in range(7)
        }
        found = node.replica.versions(IdColumn.of(list(newest)))
        assert dict(zip(newest, found.stamps.tolist(), strict=True)) == newest

    with node_in(tmp_path, settings_of(rows=50, durability="fsync")) as node:
        syncs: list[int] = []
        sync = node.replica._wal.sync

        def counted() -> int:
            syncs.append(1)
            return sync()

        node.replica._wal.sync = counted  # type: ignore[method-assign]
        asyncio.run(story(node))
        assert len(ids_of(node.replica)) == 199 + 7 and len(syncs) < 100


def test_reads_beyond_their_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(node: Node) -> None:
        gate, count = threading.Event(), node.replica.count

        def slow(*given: Any) -> int:
            assert gate.wait(20)
            return count(*given)

        monkeypatch.setattr(node.replica, "count", slow)
        call = Select(node.shard, None, count_only=True)
        held = [asyncio.create_task(node.rules.select(call, node.deadline())) for _ in range(3)]
        await asyncio.sleep(0)
        refused = await node.rules.select(call, node.deadline())
        assert refused.verdict is Verdict.REFUSED and isinstance(refused.error, ResourceExhaustedError)
        gate.set()
        assert [a.verdict for a in await asyncio.gather(*held)] == [Verdict.OK] * 3
        assert (await node.rules.select(call, node.deadline())).verdict is Verdict.OK

    with node_in(tmp_path, reads_max=3) as node:
        asyncio.run(story(node))


# -- reads


def test_only_a_short_search_of_buffers_is_done_in_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(node: Node) -> None:
        places: list[bool] = []
        search = node.replica.search

        def noted(*given: Any, **more: Any) -> Any:
            places.append(threading.current_thread() is threading.main_thread())
            return search(*given, **more)

        monkeypatch.setattr(node.replica, "search", noted)

        async def inside(**change: Any) -> bool:
            call = Search(node.shard, matrix[:1], 5)._replace(**change)
            await asyncio.sleep(0)  # a turn of its own
            assert (await node.rules.search(call, node.deadline())).verdict is Verdict.OK
            return places.pop()

        matrix = vectors(30, 4)
        await node.apply(upsert(list(range(30)), seed=4), node.clock.stamp())
        assert await inside()
        assert not await inside(queries=matrix[:2])
        assert not await inside(condition=FilterOp.eq("n", 1))
        monkeypatch.setattr(shard_rules, "SHORT_NUMBERS", 30 * 4 - 1)
        assert not await inside()
        monkeypatch.undo()
        monkeypatch.setattr(node.replica, "search", noted)
        node.replica.flush()
        assert not await inside(), "a segment's first bytes may have to come from the disk"

    with node_in(tmp_path) as node:
        asyncio.run(story(node))


def test_answers_say_what_the_engine_says(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        t = [node.clock.stamp(counter=c) for c in range(100)]
        ids: list[Any] = [n if n % 3 else f"id-{n}" for n in range(30)]
        payload = [{"n": n, "even": n % 2 == 0} if n % 5 else {} for n in range(30)]
        await node.apply(upsert(ids, payload, seed=4), t[1])
        await node.apply(update(ids[:6], [{"x": "y"}] * 6), t[2])
        await node.apply(delete([ids[7], "never"]), t[3])
        deadline, shard = node.deadline(), node.shard
        matrix = vectors(30, 4)
        even = FilterOp.eq("even", True)

        hits = await node.rules.search(
            Search(shard, matrix[:3], 5, condition=even, payload=True, vectors=True), deadline
        )
        assert hits.verdict is Verdict.OK and hits.hlc >= t[3]
        answer = node.replica.search(matrix[:3], 5, condition=even)
        flat = [answer.picked(q) for q in range(3)]
        assert hits.ids.to_list() == [i for p in flat for i in p.ids().to_list()]
        assert hits.stamps.tolist() == [s for p in flat for s in p.stamps().tolist()]
        assert hits.counts.tolist() == [len(p) for p in flat]
        assert hits.payload is not None and hits.payload.num_rows == len(hits.ids)
        assert hits.payload.column("n#i").to_pylist() == [d.get("n") for p in flat for d in p.payload()]
        assert hits.vectors is not None
        assert np.array_equal(hits.vectors, np.concatenate([p.vectors("", node.replica.schema) for p in flat]))
        assert hits.work.vectors_scanned > 0

        asked = IdColumn.of([ids[0], "nobody", ids[7], "never", ids[8]])
        looked = await node.rules.lookup(Lookup(shard, asked, payload=True, vectors=("",)), deadline)
        assert looked.states.tolist() == [State.LIVE, State.ABSENT, State.DELETED, State.DELETED, State.LIVE]
        assert looked.stamps.tolist() == [t[2], 0, t[3], t[3], t[1]]
        assert [bool(d) for d in looked.digests] == [True, False, True, True, True]
        assert np.array_equal(looked.vectors[""], matrix[[0, 8]]) and looked.records == ()
        assert looked.payload is not None and looked.payload.column("x#s").to_pylist() == ["y", None]

        scored = await node.rules.score(Score(shard, matrix[0], asked, condition=even), deadline)
        assert scored.states.tolist() == looked.states.tolist() and scored.stamps.tolist() == looked.stamps.tolist()
        assert scored.matches.tolist() == [False, False, False, False, True]
        direct = np.linalg.norm(matrix[8] - matrix[0])
        assert np.isinf(scored.distances[:4]).all() and abs(scored.distances[4] - direct) < 1e-5

        pages = []
        cursor = None
        while True:
            page = await node.rules.scroll(Scroll(shard, cursor, 7, vectors=("",)), deadline)
            pages.append(page)
            assert page.payload is not None and len(page.ids) == len(page.stamps) == len(page.vectors[""])
            if (cursor := page.cursor) is None:
                break
        hashes = np.concatenate([p.hashes for p in pages])
        assert (np.diff(hashes.astype(object)) > 0).all() and len(hashes) == 29
        assert np.array_equal(hashes, IdColumn.concat([p.ids for p in pages]).hashes()[0])

        chosen = await node.rules.select(Select(shard, even), deadline)
        assert chosen.count == len(chosen.ids) == len(chosen.stamps)
        assert (await node.rules.select(Select(shard, even, count_only=True), deadline)).count == chosen.count
        assert (await node.rules.select(Select(shard), deadline)).count == 29

    with node_in(tmp_path, settings_of(rows=11)) as node:
        asyncio.run(story(node))


def test_records_travel_whole(tmp_path: Path) -> None:
    async def story(one: Node, two: Node) -> None:
        t = [one.clock.stamp(counter=c) for c in range(10)]
        await one.apply(upsert([1, 2, 3], [{"a": 1, "b": {"c": [1, 2]}}] * 3), t[1])
        await one.apply(update([1, 2], [{"a": 2}] * 2, unset=("b",)), t[4])
        await one.apply(delete([3]), t[5])
        asked = IdColumn.of([1, 2, 3, 4])
        looked = await one.rules.lookup(Lookup(one.shard, asked, records=True), one.deadline())
        await two.apply(upsert([2, 3], seed=8), t[3])
        repaired = await two.rules.repair(Repair(two.shard, looked.records), two.deadline())
        assert repaired.verdict is Verdict.OK and repaired.existed > 0
        both = [await n.rules.lookup(Lookup(n.shard, asked), n.deadline()) for n in (one, two)]
        assert both[0].digests.tolist()[0] == both[1].digests.tolist()[0]
        assert both[0].digests.tolist()[2:] == both[1].digests.tolist()[2:]
        assert both[1].stamps.tolist() == both[0].stamps.tolist() == [t[4], t[4], t[5], 0]
        # 2 had a newer upsert there: the update counts on top of it, as it will here once that arrives.
        back = await two.rules.lookup(Lookup(two.shard, asked, records=True), two.deadline())
        await one.rules.repair(Repair(one.shard, back.records), one.deadline())
        first, second = [await n.rules.lookup(Lookup(n.shard, asked), n.deadline()) for n in (one, two)]
        assert first.digests.tolist() == second.digests.tolist()

    with node_in(tmp_path / "one") as one, node_in(tmp_path / "two") as two:
        asyncio.run(story(one, two))
        assert state_of(one.replica) == state_of(two.replica)


def test_maintenance(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        await node.apply(upsert([1, 2]), node.clock.stamp())
        values = {
            task: (await node.rules.maintain(Maintain(node.shard, task), node.deadline())).value
            for task in ("flush", "compact", "wait_until_indexed", "next_auto_id", "stats")
        }
        assert values["wait_until_indexed"] is True and values["next_auto_id"] == 3
        assert values["stats"]["points"] == 2 and values["stats"]["epoch"] == EPOCH

    with node_in(tmp_path) as node:
        asyncio.run(story(node))


def test_every_refusal_is_an_answer_of_its_kind(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        shard = node.shard._replace(shard_id=5)
        ids, query = IdColumn.of([1]), vectors(1)
        deadline = node.deadline()
        answers: list[Any] = [
            await node.rules.apply(Apply(shard, 5, upsert([1])), deadline),
            await node.rules.repair(Repair(shard, ()), deadline),
            await node.rules.search(Search(shard, query, 1), deadline),
            await node.rules.lookup(Lookup(shard, ids), deadline),
            await node.rules.score(Score(shard, query[0], ids), deadline),
            await node.rules.scroll(Scroll(shard, None, 5), deadline),
            await node.rules.select(Select(shard), deadline),
            await node.rules.maintain(Maintain(shard, "stats"), deadline),
        ]
        assert {a.verdict for a in answers} == {Verdict.NOT_HERE}
        assert all(isinstance(a.error, OmenDBError) for a in answers)

    with node_in(tmp_path) as node:
        asyncio.run(story(node))

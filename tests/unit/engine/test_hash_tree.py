"""Hash trees over sealed, merged, half-dead and growing parts; what makes two of them differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_common.clock import SystemClock
from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.shard_calls import State
from omendb_engine import seal
from omendb_engine.hash_tree import Sums, TreeCheck
from omendb_engine.parts import SegmentPart
from omendb_engine.query import digests
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from omendb_engine.segment import layout
from omendb_engine.segment.reader import Segment
from omendb_engine.stamped import StampedWrite
from tests.unit.engine.engine_cases import UnsyncedDisk, schema_of, settings_of

SCHEMA = schema_of(
    VectorField(4, "l2"), VectorField(3, "cosine", "float32", "turned"), VectorField(2, "dot", "int8", "x")
)
END = 1 << 40


def opened(path: Path, rows: int = 40, schema: CollectionSchema = SCHEMA) -> Replica:
    Replica.create(UnsyncedDisk(), str(path), schema, SystemClock())
    return again(path, rows, schema)


def again(path: Path, rows: int = 40, schema: CollectionSchema = SCHEMA, *, keep: bool = True) -> Replica:
    disk, settings = UnsyncedDisk(), settings_of(rows=rows)
    resources = Resources(settings)
    return Replica.open(disk, str(path), schema.uuid, resources, settings, SystemClock(), keep_tombstones=keep)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    replicas = opened(tmp_path / "one"), opened(tmp_path / "two", rows=7)
    yield replicas
    for replica in replicas:
        replica.close()


def write(replica: Replica, ids: Any, stamp: int, word: str = "w") -> None:
    column = IdColumn.of(ids)

    def rng() -> np.random.Generator:
        """Anew for each field: fewer rows are then the first of more."""
        return np.random.default_rng(stamp)

    vectors: dict[str, Any] = {
        "": rng().standard_normal((len(column), 4)).astype(np.float32),
        "turned": rng().standard_normal((len(column), 3)).astype(np.float32),
        "x": rng().integers(-9, 9, (len(column), 2)).astype(np.int8),
    }
    payload = columns_from_rows([{"word": word, "n": stamp}] * len(column))
    send(replica, WriteBatch(Op.UPSERT, column, vectors, payload), stamp)


def send(replica: Replica, batch: WriteBatch, stamp: int) -> None:
    (outcome,) = replica.write_all([StampedWrite(batch, stamp)])
    assert not isinstance(outcome, BaseException), outcome


def delete(replica: Replica, ids: Any, stamp: int) -> None:
    send(replica, WriteBatch(Op.DELETE, IdColumn.of(ids)), stamp)


def leaves(replica: Replica, through: int = END, floor: int = 0) -> Sums:
    found = replica.hash_trees.tree(through, floor).leaves
    assert found == replica.hash_trees.scanned(through, floor).leaves
    return found


def test_the_same_writes_in_other_buffers_give_the_same_tree(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    for stamp in range(1, 9):
        for replica in pair:
            write(replica, range(stamp * 10, stamp * 10 + 20), stamp)
            if stamp % 3 == 0:
                delete(replica, range(stamp * 10, stamp * 10 + 5), stamp + 100)
            if replica is two:
                leaves(two)
    assert leaves(one) == leaves(two)
    two.compact()
    assert leaves(one) == leaves(two)
    assert one.hash_trees.tree(END, 0).count == one.snapshot().live + 10


def test_what_is_one_bit_off_shows(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    write(one, range(50), 5, "word")
    write(two, range(49), 5, "word")
    write(two, [49], 5, "ward")
    differing = leaves(one).differing(leaves(two))
    assert np.flatnonzero(differing).tolist() == [int(IdColumn.of([49]).hashes()[1][0]) >> 48]


def test_a_record_that_was_counted_twice_shows(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    for replica in pair:
        write(replica, range(9), 5)
    tree = leaves(two)
    tree.add(np.array([3]), np.array([7], np.uint64), np.array([7], np.uint64))
    tree.add(np.array([3]), np.array([7], np.uint64), np.array([7], np.uint64))
    assert np.flatnonzero(leaves(one).differing(tree)).tolist() == [3]


def test_what_is_younger_takes_no_part(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    for replica in pair:
        write(replica, range(100), 5)
    write(one, range(100, 130), 50)
    delete(one, [200], 51)
    one.flush()
    assert leaves(one, 49) == leaves(two, 49)
    assert leaves(one, 50) != leaves(two, 50)
    # What replaces an older record hides it: the leaf differs, and the entries say why.
    write(one, [3], 60)
    node = np.array([int(IdColumn.of([3]).hashes()[1][0]) >> 54])
    assert np.flatnonzero(one.hash_trees.tree(49, 0).level(10).differing(two.hash_trees.tree(49, 0).level(10))) == node
    entries = one.hash_trees.entries(node, 10, 0, None, 99)
    assert (3, State.LIVE, 60) in zip(entries.ids.to_list(), entries.states, entries.stamps, strict=True)


def test_deletions_at_or_below_the_floor_take_no_part(pair: tuple[Replica, Replica]) -> None:
    one, two = pair
    for replica in pair:
        write(replica, range(10), 5)
    delete(one, [3, 77], 20)
    delete(two, [3], 15)
    assert leaves(one, END, 19) != leaves(two, END, 19)
    assert leaves(one, END, 20) == leaves(two, END, 20)


def test_a_level_is_the_sum_of_the_one_below(pair: tuple[Replica, Replica]) -> None:
    one, _ = pair
    write(one, range(500), 5)
    tree = one.hash_trees.tree(END, 0)
    for depth in range(16):
        upper, lower = tree.level(depth), tree.level(depth + 1)
        summed = Sums.zeros(len(upper))
        summed.add(np.arange(len(lower)) // 2, lower.first, lower.second, lower.counts)
        assert summed == upper
    with pytest.raises(InvalidArgumentError, match=r"0\.\.16"):
        tree.level(17)


def test_what_is_remembered_is_checked_and_forgotten_when_it_is_wrong(pair: tuple[Replica, Replica]) -> None:
    one, _ = pair
    write(one, range(40), 5)
    one.flush()
    assert one.hash_trees.check(END) == TreeCheck()
    (known,) = one.hash_trees._segments.values()
    known._sums.first[0] += np.uint64(1)
    assert one.hash_trees.check(END) == TreeCheck(leaves=1)
    assert one.hash_trees.check(END) == TreeCheck()


def test_a_check_is_not_misled_by_what_is_written_meanwhile(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = pair
    write(one, range(40), 5)
    one.flush()
    made = digests.part_digests

    def and_meanwhile(*arguments: Any) -> Any:
        write(one, range(20), one.snapshot().lsn + 50)
        return made(*arguments)

    monkeypatch.setattr("omendb_engine.hash_tree.part_digests", and_meanwhile)
    assert one.hash_trees.check(END) == TreeCheck()
    assert one.snapshot().lsn > 1


def test_a_tree_after_a_restart_reads_no_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened(tmp_path / "one")
    for stamp in range(1, 9):
        write(one, range(stamp * 10, stamp * 10 + 25), stamp)
        delete(one, [stamp * 10], stamp + 100)
        if stamp == 5:
            one.flush()
            one.compact()
    one.flush()
    before = leaves(one)
    assert sum(isinstance(part, SegmentPart) for part in one.snapshot().parts) > 1
    one.close()
    one = again(tmp_path / "one")
    with monkeypatch.context() as patched:
        patched.setattr(Segment, "vectors", None)
        patched.setattr(Segment, "columns", None)
        assert one.hash_trees.tree(END, 0).leaves == before
        assert len(one.hash_trees.entries(np.arange(1), 0, 0, None, 99).ids) == one.hash_trees.tree(END, 0).count
    assert leaves(one) == before
    one.close()


def test_rows_of_a_growing_buffer_are_hashed_once(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = pair
    seen: list[int] = []
    made = digests.part_digests

    def counted(part: Any, rows: Any, schema: Any) -> Any:
        seen.extend(rows)
        return made(part, rows, schema)

    monkeypatch.setattr(digests, "part_digests", counted)
    for stamp in (1, 2):
        write(one, range(stamp * 10, stamp * 10 + 10), stamp)
        one.hash_trees.tree(END, 0)
    write(one, range(30, 35), 3)
    one.flush()
    one.compact()
    one.hash_trees.tree(END, 0)
    assert sorted(seen) == list(range(25))


def wrong_by_one(part: Any, schema: Any) -> Any:
    found = digests.buffer_digests(part, schema).copy()
    found[7] += np.uint64(1)
    return found


def test_stored_digests_that_are_wrong_are_found_named_and_not_believed(
    tmp_path: Path, pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    for replica in pair:
        write(replica, range(30), 5)
    with monkeypatch.context() as patched:
        patched.setattr(seal, "buffer_digests", wrong_by_one)
        one.flush()
    one.close()
    one = again(tmp_path / "one")
    assert one.hash_trees.tree(END, 0).leaves != two.hash_trees.tree(END, 0).leaves
    assert one.hash_trees.check(END) == TreeCheck(leaves=1, ids=(7,))
    assert leaves(one) == leaves(two)
    # What a merge makes of it is right again, and stays.
    write(one, range(30, 60), 6)
    one.flush()
    one.compact()
    one.close()
    one = again(tmp_path / "one")
    write(two, range(30, 60), 6)
    assert one.hash_trees.check(END) == TreeCheck() and leaves(one) == leaves(two)
    one.close()


def test_segments_without_digests_or_with_those_of_another_release_are_read(
    tmp_path: Path, pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    one.close()
    one = again(tmp_path / "one", keep=False)
    for replica in (one, two):
        write(replica, range(30), 5)
        replica.flush()
    (part,) = (part for part in one.snapshot().parts if isinstance(part, SegmentPart))
    assert part.segment.digests() is None
    one.close()
    one = again(tmp_path / "one")
    assert leaves(one) == leaves(two)
    write(one, range(30, 60), 6)
    write(two, range(30, 60), 6)
    one.flush()
    one.compact()
    (part,) = (part for part in one.snapshot().parts if isinstance(part, SegmentPart))
    found = part.segment.digests()
    assert found is not None and len(found) == 60 and leaves(one) == leaves(two)
    monkeypatch.setattr(layout, "DIGEST_FORM", layout.DIGEST_FORM + 1)
    assert part.segment.digests() is None and leaves(one) == leaves(two)
    one.close()

"""Claims of points: what a replica does not take any more, and that it does not forget it (P19)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_common.claims import claims_of, markers, reserved, waivers_of
from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import Claim
from omendb_engine.replica import Replica
from omendb_engine.stamped import StampedResult, StampedWrite
from tests.unit.engine.test_stamped import delete, known, opened, upsert


def told(replica: Replica, batch: WriteBatch, stamp: int, claim: Claim = Claim.NONE) -> StampedResult:
    """What becomes of a write, a claim or a waiver."""
    (outcome,) = replica.write_all([StampedWrite(batch, stamp, claim=claim)])
    assert isinstance(outcome, StampedResult), outcome
    return outcome


def granted(replica: Replica, stamp: int, *ids: Any) -> list[bool]:
    """Of which ids a claim was granted."""
    result = told(replica, delete(list(ids)), stamp, Claim.CLAIM)
    return [row not in result.superseded for row in range(len(ids))]


def taken(replica: Replica, stamp: int, point_id: Any, op: Op = Op.UPSERT) -> bool:
    """Whether a write of a point is taken."""
    result = told(replica, upsert([point_id]) if op is Op.UPSERT else delete([point_id]), stamp)
    assert list(result.barred) == [] or list(result.superseded) == [0]
    return not len(result.superseded)


@pytest.mark.parametrize("again", ["as it is", "opened again", "sealed and opened again"])
def test_a_claim_keeps_out_what_lies_between(tmp_path: Path, again: str) -> None:
    replica = opened(tmp_path)
    told(replica, upsert([1, "a"]), 10)
    assert granted(replica, 50, 1, "a", 2) == [True] * 3
    if again != "as it is":
        if again.startswith("sealed"):
            replica.flush()
        replica.close()
        replica = opened(tmp_path)
    for point_id in (1, "a", 2):
        refused = told(replica, upsert([point_id]), 30)
        assert list(refused.superseded) == list(refused.barred) == [0] and list(refused.newer) == [50]
        assert not taken(replica, 49, point_id, Op.DELETE)
    assert known(replica, 1, "a", 2) == [(1, 10), (1, 10), (0, 0)]
    assert taken(replica, 10, 1), "what it had when it was claimed"
    assert taken(replica, 50, 1) and taken(replica, 51, 2), "the claim's own write, and later ones"
    assert taken(replica, 30, 3), "other points"
    assert not taken(replica, 40, "a")
    replica.close()


def test_a_later_claim_beats_an_earlier_one(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    assert granted(replica, 50, 1) == granted(replica, 60, 1) == [True]
    assert granted(replica, 55, 1) == [False] and granted(replica, 60, 1) == [True]
    assert not taken(replica, 50, 1) and taken(replica, 60, 1)
    assert granted(replica, 60, 1) == [False], "its write is there already"
    assert granted(replica, 59, 1) == [False] and granted(replica, 61, 1) == [True]
    replica.close()


@pytest.mark.parametrize("waived_first", [False, True])
def test_a_waiver_ends_its_claim_alone(tmp_path: Path, waived_first: bool) -> None:
    replica = opened(tmp_path)
    steps = [Claim.WAIVE, Claim.CLAIM] if waived_first else [Claim.CLAIM, Claim.WAIVE]
    assert granted(replica, 50, 1) == [True]
    for claim in steps:
        told(replica, delete([1]), 60, claim)
    assert taken(replica, 55, 1), "nothing will be written under 60"
    assert not taken(replica, 40, 1)
    replica.close()
    replica = opened(tmp_path)
    assert granted(replica, 56, 1) == [True], "nor does it stand in the way of a lower claim"
    replica.close()


def test_a_record_from_elsewhere_is_kept_out_as_well(tmp_path: Path) -> None:
    replica = opened(tmp_path)
    told(replica, upsert([1]), 10)
    granted(replica, 50, 1)
    batch = upsert([1], 3, [30])
    assert list(told(replica, batch, 0).barred) == [0]
    assert known(replica, 1) == [(1, 10)]
    replica.close()


def test_claims_travel_as_deletions_of_ids_that_no_point_has(tmp_path: Path) -> None:
    here, there = opened(tmp_path / "a"), opened(tmp_path / "b")
    told(here, upsert([1]), 10)
    granted(here, 50, 1)
    marked = here.claims_on(IdColumn.of([1, 2]))
    assert len(marked) == 1 and reserved(marked).all() and not reserved(IdColumn.of([1, "a"])).any()
    for batch in here.versions(marked).records():
        told(there, batch, 0)
    assert not taken(there, 30, 1) and taken(there, 10, 1)
    assert here.snapshot().live == 1
    with pytest.raises(InvalidArgumentError, match="zero character"):
        here.write_at(WriteBatch(Op.DELETE, marked), 70)
    for replica in (here, there):
        replica.close()


def test_markers_say_what_they_were_made_of() -> None:
    ids = IdColumn.of([7, "ä", 8])
    found = markers(claims_of(ids, np.array([1, 2, 3], np.uint64), 9))
    assert [(m.base, m.stamp, m.waived) for m in found] == [(1, 9, False), (2, 9, False), (3, 9, False)]
    assert [(m.hi, m.lo) for m in found] == list(zip(*(column.tolist() for column in ids.hashes()), strict=True))
    assert [(m.stamp, m.waived) for m in markers(waivers_of(ids, 9))] == [(9, True)] * 3
    assert markers(IdColumn.of(["\x00c123", "\x00x" + "0" * 64, "\x00c" + "g" * 64, "c", 5])) == []

"""The oracle must be able to say no: a checker that accepts everything proves nothing."""

from __future__ import annotations

import pytest

from omendb_chaos.oracle import History, Point, State, Step, Violation, match, observe
from omendb_chaos.session import Session, open_folder

ONE, TWO = Point.of({"": [1.0]}, {}), Point.of({"": [2.0]}, {})


def history(*promised: int | None) -> History:
    """Operation n puts point n; each begins where the one before was promised."""
    steps = []
    begun = 0
    for number, position in enumerate(promised):

        def put(state: State, number: int = number) -> State:
            return {"c": {**state.get("c", {}), number: ONE}}

        steps.append(Step(f"put {number}", put, begun, acked=position is not None, promised=position))
        begun = position or begun + 1
    return History(steps)


def test_what_was_promised_must_be_there() -> None:
    two = history(10, 20)
    assert match(two, {"c": {0: ONE, 1: ONE}}, 20) == (0, 1)
    with pytest.raises(Violation, match="missing"):
        match(two, {"c": {0: ONE}}, 20)


def test_an_operation_in_flight_may_be_there_or_not_but_none_that_had_not_begun() -> None:
    two = history(10, 20)
    assert match(two, {"c": {0: ONE}}, 15) == (0,)
    assert match(two, {"c": {0: ONE, 1: ONE}}, 15) == (0, 1)
    with pytest.raises(Violation, match="phantom"):
        match(two, {"c": {0: ONE, 1: ONE}}, 10)


def test_an_unknown_outcome_may_be_left_out_while_later_operations_stay() -> None:
    three = history(10, None, 30)
    assert match(three, {"c": {0: ONE, 2: ONE}}) == (0, 2)
    three.settle((0, 2), 40)
    with pytest.raises(Violation):
        match(three, {"c": {0: ONE, 1: ONE, 2: ONE}})


def test_other_content_is_a_violation() -> None:
    with pytest.raises(Violation, match="different"):
        match(history(10), {"c": {0: TWO}}, 10)


def test_a_lost_point_of_a_real_database_is_noticed() -> None:
    session = Session().open()
    session.create()
    session.upsert(session.rows(range(5)))
    before = session.disk.copy()
    session.delete([3])
    session.abandon()
    seen = observe(open_folder(before, session.settings))
    with pytest.raises(Violation, match="phantom"):
        match(session.history, seen)


def test_the_same_seed_gives_the_same_disk() -> None:
    def log_of(seed: int) -> str:
        session = Session(seed=seed).open()
        session.create()
        session.upsert(session.rows(range(9)))
        session.flush()
        session.close()
        return repr(list(session.disk.log))

    assert log_of(3) == log_of(3)
    assert log_of(3) != log_of(4)

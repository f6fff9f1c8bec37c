"""The checker: histories known to be right or wrong, and a comparison with trying every order."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_chaos.checkers.linearizability import UNKNOWN, Operation, Recorder, Register, check
from omendb_chaos.checkers.points import FieldOfPoint, PointOfTwo, field_by_field


def _op(text: str, began: float, ended: float = math.inf, key: str = "x") -> Operation:
    """``w1``: writes 1; ``r1``: reads 1; ``r-``: reads nothing; ``s12+``: swaps 1 for 2, and it took place."""
    value = None if text[1] == "-" else int(text[1])
    calls: dict[str, tuple[tuple[Any, ...], Any]] = {
        "w": (("write", value), None),
        "r": (("read",), value),
        "s": (("swap", value, int(text[2]) if len(text) > 2 else 0), text.endswith("+")),
    }
    call, result = calls[text[0]]
    return Operation("c", key, call, UNKNOWN if ended == math.inf else result, began, ended)


@pytest.mark.parametrize(
    ("right", "history"),
    [
        (True, []),
        (True, [_op("w1", 0, 1), _op("r1", 2, 3)]),
        (False, [_op("w1", 0, 1), _op("r-", 2, 3)]),
        (False, [_op("r1", 0, 1), _op("w1", 2, 3)]),
        # Two reads beside one write: new and then old is wrong, old and then new is right.
        (False, [_op("w1", 0, 9), _op("r1", 1, 2), _op("r-", 3, 4)]),
        (True, [_op("w1", 0, 9), _op("r-", 1, 2), _op("r1", 3, 4)]),
        # Times that touch overlap.
        (True, [_op("w1", 0, 1), _op("r-", 1, 2)]),
        # An open write may show, at once or late, or never; but not before it began, and not twice.
        (True, [_op("w1", 0), _op("r1", 5, 6)]),
        (True, [_op("w1", 0), _op("r-", 5, 6), _op("r1", 7, 8)]),
        (True, [_op("w1", 0), _op("r-", 5, 6)]),
        (False, [_op("r1", 0, 1), _op("w1", 2)]),
        (False, [_op("w1", 0), _op("w2", 1, 2), _op("r1", 3, 4), _op("r2", 5, 6)]),
        (False, [_op("w1", 0), _op("r1", 1, 2), _op("w2", 3, 4), _op("r1", 5, 6)]),
        # The value that nobody wrote.
        (False, [_op("w1", 0), _op("r2", 1, 2)]),
        (True, [_op("w1", 0, 1), _op("s12+", 2, 3), _op("s12", 4, 5), _op("r2", 6, 7)]),
        (False, [_op("w1", 0, 1), _op("s12+", 2, 3), _op("s13+", 2, 3)]),
    ],
)
def test_known_histories(right: bool, history: list[Operation]) -> None:
    verdict = check(history, Register())
    assert verdict.ok == right, verdict.why
    assert right or "none of these can follow" in verdict.why


def test_keys_do_not_know_each_other() -> None:
    assert check([_op("w1", 0, 1, "x"), _op("r-", 2, 3, "y")], Register()).ok
    assert not check([_op("w1", 0, 1, "x"), _op("r-", 2, 3, "y"), _op("r-", 2, 3, "x")], Register()).ok


_TEXTS = st.sampled_from(["w1", "w2", "r-", "r1", "r2", "s12+", "s12", "s21+"])


@st.composite
def _histories(draw: st.DrawFn) -> list[Operation]:
    """Histories of clients that call one after the other; some calls are open, and then their client ends."""
    history: list[Operation] = []
    for _ in range(draw(st.integers(1, 3))):
        now = 0
        for _ in range(draw(st.integers(1, 2))):
            began = now + draw(st.integers(1, 3))
            now = began + draw(st.integers(1, 4))
            is_open = draw(st.integers(0, 5)) == 0
            history.append(_op(draw(_TEXTS), began, math.inf if is_open else now))
            if is_open:
                break
    return history


@settings(max_examples=600, deadline=None)
@given(history=_histories())
def test_the_search_agrees_with_trying_every_order(history: list[Operation]) -> None:
    assert check(history, Register()).ok == _some_order_explains(history)


def _some_order_explains(history: list[Operation]) -> bool:
    answered = [o for o in history if not o.is_open]
    unanswered = [o for o in history if o.is_open]
    for count in range(len(unanswered) + 1):
        for happened in itertools.combinations(unanswered, count):
            if any(_explains(order) for order in itertools.permutations([*answered, *happened])):
                return True
    return False


def _explains(order: tuple[Operation, ...]) -> bool:
    register, state = Register(), None
    for position, operation in enumerate(order):
        if any(later.ended < operation.began for later in order[position + 1 :]):
            return False
        state, expected = register.step(state, operation.call)
        if not operation.is_open and expected != operation.result:
            return False
    return True


def test_a_long_history_with_many_clients_and_open_calls_is_decided() -> None:
    """2,000 calls of ten clients on one key, made from an order that exists."""
    history = []
    value: int | None = None
    for number in range(2_000):
        at = float(number)
        began, ended = at - (number * 7 % 10) / 2, at + (number * 3 % 10) / 2 + 0.5
        if number % 100 == 50:
            history.append(Operation("c", "x", ("write", -number), UNKNOWN, began))
        elif number % 3 == 0:
            value = number
            history.append(Operation("c", "x", ("write", number), None, began, ended))
        else:
            history.append(Operation("c", "x", ("read",), value, began, ended))
    verdict = check(history, Register())
    assert verdict.ok, verdict.why
    # One read of a value that was overwritten long before.
    wrong = [*history, Operation("c", "x", ("read",), 3, 1000.0, 1001.0)]
    verdict = check(wrong, Register())
    assert not verdict.ok


def test_a_search_that_takes_too_long_is_no_verdict() -> None:
    history = [_op(f"w{n}", 0, 100) for n in range(1, 9)] + [_op("r9", 1, 100)]
    verdict = check(history, Register(), steps_max=20)
    assert verdict.undecided
    assert not verdict.ok


def test_a_recorder_writes_down_what_happened() -> None:
    times = itertools.count()
    recorder = Recorder(lambda: float(next(times)))
    first, second, third, _ = (recorder.begin("c", "x", ("write", n)) for n in range(4))
    recorder.end(first, None)
    recorder.leave_open(second)
    recorder.forget(third)
    written = {o.call[1]: (o.began, o.ended, o.result) for o in recorder.history()}
    assert written == {0: (0.0, 4.0, None), 1: (1.0, math.inf, UNKNOWN), 3: (3.0, math.inf, UNKNOWN)}


def test_fields_of_a_point_may_be_in_order_where_the_whole_is_not() -> None:
    def operation(call: tuple[object, ...], result: object, began: float, ended: float = float("inf")) -> Operation:
        return Operation("c", 1, call, UNKNOWN if ended == float("inf") else result, began, ended)

    torn = [
        operation(("write", 10), None, 0, 1),
        operation(("write", 20), None, 2),
        operation(("extra", 5), None, 3, 4),
        operation(("read",), (10, 5), 5, 6),
        operation(("read",), (20, 5), 7, 8),
    ]
    assert not check(torn, PointOfTwo()).ok
    assert check(list(field_by_field(torn)), FieldOfPoint()).ok
    back = [*torn, operation(("read",), (10, 5), 9, 10)]
    assert not check(list(field_by_field(back)), FieldOfPoint()).ok

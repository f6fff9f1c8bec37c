"""The oracle of cluster kills: what a point may be after what its writer was told, and that it can say no."""

from __future__ import annotations

import numpy as np

from omendb_chaos.fleet.possible import Point, Possible, Told, Write, payload_of, seen, shown, vector_of

UP, OTHER, EXTRA, GONE = Write("upsert", 1), Write("upsert", 2), Write("update", 3), Write("delete")


def after(*told: tuple[Write, Told]) -> Possible:
    possible = Possible()
    for write, answer in told:
        possible.note(write, answer)
    return possible


def test_an_acknowledgement_leaves_one_state() -> None:
    assert after((UP, "acknowledged")).states == {Point(1)}
    assert after((UP, "acknowledged"), (EXTRA, "acknowledged")).states == {Point(1, 3)}
    assert after((UP, "acknowledged"), (EXTRA, "acknowledged"), (OTHER, "acknowledged")).states == {Point(2)}
    assert after((UP, "acknowledged"), (GONE, "acknowledged")).states == {None}


def test_what_is_unknown_may_or_may_not_be_there() -> None:
    unknown = after((UP, "acknowledged"), (OTHER, "unknown"))
    assert unknown.states == {Point(1), Point(2)} and not unknown.settled
    unknown.note(GONE, "unknown")
    assert unknown.states == {Point(1), Point(2), None}
    unknown.note(EXTRA, "acknowledged")
    # An update that succeeded found it, and says nothing of a delete that one replica may still hand on.
    assert unknown.states == {Point(1, 3), Point(2, 3), None}
    unknown.note(UP, "acknowledged")
    assert unknown.states == {Point(1)} and unknown.settled


def test_a_version_is_whole_until_an_update_comes_over_it() -> None:
    assert after((UP, "acknowledged")).whole and after((UP, "acknowledged"), (OTHER, "unknown")).whole
    updated = after((UP, "acknowledged"), (EXTRA, "unknown"))
    assert not updated.whole
    updated.note(OTHER, "acknowledged")
    assert updated.whole


def test_what_was_shown_stays_and_what_is_unknown_may_come_later() -> None:
    possible = after((UP, "acknowledged"), (OTHER, "unknown"))
    assert possible.show(Point(1)) and possible.states == {Point(1), Point(2)}, "one replica may still have the other"
    assert possible.show(Point(2)) and possible.states == {Point(2)}
    assert not possible.show(Point(1)), "it would have gone back"


def test_unknown_writes_take_effect_in_the_order_of_their_stamps() -> None:
    possible = after((UP, "acknowledged"), (OTHER, "unknown"), (EXTRA, "acknowledged"))
    assert possible.show(Point(1, 3))
    assert possible.states == {Point(1, 3), Point(2, 3)}, "the update is newer than either"
    assert not possible.show(Point(2)) and not after((UP, "acknowledged"), (GONE, "unknown")).show(Point(2))
    gone = after((UP, "acknowledged"), (GONE, "unknown"), (OTHER, "unknown"))
    assert gone.show(Point(2)) and gone.states == {Point(2)}, "whether the older delete happened makes no difference"


def test_what_did_not_happen_changes_nothing() -> None:
    refused = after((UP, "acknowledged"), (GONE, "none"))
    assert refused.states == {Point(1)} and refused.settled


def test_a_torn_point_is_seen() -> None:
    whole = Point(5, 6)
    assert seen(7, payload_of(whole), vector_of(7, 5)) == whole
    assert isinstance(seen(7, payload_of(whole), vector_of(7, 4)), str), "another write's vector"
    assert isinstance(seen(8, payload_of(whole), vector_of(7, 5)), str), "another point's vector"
    assert isinstance(seen(7, {"extra": 6}, vector_of(7, 5)), str)
    assert isinstance(seen(7, {"value": 5, "stranger": 1}, vector_of(7, 5)), str)
    assert isinstance(seen(7, payload_of(whole), np.zeros(8, np.float32)), str)


def test_states_in_words() -> None:
    assert shown({None, Point(1), Point(2, 3)}) == "1/None or 2/3 or absent"

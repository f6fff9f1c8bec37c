"""The bounds of a group's numbers."""

from __future__ import annotations

import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_coordinator.consensus.settings import RaftSettings


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"election_min_s": 0.2}, "election_min_s"),
        ({"heartbeat_s": 0.0}, "election_min_s"),
        ({"election_max_s": 1.1}, "election_max_s"),
        ({"window": 0}, "window"),
        ({"message_bytes": 32 << 20}, "message_bytes"),
        ({"pending_bytes_max": 1}, "pending_bytes_max"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        RaftSettings(**changes)  # type: ignore[arg-type]
    assert error.value.field == field


def test_the_fast_ones_of_the_manual_fit() -> None:
    assert RaftSettings(heartbeat_s=0.1, election_min_s=0.4, election_max_s=0.8).resend_s < 0.4

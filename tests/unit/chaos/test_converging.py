"""R17 can fail: the same simulated run without anybody who brings replicas together."""

from __future__ import annotations

from omendb_chaos.cluster.converging import converging
from omendb_chaos.cluster.world import Options


def test_replicas_are_equal_with_a_repairer_and_not_without() -> None:
    assert not converging("R17/0/2").violations
    assert "replicas are equal, with nobody reading" in converging("R17/0/2", Options()).violations[0]


def test_a_call_that_nobody_ends_does_not_hold_a_round_up() -> None:
    """Exchanges relied on the transport to keep their deadlines: here it does not, and a lost call was for ever."""
    assert not converging("R17/0/3").violations

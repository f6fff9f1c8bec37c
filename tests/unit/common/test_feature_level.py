"""Which level a process speaks, and that it does not live in a cluster of a newer one."""

from __future__ import annotations

import pytest

from omendb_common.errors import FormatVersionError, InvalidArgumentError
from omendb_common.feature_level import CURRENT, OLDEST, VARIABLE, check_level, spoken_level


def test_a_process_speaks_the_newest_level_unless_told_otherwise() -> None:
    assert spoken_level({}) == CURRENT
    assert spoken_level({VARIABLE: str(OLDEST)}) == OLDEST < CURRENT


@pytest.mark.parametrize("given", ["0", str(CURRENT + 1), "", "one", "-1", "1.0"])
def test_a_level_that_it_cannot_speak_is_refused(given: str) -> None:
    with pytest.raises(InvalidArgumentError, match=VARIABLE):
        spoken_level({VARIABLE: given})


def test_who_understands_less_than_the_cluster_is_told_what_to_do() -> None:
    check_level(2, 2, "d1")
    check_level(3, 2, "d1")
    with pytest.raises(FormatVersionError, match=r"d1 understands level 1.*finalised at 2") as refused:
        check_level(1, 2, "d1")
    assert refused.value.mend and "release" in refused.value.mend

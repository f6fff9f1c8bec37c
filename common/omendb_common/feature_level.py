"""What a process understands of what others write: its feature level (P21).

A release reads everything that the level before wrote, and writes nothing of a newer level than the cluster's. So
processes of two levels live side by side until every member understands the newer one and an operator finalises it.

========  ==============================================================================================
level     brings
========  ==============================================================================================
1         what the first release wrote
2         catalogs that were restored from a copy: snapshots of format 2, commands of format 2
          (``accept_restored``), and the list of what a data node keeps of a lost catalog (REPLICAS, format 2);
          shards whose quorums change (``reshape_collection``, ``begin_resize``)
3         two neighbouring shards become one (``begin_merge``, ``advance_merge``, ``cancel_merge``)
4         collections with ``index`` ivf or a ``quantization``: files of format 2 (inverted lists, graphs over codes)
========  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping

from omendb_common.errors import FormatVersionError, InvalidArgumentError

CURRENT = 4
OLDEST = 1
"""The oldest level that this release can still speak, and live with."""

VARIABLE = "OMENDB_FEATURE_LEVEL"
"""The environment's name for a lower level: a process that is told so speaks and reads no newer one."""


def spoken_level(environment: Mapping[str, str]) -> int:
    """The level that a process with this environment speaks; InvalidArgumentError for one that it cannot."""
    given = environment.get(VARIABLE, str(CURRENT))
    if not given.isdecimal() or not OLDEST <= int(given) <= CURRENT:
        raise InvalidArgumentError(f"got {given!r}", field=VARIABLE, bound=f"{OLDEST}..{CURRENT}", mend="unset it")
    return int(given)


def check_level(level: int, cluster_level: int, who: str) -> None:
    """Raise FormatVersionError when a process understands less than its cluster uses."""
    if level < cluster_level:
        raise FormatVersionError(
            f"{who} understands level {level}, and the cluster was finalised at {cluster_level}",
            field="feature_level",
            bound=f"at least {cluster_level}",
            mend="start it with the release that the cluster was upgraded to, or a newer one",
        )


__all__ = ["CURRENT", "OLDEST", "VARIABLE", "check_level", "spoken_level"]

"""What a caller asks of one call beside its arguments: how long, and how fresh."""

from __future__ import annotations

import math
from typing import Any, cast, get_args

from omendb.backend import NO_OPTIONS, CallOptions, Consistency
from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import InvalidArgumentError

CONSISTENCIES: tuple[str, ...] = get_args(Consistency)
_CLOCK = SystemClock()


def call_options(
    timeout: float | None, consistency: Consistency | None = None, include: frozenset[str] | None = None
) -> CallOptions:
    """What a caller asked of one call, checked; the deadline runs from here. ``include`` None may look at payloads."""
    if timeout is None and consistency is None and include is None:
        return NO_OPTIONS
    return CallOptions(
        None if timeout is None else Deadline.after(_CLOCK, check_timeout(timeout)),
        None if consistency is None else check_consistency(consistency),
        include is None or "metadata" in include,
        include is not None and "vector" in include,
    )


def check_timeout(value: Any) -> float:
    """``value`` if it is a positive, finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"got {value!r}", field="timeout", bound="seconds, more than 0")
    return float(value)


def check_consistency(value: Any) -> Consistency:
    """``value`` if it names what a read must show."""
    if value not in CONSISTENCIES:
        raise InvalidArgumentError(f"got {value!r}", field="consistency", bound=f"one of {', '.join(CONSISTENCIES)}")
    return cast(Consistency, value)


__all__ = ["CONSISTENCIES", "call_options", "check_consistency", "check_timeout"]

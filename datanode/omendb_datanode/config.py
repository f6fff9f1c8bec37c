"""Every setting of a data node beside those of its engine, with its unit, bound and reason; set in the environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omendb_common.errors import InvalidArgumentError
from omendb_common.settings import MIB, bound_of, check_value

ENVIRONMENT_PREFIX = "OMENDB_DATANODE_"


def _setting(default: Any, reason: str, *, low: float, high: float) -> Any:
    metadata = {"reason": reason, "low": low, "high": high, "choices": ()}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class DataNodeSettings:
    """How much a data node takes on at a time; a setting's unit ends its name."""

    read_threads: int = _setting(
        0, "threads that search and look up; 0: two more than there are cores", low=0, high=512
    )
    write_threads: int = _setting(0, "threads that write, one for a replica at a time; 0: one a core", low=0, high=512)
    reads_max: int = _setting(
        1024, "reads that run or wait; more are refused with a time to come back", low=1, high=1_000_000
    )
    writes_max: int = _setting(
        4096, "writes that wait for one replica; more are refused with a time to come back", low=1, high=1_000_000
    )
    write_bytes_max: int = _setting(256 * MIB, "bytes of the batches that wait for one replica", low=MIB, high=1 << 40)
    loop_lag_max_s: float = _setting(
        1.0,
        "when the event loop runs so late, new reads and writes are refused until it does not",
        low=0.05,
        high=600.0,
    )
    drain_s: float = _setting(10.0, "time for calls under way to end after SIGTERM", low=0.0, high=600.0)
    reopen_s: float = _setting(
        5.0, "how often a replica that could not be opened is tried again", low=0.05, high=3600.0
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), field.name)


def settings_from(environment: Mapping[str, str]) -> DataNodeSettings:
    """The settings of an environment: ``OMENDB_DATANODE_DRAIN_S=20`` sets ``drain_s``.

    Raises:
        InvalidArgumentError: no number, out of its bound, or no such setting.
    """
    fields = {field.name: field for field in dataclasses.fields(DataNodeSettings)}
    found: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name not in fields:
            raise InvalidArgumentError("unknown setting", field=variable, bound=f"one of {', '.join(fields)}")
        kind: Callable[[str], Any] = int if isinstance(fields[name].default, int) else float
        try:
            found[name] = kind(text)
        except ValueError:
            raise InvalidArgumentError(f"got {text!r}", field=variable, bound=bound_of(fields[name])) from None
    return DataNodeSettings(**found)


__all__ = ["ENVIRONMENT_PREFIX", "DataNodeSettings", "settings_from"]

"""The sample configuration file, written from the settings' own definitions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from omendb_common.settings import GROUPS, PROFILES, SEARCH_PROFILES, bound_of, fields_of

_HEAD = f"""\
# OmenDB settings: every one, with its bound, its reason and its default.
#
# Remove the "#" before a group and a setting to change it. Later wins:
# default < profile < this file < environment (OMENDB_GROUP_NAME) < flag.
# One file serves every process: each reads its own groups and passes over the others.
# Sizes may be written as 64MiB or 4GiB. `omendb config show` prints what is in force and why.

# profile: developer    # one of {", ".join([*PROFILES, *SEARCH_PROFILES])}; join two with +
"""


def example_yaml(groups: Mapping[str, type[Any]] = GROUPS) -> str:
    """The manual of ``groups``; of every group there is, the text of ``docs/omendb.example.yaml``."""
    return _HEAD + "".join(_group(name, kind) for name, kind in groups.items())


def _group(name: str, kind: type[Any]) -> str:
    title = (kind.__doc__ or "").splitlines()[0]
    lines = ["", f"# {title}", f"# {name}:"]
    for field in fields_of({name: kind}).values():
        reason = field.metadata["reason"]
        about = f"{reason} ({bound_of(field)})."
        lines += textwrap.wrap(about, 100, initial_indent="#   # ", subsequent_indent="#   # ")
        lines.append(f"#   {field.name}: {_scalar(field.default)}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


__all__ = ["example_yaml"]

"""Where the settings of a database or a process come from: defaults, profile, YAML file, environment, flags.

The later wins. A setting is called ``group.name`` in YAML and flags and ``OMENDB_GROUP_NAME`` in the
environment; ``docs/omendb.example.yaml`` is the manual. The settings themselves are
:mod:`omendb_common.settings`, whose names this module hands on.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.settings import (
    FIELDS,
    GIB,
    GROUPS,
    KIB,
    MIB,
    OTHER_GROUPS,
    PROFILES,
    SEARCH_PROFILES,
    BufferSettings,
    CompactionSettings,
    EngineSettings,
    IndexSettings,
    MemorySettings,
    StorageSettings,
    WorkerSettings,
    bound_of,
    check_value,
    fields_of,
    settings_from,
)

Fields = Mapping[str, dataclasses.Field[Any]]


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings in force, and for every ``group.name`` its value and where it came from.

    ``beside``: the groups of a process beside those of an engine, each as its own class.
    """

    settings: EngineSettings
    provenance: dict[str, tuple[Any, str]]
    beside: dict[str, Any] = field(default_factory=dict)


Groups = Mapping[str, type[Any]]
"""Groups of settings that a process has, by name; their classes are made of :func:`omendb_common.settings.setting`."""


def load_settings(
    profile: str | None = None,
    file: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    beside: Groups | None = None,
) -> Resolved:
    """Work out the settings: defaults < profile < YAML file < environment < overrides.

    Args:
        profile: ``developer``, ``production`` or ``cloud``, a search profile (``speed``, ``balanced``,
            ``quality``), or both joined by ``+``; else ``OMENDB_PROFILE``, else the file's ``profile``.
        file: a YAML file; else ``OMENDB_CONFIG``.
        env: the environment; the process's own when None.
        overrides: ``group.name``, ``group_name`` or a name that only one group has, to a value.
        beside: further groups of this process, from the same sources.

    Raises:
        InvalidArgumentError: an unknown setting or a value outside its bound, with a mend.
        NotFoundError: ``file`` does not exist.
    """
    env = os.environ if env is None else env
    groups = dict(beside or {})
    fields = FIELDS | fields_of(groups)
    file, in_file = _file(file, env, fields)
    profile = profile or env.get("OMENDB_PROFILE") or in_file.pop("profile", None) or "developer"
    found: dict[str, tuple[Any, str]] = {name: (field.default, "default") for name, field in fields.items()}
    for part, values in _profile_parts(profile):
        found.update({name: (value, f"profile {part}") for name, value in values.items()})
    _cap_memory(found)
    _overlay(found, fields, file, in_file, env, overrides or {})
    values = {name: value for name, (value, _) in found.items()}
    engine = settings_from({name: value for name, value in values.items() if name in FIELDS})
    return Resolved(engine, found, _built(groups, values))


def load_groups(
    groups: Groups,
    file: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings of a process that has no engine, by group; sources and errors as of :func:`load_settings`."""
    env = os.environ if env is None else env
    fields = fields_of(groups)
    file, in_file = _file(file, env, fields)
    in_file.pop("profile", None)
    found: dict[str, tuple[Any, str]] = {}
    _overlay(found, fields, file, in_file, env, overrides or {})
    return _built(groups, {name: value for name, (value, _) in found.items()})


def _built(groups: Groups, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        group: kind(**{name.partition(".")[2]: values[name] for name in fields_of({group: kind}) if name in values})
        for group, kind in groups.items()
    }


def _file(
    file: str | os.PathLike[str] | None, env: Mapping[str, str], fields: Fields
) -> tuple[str | os.PathLike[str] | None, dict[str, Any]]:
    """The settings file, and what of it is for this process."""
    file = file if file is not None else env.get("OMENDB_CONFIG") or None
    return file, {} if file is None else _read_yaml(os.fspath(file), fields)


def _overlay(
    found: dict[str, tuple[Any, str]],
    fields: Fields,
    file: str | os.PathLike[str] | None,
    in_file: Mapping[str, Any],
    env: Mapping[str, str],
    overrides: Mapping[str, Any],
) -> None:
    """Put over ``found`` what the file, the environment and the flags say, in this order."""
    found.update({name: (_parse(fields, name, value), f"file {file}") for name, value in in_file.items()})
    for variable, name in _environment_names(env, fields):
        found[name] = (_parse(fields, name, env[variable], variable), f"environment {variable}")
    for key, value in overrides.items():
        name = find_setting(key, fields)
        found[name] = (_parse(fields, name, value), "flag")


def find_setting(key: str, fields: Fields = FIELDS) -> str:
    """The full name ``group.name`` of ``key``, which may also be ``group_name`` or an unambiguous ``name``."""
    if key in fields:
        return key
    matches = [name for name in fields if key in (name.replace(".", "_"), name.partition(".")[2])]
    if len(matches) == 1:
        return matches[0]
    raise _unknown_setting(key, matches or fields)


def _unknown_setting(key: str, known: Iterable[str]) -> InvalidArgumentError:
    names = list(known)
    near = difflib.get_close_matches(key, names, 3, 0.5) or difflib.get_close_matches(
        key, [name.partition(".")[2] for name in names], 3, 0.5
    )
    mend = f"did you mean {' or '.join(near)}?" if near else "see docs/omendb.example.yaml"
    return InvalidArgumentError("unknown setting", field=str(key), bound="a setting's name", mend=mend)


def _profile_parts(profile: str) -> list[tuple[str, dict[str, Any]]]:
    known = PROFILES | SEARCH_PROFILES
    parts = profile.split("+") if isinstance(profile, str) else [profile]
    for part in parts:
        if part not in known:
            raise InvalidArgumentError(
                f"got {part!r}", field="profile", bound="one of " + ", ".join(known), mend="join two with '+'"
            )
    return [(part, known[part]) for part in parts]


def _cap_memory(found: dict[str, tuple[Any, str]]) -> None:
    """Lower a default memory limit to what this machine can give; a limit set by hand is left alone."""
    limit, source = found["memory.memory_limit_bytes"]
    cap = max(64 * MIB, available_memory_bytes() * 70 // 100)
    if cap < limit:
        found["memory.memory_limit_bytes"] = (cap, f"{source}, lowered to 70 % of this machine's memory")


def available_memory_bytes() -> int:
    """Memory of this machine or of the container the process runs in, whichever is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def _read_yaml(path: str, fields: Fields) -> dict[str, Any]:
    import yaml  # here, because an embedded database without a file should not pay for it

    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except FileNotFoundError:
        raise NotFoundError("no such file", field="config", mend=f"create {path} or leave config out") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InvalidArgumentError(f"cannot read {path}: {reason}", field="config", bound="a YAML file") from None
    known = {name.partition(".")[0] for name in fields}
    flat: dict[str, Any] = {}
    for group, content in _mapping(document, path).items():
        if group == "profile":
            flat["profile"] = content
        elif group in known:
            for leaf, value in _mapping(content, f"{path}: {group}").items():
                name = f"{group}.{leaf}"
                if name not in fields:
                    raise _unknown_setting(name, fields)
                flat[name] = value
        # One file serves a whole cluster: other processes' groups are theirs to check.
        elif group not in GROUPS and group not in OTHER_GROUPS:
            raise _unknown_setting(str(group), [*GROUPS, *OTHER_GROUPS])
    return flat


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgumentError(
            f"{where} holds a {type(value).__name__}", field="config", bound="a mapping of names"
        )
    return value


# Kubernetes puts OMENDB_STORAGE_SERVICE_HOST and its like into every pod beside a service of that name.
_KUBERNETES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\d+_\w+)\Z")


def _environment_names(env: Mapping[str, str], fields: Fields) -> list[tuple[str, str]]:
    """The variables that name a setting; one that names a group but no setting of it is refused."""
    groups = {name.partition(".")[0] for name in fields}
    pairs = []
    for variable in sorted(env):
        group, _, leaf = variable.removeprefix("OMENDB_").lower().partition("_")
        if not variable.startswith("OMENDB_") or group not in groups or _KUBERNETES.search(variable):
            continue
        name = f"{group}.{leaf}"
        if name not in fields:
            raise _unknown_setting(variable, [f"OMENDB_{n.replace('.', '_').upper()}" for n in fields])
        pairs.append((variable, name))
    return pairs


_BYTES = re.compile(r"(\d+)\s*(KiB|MiB|GiB|B)?\Z", re.IGNORECASE)
_UNITS = {"b": 1, "kib": KIB, "mib": MIB, "gib": GIB}
_TRUTH = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def _parse(fields: Fields, name: str, value: Any, called: str | None = None) -> Any:
    """A value as written by a person (``"64MiB"``, ``"true"``, ``"0.9"``) as the setting's type, within its bound.

    ``called``: the name that an error gives it, when it was not written under its own.
    """
    field = fields[name]
    if isinstance(value, str) and not isinstance(field.default, str):
        value = _parse_text(field.default, value.strip(), "_bytes" in name)
    return check_value(field, value, called or name)


def _parse_text(default: Any, text: str, is_bytes: bool) -> Any:
    """The text as a number or a truth value; the text itself when it is neither, for the check to refuse."""
    if isinstance(default, bool):
        return _TRUTH.get(text.lower(), text)
    size = _BYTES.match(text) if is_bytes or isinstance(default, int) else None
    if size is not None and (is_bytes or size.group(2) is None):
        return int(size.group(1)) * _UNITS[(size.group(2) or "B").lower()]
    try:
        return float(text) if isinstance(default, float) else int(text)
    except ValueError:
        return text


__all__ = [
    "FIELDS",
    "GIB",
    "GROUPS",
    "KIB",
    "MIB",
    "PROFILES",
    "SEARCH_PROFILES",
    "BufferSettings",
    "CompactionSettings",
    "EngineSettings",
    "Fields",
    "Groups",
    "IndexSettings",
    "MemorySettings",
    "Resolved",
    "StorageSettings",
    "WorkerSettings",
    "available_memory_bytes",
    "bound_of",
    "check_value",
    "find_setting",
    "load_groups",
    "load_settings",
    "settings_from",
]

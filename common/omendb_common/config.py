"""Every setting of an embedded database, with its unit, bound and reason.

Settings are grouped in frozen dataclasses; a setting's unit is the last word of its name. A value is
looked up in this order, the later winning: default, profile, YAML file, environment (``OMENDB_…``), flag.
A setting is called ``group.name`` in YAML and flags and ``OMENDB_GROUP_NAME`` in the environment;
``docs/omendb.example.yaml`` is the manual, written from the same definitions.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from omendb_common.errors import InvalidArgumentError, NotFoundError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def _setting(
    default: Any,
    reason: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that carries its bound and its reason."""
    metadata = {"reason": reason, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def bound_of(field: dataclasses.Field[Any]) -> str:
    """The bound of one setting in words, as error messages and the manual print it."""
    if field.metadata["choices"]:
        return "one of " + ", ".join(field.metadata["choices"])
    if isinstance(field.default, bool):
        return "true or false"
    kind = "a number" if isinstance(field.default, float) else "an integer"
    return f"{kind} in {field.metadata['low']}..{field.metadata['high']}"


@dataclass(frozen=True, slots=True)
class _Group:
    """Checks every setting against its bound when a group is built, whatever built it."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), field.name)


def check_value(field: dataclasses.Field[Any], value: Any, name: str) -> Any:
    """``value`` as the setting's type, or InvalidArgumentError naming ``name`` and the bound."""
    kind = type(field.default)
    low, high, choices = field.metadata["low"], field.metadata["high"], field.metadata["choices"]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits and choices:
        fits = value in choices
    elif fits and low is not None and high is not None:
        fits = low <= value <= high  # False for NaN, as it should be
    if not fits:
        raise InvalidArgumentError(
            f"got {value!r}", field=name, bound=bound_of(field), mend="see docs/omendb.example.yaml"
        )
    return value


@dataclass(frozen=True, slots=True)
class StorageSettings(_Group):
    """What reaches the disk, and when."""

    durability: str = _setting(
        "fsync",
        "fsync: on stable storage before the acknowledgement; interval: synced every interval_ms, a power cut "
        "loses at most that; os: left to the operating system, a power cut loses what it had not written back",
        choices=("fsync", "interval", "os"),
    )
    interval_ms: int = _setting(
        100, "longest a write stays unsynced with durability interval", low=1, high=60_000
    )
    wal_segment_bytes: int = _setting(
        64 * MIB,
        "size at which a log file is rotated; files start at 1 MiB and double up to it",
        low=64 * KIB,
        high=4 * GIB,
    )
    wal_group_bytes: int = _setting(
        4 * MIB, "most bytes of waiting writes put into one group commit", low=4096, high=GIB
    )
    disk_high_percent: int = _setting(
        90, "above this use of the volume upserts are refused and compaction stops growing", low=1, high=100
    )
    disk_full_percent: int = _setting(
        95, "above this use of the volume only deletes and reads work", low=1, high=100
    )
    ballast_bytes: int = _setting(
        8 * MIB,
        "space kept in reserve so that deletes and compaction still work on a full volume",
        low=0,
        high=64 * GIB,
    )
    verify_on_open: bool = _setting(
        True,
        "check sizes, manifests and keys when a folder is opened; vectors are checked at first use either way",
    )
    manifest_generations: int = _setting(
        3, "manifests kept to fall back to, with the log they need", low=1, high=100
    )
    no_mmap: bool = _setting(
        False,
        "read files instead of mapping them: on failing disks a mapping kills the process, a read raises",
    )


@dataclass(frozen=True, slots=True)
class BufferSettings(_Group):
    """The growing buffer: points not in a segment yet, searched exactly."""

    buffer_rows_max: int = _setting(
        50_000, "rows after which the buffer is sealed; every search scans them all", low=1, high=10_000_000
    )
    buffer_bytes_max: int = _setting(
        64 * MIB,
        "bytes after which the buffer is sealed, so that wide vectors do not fill memory",
        low=64 * KIB,
        high=64 * GIB,
    )


@dataclass(frozen=True, slots=True)
class IndexSettings(_Group):
    """Which index a segment gets, and how hard a search tries."""

    kind: str = _setting(
        "auto",
        "auto: flat up to flat_rows_max rows, hnsw above; a collection may say otherwise",
        choices=("auto", "flat", "hnsw"),
    )
    flat_rows_max: int = _setting(
        10_000, "up to here an exact scan is faster than any graph", low=0, high=100_000_000
    )
    hnsw_m: int = _setting(16, "links per node; more means better recall and a bigger index", low=2, high=256)
    hnsw_ef_construction: int = _setting(
        128, "candidates looked at per insertion into the graph", low=8, high=4096
    )
    index_delay_s: float = _setting(
        1.0,
        "how long a new segment waits for its index, so that a merge soon after wastes no build",
        low=0.0,
        high=86_400.0,
    )
    build_threads: int = _setting(0, "threads of one index build; 0 means all cores", low=0, high=1024)
    recall_target: float = _setting(
        0.95,
        "share of the true nearest neighbours a search shall find; picks its effort per segment",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True, slots=True)
class CompactionSettings(_Group):
    """When segments are merged and cleaned."""

    segment_rows_max: int = _setting(
        1_000_000,
        "largest segment a merge makes; bounds the time and space of one compaction",
        low=1000,
        high=100_000_000,
    )
    merge_fanin: int = _setting(4, "segments of about one size that are merged into one", low=2, high=64)
    purge_dead_percent: int = _setting(
        20, "share of deleted or superseded rows from which a segment is rewritten", low=1, high=100
    )
    interval_s: float = _setting(1.0, "how often the compactor looks for work", low=0.01, high=86_400.0)


@dataclass(frozen=True, slots=True)
class MemorySettings(_Group):
    """The memory budget; writes are refused before it is broken."""

    memory_limit_bytes: int = _setting(
        4 * GIB,
        "most memory the engine reserves; a default is lowered to 70 % of what the machine or container has",
        low=64 * MIB,
        high=1 << 50,
    )
    headroom_percent: int = _setting(
        30, "share of the limit kept free: above 100 minus this the buffer is sealed early", low=0, high=90
    )
    column_cache_bytes: int = _setting(
        256 * MIB, "decoded payload columns and their sorted indexes kept for filters", low=0, high=1 << 50
    )
    filter_cache_bytes: int = _setting(64 * MIB, "results of filters kept per segment", low=0, high=1 << 50)


@dataclass(frozen=True, slots=True)
class WorkerSettings(_Group):
    """Work behind the writes."""

    background_threads: int = _setting(
        2,
        "threads that seal, index and compact; 0 means no threads, the work is done when asked for",
        low=0,
        high=64,
    )


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """All settings of one database."""

    storage: StorageSettings = StorageSettings()
    buffer: BufferSettings = BufferSettings()
    index: IndexSettings = IndexSettings()
    compaction: CompactionSettings = CompactionSettings()
    memory: MemorySettings = MemorySettings()
    workers: WorkerSettings = WorkerSettings()

    def __post_init__(self) -> None:
        if self.storage.disk_high_percent > self.storage.disk_full_percent:
            raise InvalidArgumentError(
                f"got {self.storage.disk_high_percent}",
                field="storage.disk_high_percent",
                bound=f"at most storage.disk_full_percent = {self.storage.disk_full_percent}",
                mend="lower the first or raise the second",
            )


GROUPS: dict[str, type[_Group]] = {
    "storage": StorageSettings,
    "buffer": BufferSettings,
    "index": IndexSettings,
    "compaction": CompactionSettings,
    "memory": MemorySettings,
    "workers": WorkerSettings,
}

FIELDS: dict[str, dataclasses.Field[Any]] = {
    f"{group}.{field.name}": field for group, kind in GROUPS.items() for field in dataclasses.fields(kind)
}

# What a profile changes; everything else keeps its default.
PROFILES: dict[str, dict[str, Any]] = {
    "developer": {},
    "production": {
        "storage.ballast_bytes": 256 * MIB,
        "memory.memory_limit_bytes": 16 * GIB,
        "memory.column_cache_bytes": GIB,
        "memory.filter_cache_bytes": 256 * MIB,
        "workers.background_threads": 4,
    },
    # A network volume syncs slower and a container's memory is smaller than its host's.
    "cloud": {
        "storage.wal_group_bytes": 8 * MIB,
        "storage.ballast_bytes": 512 * MIB,
        "memory.memory_limit_bytes": 8 * GIB,
        "memory.column_cache_bytes": 512 * MIB,
        "memory.filter_cache_bytes": 128 * MIB,
    },
}

SEARCH_PROFILES: dict[str, dict[str, Any]] = {
    "speed": {"index.recall_target": 0.90},
    "balanced": {"index.recall_target": 0.95},
    "quality": {"index.recall_target": 0.99, "index.hnsw_m": 32, "index.hnsw_ef_construction": 200},
}


def settings_from(values: dict[str, Any]) -> EngineSettings:
    """Build the settings from ``{"group.name": value}``; what is missing keeps its default."""
    grouped: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name, value in values.items():
        group, _, leaf = name.partition(".")
        grouped[group][leaf] = check_value(FIELDS[name], value, name)
    built: dict[str, Any] = {group: kind(**grouped[group]) for group, kind in GROUPS.items()}
    return EngineSettings(**built)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings in force, and for every ``group.name`` its value and where it came from."""

    settings: EngineSettings
    provenance: dict[str, tuple[Any, str]]


def load_settings(
    profile: str | None = None,
    file: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Resolved:
    """Work out the settings: defaults < profile < YAML file < environment < overrides.

    Args:
        profile: ``developer``, ``production`` or ``cloud``, a search profile (``speed``, ``balanced``,
            ``quality``), or both joined by ``+``; else ``OMENDB_PROFILE``, else the file's ``profile``.
        file: a YAML file; else ``OMENDB_CONFIG``.
        env: the environment; the process's own when None.
        overrides: ``group.name``, ``group_name`` or a name that only one group has, to a value.

    Raises:
        InvalidArgumentError: an unknown setting or a value outside its bound, with a mend.
        NotFoundError: ``file`` does not exist.
    """
    env = os.environ if env is None else env
    file = file if file is not None else env.get("OMENDB_CONFIG") or None
    from_file = _read_yaml(os.fspath(file)) if file is not None else {}
    in_file = from_file.pop("profile", None)
    profile = profile or env.get("OMENDB_PROFILE") or in_file or "developer"
    found: dict[str, tuple[Any, str]] = {name: (field.default, "default") for name, field in FIELDS.items()}
    for part, values in _profile_parts(profile):
        found.update({name: (value, f"profile {part}") for name, value in values.items()})
    _cap_memory(found)
    found.update({name: (_parse(name, value), f"file {file}") for name, value in from_file.items()})
    for variable, name in _environment_names(env):
        found[name] = (_parse(name, env[variable]), f"environment {variable}")
    for key, value in (overrides or {}).items():
        name = find_setting(key)
        found[name] = (_parse(name, value), "flag")
    return Resolved(settings_from({name: value for name, (value, _) in found.items()}), found)


def find_setting(key: str) -> str:
    """The full name ``group.name`` of ``key``, which may also be ``group_name`` or an unambiguous ``name``."""
    if key in FIELDS:
        return key
    matches = [name for name in FIELDS if key in (name.replace(".", "_"), name.partition(".")[2])]
    if len(matches) == 1:
        return matches[0]
    raise _unknown_setting(key, matches or FIELDS)


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


def _read_yaml(path: str) -> dict[str, Any]:
    import yaml  # here, because an embedded database without a file should not pay for it

    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except FileNotFoundError:
        raise NotFoundError(
            "no such file", field="config", mend=f"create {path} or leave config out"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InvalidArgumentError(
            f"cannot read {path}: {reason}", field="config", bound="a YAML file"
        ) from None
    flat: dict[str, Any] = {}
    for group, content in _mapping(document, path).items():
        if group == "profile":
            flat["profile"] = content
        elif group not in GROUPS:
            raise _unknown_setting(str(group), GROUPS)
        else:
            for leaf, value in _mapping(content, f"{path}: {group}").items():
                name = f"{group}.{leaf}"
                if name not in FIELDS:
                    raise _unknown_setting(name, FIELDS)
                flat[name] = value
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


def _environment_names(env: Mapping[str, str]) -> list[tuple[str, str]]:
    """The variables that name a setting; one that names a group but no setting of it is refused."""
    pairs = []
    for variable in sorted(env):
        group, _, leaf = variable.removeprefix("OMENDB_").lower().partition("_")
        if not variable.startswith("OMENDB_") or group not in GROUPS or _KUBERNETES.search(variable):
            continue
        name = f"{group}.{leaf}"
        if name not in FIELDS:
            raise _unknown_setting(variable, [f"OMENDB_{n.replace('.', '_').upper()}" for n in FIELDS])
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


def _parse(name: str, value: Any) -> Any:
    """A value as written by a person (``"64MiB"``, ``"true"``, ``"0.9"``) as the setting's type, within its bound."""
    field = FIELDS[name]
    if isinstance(value, str) and not isinstance(field.default, str):
        value = _parse_text(field.default, value.strip(), name.endswith("_bytes"))
    return check_value(field, value, name)


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
    "GROUPS",
    "PROFILES",
    "SEARCH_PROFILES",
    "BufferSettings",
    "CompactionSettings",
    "EngineSettings",
    "IndexSettings",
    "MemorySettings",
    "Resolved",
    "StorageSettings",
    "WorkerSettings",
    "available_memory_bytes",
    "bound_of",
    "check_value",
    "find_setting",
    "load_settings",
    "settings_from",
]

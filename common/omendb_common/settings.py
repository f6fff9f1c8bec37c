"""Every setting of an embedded database, with its unit, bound and reason.

Those of the processes of a cluster are declared the same way, each beside what reads it (:data:`OTHER_GROUPS`).

Settings are grouped in frozen dataclasses; a setting's unit is the last word of its name, and its bound and
its reason are in its field's metadata. :mod:`omendb_common.config` says where values come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omendb_common.errors import InvalidArgumentError
from omendb_common.index_options import INDEX_KINDS, NLIST_MAX, QUANTIZATION_CHOICES, check_choice

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def setting(
    default: Any,
    reason: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    told: bool = True,
) -> Any:
    """A dataclass field that carries its bound and its reason; ``told`` False: not for people to set."""
    metadata = {"reason": reason, "low": low, "high": high, "choices": choices, "told": told}
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

    durability: str = setting(
        "fsync",
        "fsync: on stable storage before the acknowledgement; interval: synced every interval_ms, a power cut "
        "loses at most that; os: left to the operating system, a power cut loses what it had not written back",
        choices=("fsync", "interval", "os"),
    )
    interval_ms: int = setting(100, "longest a write stays unsynced with durability interval", low=1, high=60_000)
    wal_segment_bytes: int = setting(
        64 * MIB,
        "size at which a log file is rotated; files start at 1 MiB and double up to it",
        low=64 * KIB,
        high=4 * GIB,
    )
    wal_group_bytes: int = setting(
        4 * MIB, "most bytes of waiting writes put into one group commit", low=4096, high=GIB
    )
    disk_high_percent: int = setting(
        90, "above this use of the volume upserts are refused and compaction stops growing", low=1, high=100
    )
    disk_full_percent: int = setting(95, "above this use of the volume only deletes and reads work", low=1, high=100)
    ballast_bytes: int = setting(
        8 * MIB,
        "space kept in reserve so that deletes and compaction still work on a full volume",
        low=0,
        high=64 * GIB,
    )
    verify_on_open: bool = setting(
        True,
        "check sizes, manifests and keys when a folder is opened; vectors are checked at first use either way",
    )
    manifest_generations: int = setting(3, "manifests kept to fall back to, with the log they need", low=1, high=100)
    no_mmap: bool = setting(
        False,
        "read files instead of mapping them: on failing disks a mapping kills the process, a read raises",
    )


@dataclass(frozen=True, slots=True)
class BufferSettings(_Group):
    """The growing buffer: points not in a segment yet, searched exactly."""

    buffer_rows_max: int = setting(
        50_000, "rows after which the buffer is sealed; every search scans them all", low=1, high=10_000_000
    )
    buffer_bytes_max: int = setting(
        64 * MIB,
        "bytes after which the buffer is sealed, so that wide vectors do not fill memory",
        low=64 * KIB,
        high=64 * GIB,
    )


@dataclass(frozen=True, slots=True)
class IndexSettings(_Group):
    """Which index a segment gets, and how hard a search tries."""

    kind: str = setting(
        "auto",
        "auto: flat up to flat_rows_max rows, hnsw above, or ivf where quantization is product or binary; a collection"
        " may say otherwise",
        choices=INDEX_KINDS,
    )
    quantization: str = setting(
        "auto",
        "what an index compares in place of the stored rows, which have the last word: none, float16, scalar8 (a byte"
        " an element), or for ivf product (half a byte for 4 elements) or binary (a bit an element); auto: none for"
        " hnsw, binary for ivf; a collection may say otherwise",
        choices=QUANTIZATION_CHOICES,
    )
    nlist: int = setting(
        0,
        "lists of an ivf index, for at least 8 rows each; 0: four times the square root of the rows, fewer where their"
        " centroids would take more than 32 bytes a row",
        low=0,
        high=NLIST_MAX,
    )
    flat_rows_max: int = setting(
        10_000,
        "segments up to this many rows are scanned exactly, which is faster there than any graph",
        low=0,
        high=100_000_000,
    )
    hnsw_m: int = setting(16, "links per node; more means better recall and a bigger index", low=4, high=128)
    hnsw_ef_construction: int = setting(128, "candidates looked at per insertion into the graph", low=8, high=4096)
    index_delay_s: float = setting(
        1.0,
        "how long a new segment waits for its index, so that a merge soon after wastes no build",
        low=0.0,
        high=86_400.0,
    )
    build_threads: int = setting(0, "threads of one index build; 0 means all cores", low=0, high=1024)
    recall_target: float = setting(
        0.95,
        "share of the true nearest neighbours a search shall find; picks its effort per segment",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True, slots=True)
class CompactionSettings(_Group):
    """When segments are merged and cleaned."""

    segment_rows_max: int = setting(
        1_000_000,
        "largest segment a merge makes; bounds the time and space of one compaction",
        low=1000,
        high=100_000_000,
    )
    merge_fanin: int = setting(4, "segments of about one size that are merged into one", low=2, high=64)
    purge_dead_percent: int = setting(
        20, "share of deleted or superseded rows from which a segment is rewritten", low=1, high=100
    )
    interval_s: float = setting(1.0, "how often the compactor looks for work", low=0.01, high=86_400.0)


@dataclass(frozen=True, slots=True)
class MemorySettings(_Group):
    """The memory budget; writes are refused before it is broken."""

    memory_limit_bytes: int = setting(
        4 * GIB,
        "most memory the engine reserves; a default is lowered to 70 % of what the machine or container has",
        low=64 * MIB,
        high=1 << 50,
    )
    headroom_percent: int = setting(
        30, "share of the limit kept free: above 100 minus this the buffer is sealed early", low=0, high=90
    )
    column_cache_bytes: int = setting(
        256 * MIB, "decoded payload columns and their sorted indexes kept for filters", low=0, high=1 << 50
    )
    filter_cache_bytes: int = setting(
        64 * MIB,
        "results of filters kept per segment, and copies of the vectors that often-used ones let pass",
        low=0,
        high=1 << 50,
    )


@dataclass(frozen=True, slots=True)
class WorkerSettings(_Group):
    """Work behind the writes."""

    background_threads: int = setting(
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
        check_choice(self.index.kind, self.index.quantization, "index.quantization")


GROUPS: dict[str, type[_Group]] = {
    "storage": StorageSettings,
    "buffer": BufferSettings,
    "index": IndexSettings,
    "compaction": CompactionSettings,
    "memory": MemorySettings,
    "workers": WorkerSettings,
}

# Groups of the same file and the same environment that other processes read; each process refuses what is wrong in its
# own groups and passes over those of the others.
OTHER_GROUPS = ("frames", "faces", "router", "datanode", "repair", "coordinator")


def fields_of(groups: Mapping[str, type[Any]]) -> dict[str, dataclasses.Field[Any]]:
    """The settings of groups that people may set, by ``group.name``."""
    return {
        f"{group}.{field.name}": field
        for group, kind in groups.items()
        for field in dataclasses.fields(kind)
        if field.metadata.get("told")
    }


FIELDS: dict[str, dataclasses.Field[Any]] = fields_of(GROUPS)

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


__all__ = [
    "FIELDS",
    "GIB",
    "GROUPS",
    "KIB",
    "MIB",
    "OTHER_GROUPS",
    "PROFILES",
    "SEARCH_PROFILES",
    "BufferSettings",
    "CompactionSettings",
    "EngineSettings",
    "IndexSettings",
    "MemorySettings",
    "StorageSettings",
    "WorkerSettings",
    "bound_of",
    "check_value",
    "fields_of",
    "setting",
    "settings_from",
]

"""Settings: where a value comes from, what is refused, and that the sample file is the manual."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from omendb.cli.config import ALL_GROUPS, PROCESS_GROUPS
from omendb_common.config import (
    FIELDS,
    GIB,
    MIB,
    PROFILES,
    SEARCH_PROFILES,
    EngineSettings,
    IndexSettings,
    StorageSettings,
    available_memory_bytes,
    find_setting,
    load_groups,
    load_settings,
)
from omendb_common.config_manual import example_yaml
from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.settings import OTHER_GROUPS, fields_of, setting

ROOT = Path(__file__).parents[3]


def test_defaults_are_those_of_the_dataclasses() -> None:
    resolved = load_settings(env={})
    expected = EngineSettings()
    assert resolved.settings.storage == expected.storage
    assert resolved.settings.index == expected.index
    assert set(resolved.provenance) == set(FIELDS)
    assert resolved.provenance["storage.durability"] == ("fsync", "default")


def test_default_memory_limit_leaves_the_machine_its_share() -> None:
    limit = load_settings(profile="production", env={}).settings.memory.memory_limit_bytes
    assert limit <= max(64 * MIB, available_memory_bytes() * 70 // 100)
    set_by_hand = load_settings(env={}, overrides={"memory.memory_limit_bytes": 512 * GIB})
    assert set_by_hand.settings.memory.memory_limit_bytes == 512 * GIB


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "omendb.yaml"
    file.write_text("profile: quality\nindex:\n  hnsw_ef_construction: 300\n  recall_target: 0.9\n  hnsw_m: 24\n")
    resolved = load_settings(
        file=file,
        env={"OMENDB_INDEX_RECALL_TARGET": "0.8", "OMENDB_INDEX_HNSW_M": "20"},
        overrides={"hnsw_m": 12},
    )
    found = resolved.provenance
    assert found["index.hnsw_ef_construction"] == (300, f"file {file}")
    assert found["index.recall_target"] == (0.8, "environment OMENDB_INDEX_RECALL_TARGET")
    assert found["index.hnsw_m"] == (12, "flag")
    assert resolved.settings.index.hnsw_m == 12
    assert load_settings(env={"OMENDB_CONFIG": str(file)}).settings.index.hnsw_ef_construction == 300


@pytest.mark.parametrize("profile", [*PROFILES, *SEARCH_PROFILES, "production+quality"])
def test_every_profile_loads(profile: str) -> None:
    resolved = load_settings(profile=profile, env={})
    last = profile.split("+")[-1]
    for name in (PROFILES | SEARCH_PROFILES)[last]:
        if name != "memory.memory_limit_bytes":
            assert resolved.provenance[name][1] == f"profile {last}"


def test_profile_argument_beats_environment() -> None:
    resolved = load_settings(profile="speed", env={"OMENDB_PROFILE": "quality"})
    assert resolved.settings.index.recall_target == 0.90


@pytest.mark.parametrize("key", ["storage.durability", "storage_durability", "durability"])
def test_a_setting_may_be_named_short(key: str) -> None:
    assert find_setting(key) == "storage.durability"


def test_an_ambiguous_short_name_does_not_guess() -> None:
    leaves = [name.partition(".")[2] for name in FIELDS]
    assert len(set(leaves)) == len(leaves), "a new ambiguous leaf: check that find_setting refuses it"


@pytest.mark.parametrize(
    ("overrides", "field", "bound"),
    [
        ({"storage.durability": "maybe"}, "storage.durability", "fsync"),
        ({"hnsw_m": 3}, "index.hnsw_m", "4..128"),
        ({"hnsw_m": 129}, "index.hnsw_m", "4..128"),
        ({"hnsw_m": True}, "index.hnsw_m", "an integer"),
        ({"hnsw_m": 16.5}, "index.hnsw_m", "an integer"),
        ({"hnsw_m": "many"}, "index.hnsw_m", "an integer"),
        ({"hnsw_m": "16MiB"}, "index.hnsw_m", "an integer"),
        ({"recall_target": float("nan")}, "index.recall_target", "0.0..1.0"),
        ({"no_mmap": "perhaps"}, "storage.no_mmap", "true or false"),
        ({"disk_high_percent": 96}, "storage.disk_high_percent", "disk_full_percent"),
        ({"durabilty": "os"}, "durabilty", "did you mean"),
        ({"zzz": 1}, "zzz", "docs/omendb.example.yaml"),
    ],
)
def test_a_bad_override_names_setting_bound_and_mend(overrides: dict[str, Any], field: str, bound: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        load_settings(env={}, overrides=overrides)
    assert caught.value.field == field
    assert bound in str(caught.value)


@pytest.mark.parametrize("profile", ["fast", "production+", ""])
def test_an_unknown_profile_lists_the_known(profile: str) -> None:
    if not profile:
        assert load_settings(profile=profile, env={}).settings == load_settings(env={}).settings
        return
    with pytest.raises(InvalidArgumentError, match="developer, production, cloud, speed, balanced, quality"):
        load_settings(profile=profile, env={})


def test_a_mistyped_environment_variable_is_refused_and_others_are_left_alone() -> None:
    with pytest.raises(InvalidArgumentError, match="OMENDB_STORAGE_DURABILITY"):
        load_settings(env={"OMENDB_STORAGE_DURABLITY": "os"})
    load_settings(env={"OMENDB_URL": "x", "OMENDB_STORAGE_SERVICE_HOST": "10.0.0.1", "OMENDB_INDEX_PORT_80_TCP": "x"})


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("64MiB", 64 * MIB), ("65536", 65536), ("1 GiB", GIB), ("64kib", 65536), ("1_000_000", 1_000_000)],
)
def test_sizes_may_carry_a_unit(text: str, bytes_: int) -> None:
    resolved = load_settings(env={"OMENDB_STORAGE_WAL_SEGMENT_BYTES": text})
    assert resolved.settings.storage.wal_segment_bytes == bytes_


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("storage: [1]", "a mapping"),
        ("- 1", "a mapping"),
        ("stora: {}", "stora"),
        ("storage:\n  durabilty: os", "durability"),
        ("storage: {durability: 3}", "storage.durability"),
        ("a: b: c", "YAML"),
        ("profile: nope", "profile"),
        ("profile: 3", "profile"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, match: str) -> None:
    file = tmp_path / "omendb.yaml"
    file.write_text(text)
    with pytest.raises(InvalidArgumentError, match=match):
        load_settings(file=file, env={})


def test_a_missing_file_is_not_found_and_an_empty_one_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="config"):
        load_settings(file=tmp_path / "none.yaml", env={})
    (tmp_path / "empty.yaml").write_text("")
    assert load_settings(file=tmp_path / "empty.yaml", env={}).settings == load_settings(env={}).settings


def test_groups_check_themselves() -> None:
    with pytest.raises(InvalidArgumentError, match="durability"):
        StorageSettings(durability="never")
    with pytest.raises(InvalidArgumentError, match="hnsw_m"):
        IndexSettings(hnsw_m=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        EngineSettings().index.hnsw_m = 3  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class Beside:
    """A group of some process."""

    pause_s: float = setting(1.0, "how long it pauses between two looks", low=0.1, high=10.0)
    drain_bytes_max: int = setting(1 << 20, "how much is drained at a time", low=1, high=1 << 40)
    interval_ms: int = setting(5, "named as a setting of another group is", low=1, high=10)
    inner: str = setting("a", "not for people", choices=("a", "b"), told=False)


def test_a_process_reads_its_own_groups_from_the_same_sources(tmp_path: Path) -> None:
    file = tmp_path / "omendb.yaml"
    file.write_text("profile: cloud\nrouter: {pause_s: 2, drain_bytes_max: 2MiB}\nstorage: {interval_ms: 7}\n")
    groups = {"router": Beside}
    env = {"OMENDB_ROUTER_PAUSE_S": "3", "OMENDB_ROUTER_PORT": "tcp://10.0.0.1:80", "OMENDB_FACES_NOTHING": "1"}
    assert load_groups(groups, file, {})["router"] == Beside(2.0, 2 * MIB)
    assert load_groups(groups, None, {"OMENDB_CONFIG": str(file)})["router"].pause_s == 2
    assert load_groups(groups, file, env)["router"] == Beside(3.0, 2 * MIB)
    assert load_groups(groups, file, env, {"pause_s": "4", "router.interval_ms": 6})["router"] == Beside(4, 2 * MIB, 6)
    both = load_settings(None, file, env, {"router_pause_s": "4"}, beside=groups)
    assert both.beside["router"] == Beside(4.0, 2 * MIB) and both.settings.storage.interval_ms == 7
    assert both.provenance["router.pause_s"] == (4.0, "flag")
    assert both.provenance["router.drain_bytes_max"] == (2 * MIB, f"file {file}")
    # The same file serves a process that has no such group.
    assert load_settings(None, file, env).settings.storage.interval_ms == 7
    assert load_groups({"datanode": Beside}, file, env)["datanode"] == Beside()


@pytest.mark.parametrize(
    ("text", "env", "overrides", "field"),
    [
        ("router: {pause: 1}", {}, {}, "router.pause"),
        ("router: {inner: b}", {}, {}, "router.inner"),
        ("router: {pause_s: 11}", {}, {}, "router.pause_s"),
        ("routers: {}", {}, {}, "routers"),
        ("", {"OMENDB_ROUTER_PAUSES_S": "1"}, {}, "OMENDB_ROUTER_PAUSES_S"),
        ("", {"OMENDB_ROUTER_PAUSE_S": "0"}, {}, "OMENDB_ROUTER_PAUSE_S"),
        ("", {"OMENDB_ROUTER_INNER": "b"}, {}, "OMENDB_ROUTER_INNER"),
        ("", {}, {"storage.interval_ms": "1"}, "storage.interval_ms"),
        ("", {}, {"pause_s": "x"}, "router.pause_s"),
    ],
)
def test_what_is_wrong_in_a_group_of_a_process_is_named(
    tmp_path: Path, text: str, env: dict[str, str], overrides: dict[str, str], field: str
) -> None:
    file = tmp_path / "omendb.yaml"
    file.write_text(text)
    with pytest.raises(InvalidArgumentError) as caught:
        load_groups({"router": Beside}, file, env, overrides)
    assert caught.value.field == field


def test_a_short_name_that_two_groups_have_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"storage\.interval_ms or router\.interval_ms|router.*storage"):
        load_settings(env={}, overrides={"interval_ms": 3}, beside={"router": Beside})


def test_the_sample_file_is_the_manual() -> None:
    assert (ROOT / "docs" / "omendb.example.yaml").read_text() == example_yaml(ALL_GROUPS)
    assert set(PROCESS_GROUPS) == set(OTHER_GROUPS)


def test_the_sample_file_without_its_hashes_is_the_default_configuration() -> None:
    lines = [line.removeprefix("# ") for line in example_yaml(ALL_GROUPS).splitlines() if line.startswith("# ")]
    start = next(i for i, line in enumerate(lines) if line.startswith("profile:"))
    document = yaml.safe_load(
        "\n".join(line for line in lines[start:] if ":" in line and not line.strip().startswith("#"))
    )
    flat = {f"{group}.{name}": value for group in ALL_GROUPS for name, value in document[group].items()}
    assert flat == {name: field.default for name, field in fields_of(ALL_GROUPS).items()}


def test_every_setting_has_a_reason_and_its_unit_in_its_name() -> None:
    for name, field in fields_of(ALL_GROUPS).items():
        assert len(field.metadata["reason"]) > 15, name
        if isinstance(field.default, str):
            assert field.metadata["choices"], name
        elif not isinstance(field.default, bool):
            assert field.metadata["low"] < field.metadata["high"], name

"""``omendb config``: the settings in force, and the sample file."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from omendb.cli.terminal import AsJson, ConfigFile, Profile, out, print_json, reported, table
from omendb_common.config import GROUPS, load_settings
from omendb_common.config_manual import example_yaml
from omendb_common.errors import InvalidArgumentError
from omendb_common.wire.frames import FrameLimits
from omendb_coordinator.config import CoordinatorSettings
from omendb_datanode.config import DataNodeSettings, RepairSettings
from omendb_router.config import FaceSettings
from omendb_router.settings import RouterSettings

# In the order in which the manual has them.
PROCESS_GROUPS: dict[str, type[Any]] = {
    "faces": FaceSettings,
    "router": RouterSettings,
    "frames": FrameLimits,
    "datanode": DataNodeSettings,
    "repair": RepairSettings,
    "coordinator": CoordinatorSettings,
}
ALL_GROUPS = {**GROUPS, **PROCESS_GROUPS}

app = typer.Typer(no_args_is_help=True, help="Settings: what is in force, and the manual.", rich_markup_mode=None)

Overrides = Annotated[list[str] | None, typer.Option("--set", help="A setting as name=value; repeat for more.")]


@app.command("show")
@reported
def show(profile: Profile = None, config: ConfigFile = None, set_: Overrides = None, json: AsJson = False) -> None:
    """Print every setting, its value, and where the value came from."""
    overrides = {}
    for pair in set_ or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InvalidArgumentError(f"got {pair!r}", field="--set", bound="name=value")
        overrides[name] = value
    provenance = load_settings(profile, config, None, overrides, beside=PROCESS_GROUPS).provenance
    if json:
        print_json({name: {"value": value, "source": source} for name, (value, source) in provenance.items()})
        return
    rows = table("setting", "value", "source")
    for name, (value, source) in provenance.items():
        rows.add_row(name, str(value).lower() if isinstance(value, bool) else str(value), source)
    out.print(rows)


@app.command("example")
@reported
def example() -> None:
    """Print the sample file: every setting with its bound, its reason and its default."""
    typer.echo(example_yaml(ALL_GROUPS), nl=False)


__all__ = ["ALL_GROUPS", "PROCESS_GROUPS", "app", "example", "show"]

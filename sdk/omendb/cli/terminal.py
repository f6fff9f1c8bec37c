"""What commands print, how they fail, and the arguments they share.

Exit codes: 0 done · 1 a check, a demo or a repair found a fault · 2 bad arguments or input · 3 nothing there ·
4 exists already · 5 opened for reading only · 6 locked by another process, or failed · 7 out of memory or
disk · 8 damage on disk · 130 interrupted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import omendb
from omendb.opening import Mode
from omendb_common.errors import InvalidArgumentError, OmenDBError

FAULT = 1
_EXIT_CODES = {
    "INVALID_ARGUMENT": 2,
    "NOT_FOUND": 3,
    "ALREADY_EXISTS": 4,
    "PERMISSION_DENIED": 5,
    "UNAVAILABLE": 6,
    "DEADLINE_EXCEEDED": 6,
    "RESOURCE_EXHAUSTED": 7,
    "DATA_LOSS": 8,
}

P = ParamSpec("P")
R = TypeVar("R")

# What several commands take.
DatabasePath = Annotated[Path, typer.Argument(metavar="PATH", help="The database's folder.", show_default=False)]
Place = Annotated[
    str | None,
    typer.Argument(metavar="PLACE", help="A database folder, or the URL of a server or router.", show_default=False),
]
Url = Annotated[str | None, typer.Option("--url", help="The URL of a server or router, instead of PLACE.")]
CollectionName = Annotated[str, typer.Option("--collection", "-c", help="Which collection.")]
FilterJson = Annotated[str | None, typer.Option("--filter", help='Conditions as JSON: \'{"price": {"$lte": 10}}\'.')]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Profile = Annotated[str | None, typer.Option("--profile", help="A settings profile; join two with +.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A YAML file of settings.")]
Durability = Annotated[str | None, typer.Option("--durability", help="fsync, interval or os.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Tell a command's errors in one line and end with the exit code that goes with them."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except OmenDBError as error:
            fail(str(error), _EXIT_CODES.get(error.code, FAULT))
        except FileNotFoundError as error:
            fail(f"{error.filename}: no such file", _EXIT_CODES["NOT_FOUND"])
        except OSError as error:
            fail(f"{error.filename or command.__name__}: {error.strerror or error}", _EXIT_CODES["INVALID_ARGUMENT"])
        except KeyboardInterrupt:
            fail("interrupted", 130)

    return run


def fail(message: str, code: int) -> NoReturn:
    """Print one line to standard error and exit."""
    err.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
    raise typer.Exit(code)


def escape(text: str) -> str:
    """``text`` without the meaning its square brackets would have."""
    return text.replace("[", "\\[")


def open_place(place: str | None, url: str | None = None, *, mode: Mode = "r", **settings: Any) -> omendb.Database:
    """Open the database in a folder or behind a URL; ``settings`` are for a folder.

    Raises:
        InvalidArgumentError: no place, two, or settings for a database that has its own.
    """
    if (place is None) == (url is None):
        raise InvalidArgumentError("got none or two", field="PLACE, --url", bound="a folder or a URL")
    if url is None and "://" not in str(place):
        return omendb.open(str(place), mode=mode, **settings)
    given = [name for name, value in settings.items() if value is not None]
    if given:
        raise InvalidArgumentError("a server has its own", field=f"--{given[0]}", bound="a folder", mend="leave it out")
    return omendb.Client(url or str(place))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, default=json_value, ensure_ascii=False))


def json_value(value: Any) -> Any:
    """How a value JSON does not know is written."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def parse_json(text: str, option: str) -> Any:
    """``text`` as JSON; InvalidArgumentError naming the option."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidArgumentError(f"not JSON: {error}", field=option, bound="JSON text") from None


def parse_filter_option(text: str | None) -> Any:
    """The ``--filter`` option as a filter, or None."""
    return None if text is None else parse_json(text, "--filter")


def table(*columns: str, title: str | None = None) -> Table:
    """A table whose columns after the first are right-aligned."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return made


def progress(quiet: bool = False) -> Progress:
    """A progress bar on standard error, if that is a terminal; standard output stays clean."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=quiet or not err.is_terminal,
    )


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


__all__ = [
    "FAULT",
    "AsJson",
    "CollectionName",
    "ConfigFile",
    "DatabasePath",
    "Durability",
    "FilterJson",
    "Place",
    "Profile",
    "Url",
    "err",
    "escape",
    "fail",
    "json_value",
    "open_place",
    "out",
    "parse_filter_option",
    "parse_json",
    "print_json",
    "progress",
    "reported",
    "size",
    "table",
]

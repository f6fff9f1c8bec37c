"""The ``omendb`` command: which subcommands there are."""

from __future__ import annotations

import typer

import omendb
from omendb.cli import cluster, collections, config, demo, export, imports, processes, scrub, search, stats, verify

app = typer.Typer(
    name="omendb",
    help="OmenDB: a vector database that starts as a folder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 a fault was found, 2 bad arguments, 3 nothing there, 4 exists already, "
    "5 read-only, 6 locked or failed, 7 out of memory or disk, 8 damage on disk, 130 interrupted.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"omendb {omendb.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """OmenDB: a vector database that starts as a folder."""


app.command("demo")(demo.demo)
app.command("import")(imports.import_file)
app.command("export")(export.export_file)
app.command("search")(search.search)
app.command("stats")(stats.stats)
app.command("check")(verify.check)
app.command("repair")(verify.repair)
app.command("scrub")(scrub.scrub)
app.add_typer(collections.app, name="collections")
app.add_typer(cluster.app, name="cluster")
for process in (processes.serve, processes.coordinator, processes.router, processes.datanode):
    app.command(process.__name__, context_settings=processes.FLAGS)(process)
app.add_typer(config.app, name="config")


def main() -> None:
    """Run the command line."""
    app()


__all__ = ["app", "main"]


if __name__ == "__main__":
    main()

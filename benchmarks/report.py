"""Write what a comparison found: results.json, report.md and the plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import cells, plots
from benchmarks.benchset import SELECTIVITIES
from benchmarks.measure import MIB
from benchmarks.passes import RECALL_WANTED

REFERENCE = "omendb"
REFERENCE_MODE = "fsync"


def write(outcome: dict[str, Any], folder: Path) -> str:
    """Write the report into `folder` and give its Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    pictures = plots.draw(outcome, folder)
    text = markdown(outcome, pictures)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def markdown(outcome: dict[str, Any], pictures: Sequence[str] = ()) -> str:
    """Give the whole report."""
    told, machine, settings = outcome["set"], outcome["machine"], outcome["settings"]
    lines = [
        f"# {told['name']}: {told['rows']:,} rows, {told['dimension']} dimensions, {told['metric']}",
        "",
        f"{outcome['day']} · {machine['cores']} cores ({machine['processor']}, {', '.join(machine['simd'])}), "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}. "
        f"Medians of {settings['repeats']} repeats; k = 10; one caller; {settings['queries']} queries. "
        "Each database ran in a process of its own. Ratios are to OmenDB.",
        "",
        *_ingest_section(outcome),
        *_search_section(outcome["databases"]),
        *_filter_section(outcome["databases"]),
        *_footprint_section(outcome["databases"]),
        *_trouble_section(outcome),
        *[f"![{name}]({name})" for name in pictures],
    ]
    return "\n".join(lines) + "\n"


def _ingest_section(outcome: dict[str, Any]) -> list[str]:
    lines = ["## Ingest", ""]
    lines.append(
        "Ids and two payload columns. Rows/s count from NumPy arrays to the acknowledgement; in brackets the write "
        "call alone, without turning the arrays into what the database takes. A run stops after "
        f"{_budget(outcome)} s. Sync calls per batch were counted with strace. *Ratio* compares with OmenDB "
        "(fsync) at the same batch. Every process first writes a few rows to a throwaway database, so that "
        "what loads on first use does not count."
    )
    for batch in outcome["settings"]["batches"]:
        rows = [row for row in outcome["ingest"] if row["batch"] == batch]
        reference = next(
            (row["rows_per_s"] for row in rows if (row["peer"], row["mode"]) == (REFERENCE, REFERENCE_MODE)), None
        )
        ordered = sorted(rows, key=lambda row: -(row["rows_per_s"] or 0))
        lines += ["", f"### Batches of {batch:,}", ""]
        lines += cells.table(
            (
                "database",
                "acknowledged means",
                "sync calls / batch",
                "rows/s (call alone)",
                "ratio",
                "p50 / p99 ms",
                "searchable ms",
            ),
            [
                (
                    f"{row['peer']}, {row['mode']}",
                    row["meaning"],
                    "1" if row["peer"] == "bare loop" else cells.number(row["syncs_per_batch"], "{:.1f}"),
                    _rate(row),
                    cells.ratio(row["rows_per_s"], reference),
                    f"{cells.number(row.get('p50_ms'), '{:.1f}')} / {cells.number(row.get('p99_ms'), '{:.1f}')}",
                    cells.number(row.get("searchable_s"), "{:.1f}", 1000),
                )
                for row in ordered
            ],
        )
    return [*lines, ""]


def _budget(outcome: dict[str, Any]) -> str:
    """Give the length at which an ingest run is cut, as a number without needless digits."""
    return f"{outcome['settings']['ingest_budget_s']:g}"


def _rate(row: dict[str, Any]) -> str:
    if row["rows_per_s"] is None:
        return f"failed: {row['failed']}"
    cut = "" if row["whole"] else f" (first {row['rows']:,})"
    return f"{row['rows_per_s']:,.0f} ({row['rows_per_s_call']:,.0f}){cut}"


def _search_section(databases: dict[str, Any]) -> list[str]:
    best = cells.value(databases.get(REFERENCE, {}), "search", "at_recall", "p50_ms")

    def row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
        at = cells.value(found, "search", "at_recall")
        curve = cells.value(found, "search", "curve") or []
        shown = at or (max(curve, key=lambda point: float(point["recall"])) if curve else None)
        return (
            f"{name} {found.get('version', '')}",
            found.get("index_note", cells.NONE),
            cells.number(cells.value(found, "index", "seconds"), "{:.1f}")
            + f" ({cells.number(cells.value(found, 'index', 'cpu_s'), '{:.1f}')})",
            f"{found['effort_name']} {shown['effort']}" if shown else cells.NONE,
            cells.number(shown and shown["recall"], "{:.3f}"),
            cells.number(shown and shown["p50_ms"], "{:.3f}"),
            cells.number(shown and shown["p99_ms"], "{:.3f}"),
            cells.number(shown and shown["qps"], "{:,.0f}"),
            cells.ratio(shown and shown["p50_ms"], best) if at else "recall not reached",
        )

    return [
        f"## Search at recall ≥ {RECALL_WANTED}",
        "",
        "The cheapest effort that reaches it. *Until indexed* counts from the last acknowledgement, with the processor "
        "seconds of that time in brackets.",
        "",
        *cells.table(
            (
                "database",
                "index",
                "until indexed s (CPU s)",
                "effort",
                "recall@10",
                "p50 ms",
                "p99 ms",
                "queries/s",
                "p50 ratio",
            ),
            [row(name, found) for name, found in databases.items()],
        ),
        "",
    ]


def _filter_section(databases: dict[str, Any]) -> list[str]:
    def cell(found: dict[str, Any], selectivity: float) -> str:
        point = cells.value(found, "filter", "points", str(selectivity))
        return f"{point['p50_ms']:.3f} ({point['recall']:.3f})" if point else cells.NONE

    return [
        "## Filtered search",
        "",
        f"`bucket < b`; p50 ms (recall@10) at the least effort that reaches {RECALL_WANTED}, else at the most.",
        "",
        *cells.table(
            ("database", "no filter", *(f"{selectivity:g} of rows" for selectivity in SELECTIVITIES)),
            [
                (
                    name,
                    cells.number(cells.value(found, "search", "at_recall", "p50_ms"), "{:.3f}"),
                    *(cell(found, selectivity) for selectivity in SELECTIVITIES),
                )
                for name, found in databases.items()
            ],
        ),
        "",
    ]


def _footprint_section(databases: dict[str, Any]) -> list[str]:
    return [
        "## Memory, disk, reopening",
        "",
        "Resident memory of the process and its children; pages of mapped files count. *Reopen* is a new process, from "
        "the open call to the first answer.",
        "",
        *cells.table(
            (
                "database",
                "peak MiB",
                "peak MiB, anonymous",
                "MiB before any data",
                "disk bytes / row",
                "reopen + first search s",
            ),
            [
                (
                    name,
                    cells.number(found.get("peak_memory"), "{:,.0f}", 1 / MIB),
                    cells.number(found.get("peak_anonymous"), "{:,.0f}", 1 / MIB),
                    cells.number(found.get("memory_imported"), "{:,.0f}", 1 / MIB),
                    cells.number(found.get("disk_bytes_per_row"), "{:,.0f}"),
                    cells.number(found.get("reopen_s"), "{:.3f}"),
                )
                for name, found in databases.items()
            ],
        ),
        "",
    ]


def _trouble_section(outcome: dict[str, Any]) -> list[str]:
    troubles = [f"- {peer} was skipped: {reason}" for peer, reason in outcome["skipped"].items()]
    troubles += [
        f"- {name} did not finish its search run: {found['failed']}"
        for name, found in outcome["databases"].items()
        if "failed" in found
    ]
    return ["## Not measured", "", *troubles, ""] if troubles else []

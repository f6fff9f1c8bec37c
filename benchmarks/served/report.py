"""Write what a comparison of servers found: results.json and report.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import cells
from benchmarks.measure import MIB, median

REFERENCE = "omendb"


def write(outcome: dict[str, Any], folder: Path) -> str:
    """Write the report into ``folder`` and give its Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    text = markdown(outcome)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def markdown(outcome: dict[str, Any]) -> str:
    """Give the whole report."""
    told, machine, settings = outcome["set"], outcome["machine"], outcome["settings"]
    lines = [
        f"# Servers, {told['name']}: {told['rows']:,} rows, {told['dimension']} dimensions, {told['metric']}",
        "",
        f"{outcome['day']} · {machine['cores']} cores ({machine['processor']}, {', '.join(machine['simd'])}), "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}. Server and clients share the "
        f"machine, whose load average was {outcome['load_before']} before. Medians of {settings['repeats']} repeats; "
        f"k = 10; {settings['queries']} queries. Every server is a "
        "real process (the fleet eight: three coordinators, two routers, three data nodes, N=3, W=2) on the loopback "
        "over a fresh folder, reached through its own client. Ratios are to `omendb serve`.",
        "",
        *(_ingest_section(outcome) if outcome["ingest"] else []),
        *(_search_section(outcome) if outcome["servers"] else []),
        *(_footprint_section(outcome) if outcome["servers"] else []),
        *(_crash_section(outcome["crashes"]) if outcome["crashes"] else []),
        *_trouble_section(outcome),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _ingest_section(outcome: dict[str, Any]) -> list[str]:
    settings = outcome["settings"]
    lines = ["## Ingest", ""]
    lines.append(
        "Rows/s from NumPy arrays to the acknowledgement, one client; in brackets the client's call alone. A run stops "
        f"after {settings['ingest_budget_s']:g} s. Syncs are the sync calls of all of the server's processes per batch "
        "of 1,000, counted with strace while ten were written; those of its background are among them. *Server CPU* is "
        "the processor time of all of the server's processes while it is written to. *Searchable* is the time from the "
        "last acknowledgement until a search finds the last row."
    )
    for batch in settings["batches"]:
        rows = [row for row in outcome["ingest"] if row["batch"] == batch]
        reference = next((row["rows_per_s"] for row in rows if row["server"] == REFERENCE), None)
        lines += ["", f"### Batches of {batch:,}", ""]
        lines += cells.table(
            (
                "server",
                "acknowledged is in",
                "syncs / batch",
                "rows/s (call alone)",
                "ratio",
                "p50 / p99 ms",
                "server CPU µs / row",
                "searchable ms",
            ),
            [
                (
                    f"{row['server']}, {row['mode']}",
                    row["meaning"],
                    cells.number(row["syncs_per_batch"], "{:.1f}"),
                    _rate(row),
                    cells.ratio(row["rows_per_s"], reference),
                    f"{cells.number(row.get('p50_ms'), '{:.1f}')} / {cells.number(row.get('p99_ms'), '{:.1f}')}",
                    cells.number(row.get("server_cpu_us_per_row"), "{:.0f}"),
                    cells.number(row.get("searchable_s"), "{:.1f}", 1000),
                )
                for row in sorted(rows, key=lambda row: -(row["rows_per_s"] or 0))
            ],
        )
    return [*lines, ""]


def _rate(row: dict[str, Any]) -> str:
    if row["rows_per_s"] is None:
        return "failed"
    cut = "" if row["whole"] else f" (first {row['rows']:,.0f})"
    return f"{row['rows_per_s']:,.0f} ({row['rows_per_s_call']:,.0f}){cut}"


def _search_section(outcome: dict[str, Any]) -> list[str]:
    servers, wanted = outcome["servers"], outcome["settings"]["recall_wanted"]
    clients = outcome["settings"]["clients"]
    best = cells.value(servers.get(REFERENCE, {}), "at_recall", "p50_ms")
    most = cells.value(servers.get(REFERENCE, {}), "concurrent", "qps")

    def row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
        at = cells.value(found, "at_recall")
        curve = cells.value(found, "curve") or []
        shown = at or (curve[-1] if curve else None)
        rate = cells.value(found, "concurrent", "qps")
        return (
            f"{name} {found.get('version', '')}",
            found.get("index_note", cells.NONE),
            cells.number(cells.value(found, "index", "seconds"), "{:.1f}"),
            f"{found['effort_name']} {shown['effort']}" if shown else cells.NONE,
            cells.number(shown and shown["recall"], "{:.3f}") + ("" if at or not shown else " (not reached)"),
            " / ".join(cells.number(shown and shown[name], "{:.2f}") for name in ("p50_ms", "p99_ms")),
            cells.ratio(shown and shown["p50_ms"], best),
            cells.number(rate, "{:,.0f}"),
            cells.ratio(rate, most),
            f"{cells.number(cells.value(found, 'concurrent', 'p50_ms'), '{:.2f}')} / "
            f"{cells.number(cells.value(found, 'concurrent', 'p99_ms'), '{:.2f}')}",
            cells.number(cells.value(found, "concurrent", "server_cpu_ms"), "{:.2f}"),
        )

    shares = list(next((found["filtered"] for found in servers.values() if found), {}))
    return [
        f"## Search at recall@10 ≥ {wanted}",
        "",
        f"The least effort that reaches it. Left one client; right {clients} at the same time, each a process that "
        "asks one search after the other, and the processor time that all of the server's processes took per search.",
        "",
        *cells.table(
            (
                "server",
                "index",
                "until indexed s",
                "effort",
                "recall",
                "p50 / p99 ms",
                "ratio",
                f"{clients} clients: searches/s",
                "ratio",
                "p50 / p99 ms",
                "server CPU ms",
            ),
            [row(name, found) for name, found in servers.items()],
        ),
        "",
        "## Filtered search",
        "",
        f"`bucket < b`, one client: p50 / p99 ms (recall@10) at the least effort that reaches {wanted}, else at the "
        "most.",
        "",
        *cells.table(
            ("server", "no filter", *(f"{share} of rows" for share in shares)),
            [
                (
                    name,
                    _point(cells.value(found, "at_recall")),
                    *(_point(cells.value(found, "filtered", s)) for s in shares),
                )
                for name, found in servers.items()
            ],
        ),
        "",
    ]


def _point(point: dict[str, Any] | None) -> str:
    return f"{point['p50_ms']:.2f} / {point['p99_ms']:.2f} ({point['recall']:.3f})" if point else cells.NONE


def _footprint_section(outcome: dict[str, Any]) -> list[str]:
    rows = outcome["set"]["rows"]

    def row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
        sizes = (cells.number(found.get(f"memory_{when}"), "{:,.0f}", 1 / MIB) for when in ("before", "after", "peak"))
        return (name, *sizes, cells.number(found.get("disk_bytes"), "{:,.0f}", 1 / rows))

    return [
        "## Memory and disk",
        "",
        "Resident memory of all of the server's processes, pages that they share counted once: with no data, after the "
        f"searches, at its peak. The vectors alone are {rows * outcome['set']['dimension'] * 4 / MIB:,.0f} MiB.",
        "",
        *cells.table(
            ("server", "empty MiB", "loaded MiB", "peak MiB", "disk bytes / row"),
            [row(name, found) for name, found in outcome["servers"].items()],
        ),
        "",
    ]


def _crash_section(crashes: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [
        "## kill -9 in mid-ingest",
        "",
        "Every process of the server at once, while one client writes batches of 1,000; then a restart over the same "
        "folder, and a look for every row that had been acknowledged. This proves less than a power cut: what the "
        "system holds in memory for a file survives, so a log that is not synced passes too. *Back* is the time from "
        "the start to the first answered search.",
        "",
        *cells.table(
            ("server", "crashes", "acknowledged rows", "lost", "back s"),
            [
                (
                    name,
                    str(len(found)),
                    f"{sum(one['acknowledged'] for one in found):,}",
                    f"{sum(one['lost'] for one in found):,}",
                    f"{median([one['back_s'] for one in found]):.2f}",
                )
                if found
                else (name, cells.NONE, cells.NONE, cells.NONE, cells.NONE)
                for name, found in crashes.items()
            ],
        ),
        "",
    ]


def _trouble_section(outcome: dict[str, Any]) -> list[str]:
    troubles = [f"- {name} was skipped: {reason}" for name, reason in outcome["skipped"].items()]
    troubles += [f"- {told}" for told in outcome["failed"]]
    return ["## Not measured", "", *troubles, ""] if troubles else []

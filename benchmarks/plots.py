"""Draw a comparison: ingest rates, recall against queries/s, filtered latency, footprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.adapters.adapter import NAMES
from benchmarks.benchset import SELECTIVITIES
from benchmarks.measure import MIB

# One colour for each database in all pictures; OmenDB stands out.
_PALETTE = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf")
COLOURS = dict(zip(NAMES, _PALETTE, strict=True))
GREY = "#9a9a9a"


def draw(outcome: dict[str, Any], folder: Path) -> list[str]:
    """Write the PNG files into `folder`; gives their names."""
    title = f"{outcome['set']['name']}, {outcome['set']['rows']:,} rows × {outcome['set']['dimension']}"
    pictures = {
        "ingest.png": _ingest(outcome),
        "recall_qps.png": _recall(outcome["databases"]),
        "filters.png": _filters(outcome["databases"]),
        "footprint.png": _footprint(outcome["databases"]),
    }
    for name, figure in pictures.items():
        figure.suptitle(title, fontsize=10)
        figure.tight_layout()
        figure.savefig(folder / name, dpi=110)
        plt.close(figure)
    return list(pictures)


def _ingest(outcome: dict[str, Any]) -> Figure:
    batches = outcome["settings"]["batches"]
    figure, axes = plt.subplots(1, len(batches), figsize=(6.5 * len(batches), 5), squeeze=False)
    for axis, batch in zip(axes[0], batches, strict=True):
        rows = [row for row in outcome["ingest"] if row["batch"] == batch and row["rows_per_s"]]
        rows.sort(key=lambda row: float(row["rows_per_s"]))
        names = [f"{row['peer']}, {row['mode']}{_sync_mark(row)}" for row in rows]
        rates = [row["rows_per_s"] for row in rows]
        bars = axis.barh(names, rates, color=[COLOURS.get(row["peer"], GREY) for row in rows])
        axis.bar_label(bars, labels=[f"{rate:,.0f}" for rate in rates], padding=3, fontsize=8)
        axis.set_xscale("log")
        axis.margins(x=0.25)
        axis.set_xlabel(f"rows/s, batches of {batch:,} (log)   * = syncs before it acknowledges")
    return figure


def _sync_mark(row: dict[str, Any]) -> str:
    return " *" if row["peer"] == "bare loop" or (row["syncs_per_batch"] or 0) >= 1 else ""


def _recall(databases: dict[str, Any]) -> Figure:
    figure, axis = plt.subplots(figsize=(8, 5))
    for name, found in databases.items():
        curve = found.get("search", {}).get("curve", [])
        recalls, rates = [point["recall"] for point in curve], [point["qps"] for point in curve]
        axis.plot(recalls, rates, marker="o", label=name, color=COLOURS[name], lw=2.5 if name == "omendb" else 1.2)
    axis.set_yscale("log")
    axis.set_xlabel("recall@10")
    axis.set_ylabel("queries/s, one caller (log)")
    _finish(axis)
    return figure


def _filters(databases: dict[str, Any]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5))
    for name, found in databases.items():
        points = found.get("filter", {}).get("points", {})
        shares = [share for share in SELECTIVITIES if str(share) in points]
        style: dict[str, Any] = {"marker": "o", "label": name, "color": COLOURS[name]}
        left.plot(shares, [points[str(share)]["p50_ms"] for share in shares], **style)
        right.plot(shares, [points[str(share)]["recall"] for share in shares], **style)
    left.set_yscale("log")
    left.set_ylabel("p50 ms (log)")
    right.set_ylabel("recall@10")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.invert_xaxis()
        axis.set_xlabel("share of rows that the filter keeps (log)")
        _finish(axis)
    return figure


def _footprint(databases: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(14, 4))
    measures = (
        ("peak memory, MiB", "peak_memory", 1 / MIB),
        ("disk, bytes/row", "disk_bytes_per_row", 1.0),
        ("reopen and first search, s", "reopen_s", 1.0),
    )
    for axis, (label, key, scale) in zip(axes, measures, strict=True):
        there = [name for name in databases if databases[name].get(key) is not None]
        values = [databases[name][key] * scale for name in there]
        bars = axis.barh(there, values, color=[COLOURS[name] for name in there])
        axis.bar_label(bars, labels=[f"{value:,.3g}" if value < 10 else f"{value:,.0f}" for value in values], padding=3)
        axis.margins(x=0.2)
        axis.set_xlabel(label)
    return figure


def _finish(axis: Axes) -> None:
    axis.grid(visible=True, which="both", alpha=0.25)
    axis.legend(fontsize=8)

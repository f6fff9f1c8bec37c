"""Cut the 10,000-point WordNet set that ships with the repository out of the full one.

    python -m benchmarks.datasets.make_wordnet_subset --source DIR [--out data/wordnet10k]

DIR holds the full set: `vectors.npy`, `records.parquet`, `queries.npy`, `queries.parquet`. The same
source always gives the same subset, whose truths are computed anew, over the subset alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.datasets.truth import Truth, exact_truths

SEED = 20_240_229
POINTS = 10_000
QUERIES = 100
TRUTH_DEPTH = 100
# A filter with a handful of matches says little about a planner, so each keeps at least this many.
MATCHES_MIN = 12
COLUMNS = (
    "id",
    "text",
    "pos",
    "lexname",
    "n_words",
    "offset",
    "n_pointers",
    "hypernym_count",
    "gloss_len",
    "bucket",
)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SetFilter:
    """One filter of the set: its name, how it reads, its JSON form and what it keeps."""

    name: str
    expression: str
    json_form: dict[str, Any]
    keep: Callable[[pa.Table], pa.ChunkedArray]


FILTERS = (
    SetFilter(
        "half_range",
        "gloss_len < 50",
        {"gloss_len": {"$lt": 50}},
        lambda table: pc.less(table["gloss_len"], 50),
    ),
    SetFilter(
        "tenth_corr",
        "lexname == 'noun.artifact'",
        {"lexname": {"$eq": "noun.artifact"}},
        lambda table: pc.equal(table["lexname"], "noun.artifact"),
    ),
    SetFilter(
        "tenth_rand",
        "bucket < 100",
        {"bucket": {"$lt": 100}},
        lambda table: pc.less(table["bucket"], 100),
    ),
    SetFilter(
        "hundredth_corr",
        "lexname == 'noun.possession'",
        {"lexname": {"$eq": "noun.possession"}},
        lambda table: pc.equal(table["lexname"], "noun.possession"),
    ),
    SetFilter(
        "hundredth_rand",
        "bucket >= 10 and bucket < 20",
        {"bucket": {"$gte": 10, "$lt": 20}},
        lambda table: pc.and_(pc.greater_equal(table["bucket"], 10), pc.less(table["bucket"], 20)),
    ),
    SetFilter(
        "thousandth_rand",
        "bucket == 7",
        {"bucket": {"$eq": 7}},
        lambda table: pc.equal(table["bucket"], 7),
    ),
)


def filter_masks(records: pa.Table) -> dict[str, Mask]:
    """Say for every filter which rows of `records` it keeps: one bool mask (rows,) by name."""
    return {
        item.name: np.asarray(item.keep(records).combine_chunks().to_numpy(zero_copy_only=False), dtype=np.bool_)
        for item in FILTERS
    }


def choose_rows(masks: dict[str, Mask], total: int) -> npt.NDArray[np.int64]:
    """Choose POINTS of `total` rows, ascending: a random sample that leaves no filter below MATCHES_MIN.

    The first MATCHES_MIN matches of each filter in a seeded shuffle are taken first, and the shuffle's
    own order fills the rest; so only a filter that a plain sample would starve is favoured.
    """
    order = np.random.default_rng(SEED).permutation(total)
    reserved = [order[mask[order]][:MATCHES_MIN] for mask in masks.values()]
    wanted = np.concatenate([*reserved, order])
    _, first = np.unique(wanted, return_index=True)
    return np.sort(wanted[np.sort(first)][:POINTS])


def choose_queries(kinds: list[str]) -> npt.NDArray[np.int64]:
    """Choose QUERIES queries, ascending, the same number of every kind."""
    generator = np.random.default_rng([SEED, 1])
    names = sorted(set(kinds))
    column = np.asarray(kinds)
    each = QUERIES // len(names)
    return np.sort(
        np.concatenate([generator.choice(np.flatnonzero(column == name), each, replace=False) for name in names])
    )


def write_subset(source: Path, out: Path) -> dict[str, Any]:
    """Write the subset of the set in `source` to the folder `out`; gives what went to `meta.json`."""
    records = pq.read_table(source / "records.parquet")
    rows = choose_rows(filter_masks(records), records.num_rows)
    kept = records.take(rows).select(COLUMNS).combine_chunks()
    vectors = np.load(source / "vectors.npy", mmap_mode="r")[rows]
    query_records = pq.read_table(source / "queries.parquet")
    chosen = choose_queries(query_records["kind"].to_pylist())
    queries = np.load(source / "queries.npy")[chosen]

    masks = filter_masks(kept)
    truths = exact_truths([vectors], queries, {"": None, **masks}, metric="cosine", k=TRUTH_DEPTH)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "vectors.npy", vectors)
    np.save(out / "queries.npy", queries)
    pq.write_table(kept, out / "records.parquet", compression="zstd", compression_level=12)
    pq.write_table(query_records.take(chosen).combine_chunks(), out / "queries.parquet", compression="zstd")
    _write_truths(out, truths)
    meta = _meta(kept, vectors, queries, masks)
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    return meta


def _write_truths(out: Path, truths: dict[str, Truth]) -> None:
    for name, truth in truths.items():
        np.save(out / (f"gt_{name}.npy" if name else "gt.npy"), truth.rows)
    np.save(out / "gt_scores.npy", truths[""].scores)


def _meta(
    records: pa.Table, vectors: npt.NDArray[Any], queries: npt.NDArray[Any], masks: dict[str, Mask]
) -> dict[str, Any]:
    filters = {
        item.name: {
            "expr": item.expression,
            "filter": item.json_form,
            "matches": int(masks[item.name].sum()),
            "selectivity": float(masks[item.name].mean()),
        }
        for item in FILTERS
    }
    return {
        "n": records.num_rows,
        "dim": int(vectors.shape[1]),
        "queries": len(queries),
        "metric": "cosine",
        "dtype": str(vectors.dtype),
        "truth_depth": TRUTH_DEPTH,
        "seed": SEED,
        "note": "WordNet 3.0 (Princeton licence, free use with notice), all-MiniLM-L6-v2, stored float16",
        "filters": filters,
    }


def main() -> None:
    """Read the arguments and write the subset."""
    parser = argparse.ArgumentParser(description="Cut the WordNet subset that ships with the repository.")
    parser.add_argument("--source", type=Path, required=True, help="folder of the full set")
    parser.add_argument("--out", type=Path, default=Path("data/wordnet10k"), help="folder to write")
    arguments = parser.parse_args()
    print(json.dumps(write_subset(arguments.source, arguments.out), indent=1))


if __name__ == "__main__":
    main()

"""Prepare a data set for the benchmarks: vectors, two payload columns, queries and exact truths.

A set is named `KIND:ROWS` for the synthetic kinds (`siftlike:100000`), or by a folder of the layout of
`data/wordnet10k`. What is made is kept below the cache folder and made only once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.benchset import SELECTIVITIES, ArrayFile, BenchSet, truth_name
from benchmarks.datasets.truth import Metric, exact_truths

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "data-cache" / "bench"
WORDNET = ROOT / "data" / "wordnet10k"
# Raise it when the form of a prepared set changes, so that old ones are not read.
FORM = 1
QUERIES_MAX = 1000
TRUTH_DEPTH = 100
BLOCK_ROWS = 50_000
BUCKETS = 1000
LABELS = [f"label-{number:02d}" for number in range(16)]


def prepare(spec: str, cache: Path = CACHE) -> BenchSet:
    """Make the set that `spec` names, unless it is in the cache, and open it."""
    name = spec.replace(":", "_") if ":" in spec else Path(spec).name
    folder = cache / f"{name}-{FORM}"
    if (folder / "meta.json").exists():
        return BenchSet.open(folder)
    print(f"preparing {spec} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if ":" in spec:
        kind, rows = spec.split(":")
        meta = _write_synthetic(folder, kind, int(rows))
    else:
        source = Path(spec) if Path(spec).exists() else WORDNET.parent / spec
        meta = _write_copy(folder, source)
    _write_truths(folder, meta["metric"])
    # Last: a folder with this file is whole.
    (folder / "meta.json").write_text(json.dumps({"name": name, **meta}), encoding="utf-8")
    return BenchSet.open(folder)


def _write_synthetic(folder: Path, kind: str, rows: int) -> dict[str, Any]:
    # Imported here, as a set that is only copied does not need the generators.
    from benchmarks.datasets import synthetic

    made = synthetic.KINDS[kind]
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", dtype=made.dtype, shape=(rows, made.dimension))
    start = 0
    for block in synthetic.blocks(kind, rows):
        vectors[start : start + len(block)] = block
        start += len(block)
    vectors.flush()
    np.save(folder / "queries.npy", synthetic.queries(kind, QUERIES_MAX).astype(np.float32))
    generator = np.random.default_rng(99)
    np.save(folder / "bucket.npy", generator.integers(0, BUCKETS, rows, dtype=np.int64))
    np.save(folder / "label.npy", generator.integers(0, len(LABELS), rows, dtype=np.int64))
    return {"n": rows, "dimension": made.dimension, "metric": made.metric, "labels": LABELS}


def _write_copy(folder: Path, source: Path) -> dict[str, Any]:
    told = json.loads((source / "meta.json").read_text(encoding="utf-8"))
    shutil.copyfile(source / "vectors.npy", folder / "vectors.npy")
    queries = np.load(source / "queries.npy").astype(np.float32)[:QUERIES_MAX]
    np.save(folder / "queries.npy", queries)
    records = pq.read_table(source / "records.parquet", columns=["bucket", "lexname"])
    np.save(folder / "bucket.npy", records["bucket"].to_numpy().astype(np.int64))
    names, codes = np.unique(np.asarray(records["lexname"].to_pylist()), return_inverse=True)
    np.save(folder / "label.npy", codes.astype(np.int64))
    return {"n": told["n"], "dimension": told["dim"], "metric": told["metric"], "labels": names.tolist()}


def _write_truths(folder: Path, metric: Metric) -> None:
    buckets = np.load(folder / "bucket.npy")
    subsets: dict[str, npt.NDArray[np.bool_] | None] = {truth_name(None): None}
    subsets |= {truth_name(below): buckets < below for below in SELECTIVITIES.values()}
    truths = exact_truths(_blocks(folder), np.load(folder / "queries.npy"), subsets, metric=metric, k=TRUTH_DEPTH)
    for name, truth in truths.items():
        np.save(folder / name, truth.rows)


def _blocks(folder: Path) -> Iterator[npt.NDArray[Any]]:
    file = ArrayFile(folder / "vectors.npy")
    for start in range(0, file.n, BLOCK_ROWS):
        yield file.rows(start, start + BLOCK_ROWS)

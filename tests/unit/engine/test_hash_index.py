"""The index from id hashes to rows: against a dict, under collisions, and while it is being written."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_engine.hash_index import HashIndex

KEYS = st.tuples(st.sampled_from([0, 1, 2, 15, 16, 17, 2**63, 2**64 - 1]), st.sampled_from([0, 1, 2**64 - 1]))


def index_of(capacity: int) -> tuple[HashIndex, np.ndarray, np.ndarray]:
    """An empty index and its key columns."""
    hi, lo = np.zeros(capacity, np.uint64), np.zeros(capacity, np.uint64)
    return HashIndex(hi, lo, capacity), hi, lo


@settings(max_examples=200, deadline=None, derandomize=True)
@given(batches=st.lists(st.lists(KEYS, min_size=1, max_size=12, unique=True), max_size=8), asked=st.lists(KEYS))
def test_it_finds_the_newest_row_below_any_length(
    batches: list[list[tuple[int, int]]], asked: list[tuple[int, int]]
) -> None:
    total = sum(map(len, batches))
    index, hi, lo = index_of(max(total, 1))
    keys: list[tuple[int, int]] = []
    for batch in batches:
        first = len(keys)
        keys += batch
        hi[first : len(keys)] = [k[0] for k in batch]
        lo[first : len(keys)] = [k[1] for k in batch]
        index.insert(first, len(batch))
    question = [*asked, *keys]
    q_hi, q_lo = (np.array([k[i] for k in question], np.uint64) for i in (0, 1))
    for visible in {0, total // 2, total}:
        expected = [max((r for r, k in enumerate(keys[:visible]) if k == q), default=-1) for q in question]
        assert index.find(q_hi, q_lo, visible).tolist() == expected


def test_a_full_index_of_one_slot_chain_still_ends() -> None:
    """Every key wants the same slot: the worst case of linear probing."""
    n = 500
    index, hi, lo = index_of(n)
    hi[:] = np.uint64(7)
    lo[:] = np.arange(n)
    index.insert(0, n)
    assert index.find(hi, lo, n).tolist() == list(range(n))
    assert index.find(hi[:1], np.array([n + 1], np.uint64), n).tolist() == [-1]


def test_capacity_one_and_nothing() -> None:
    index, hi, lo = index_of(1)
    nothing = np.empty(0, np.uint64)
    assert index.find(nothing, nothing, 0).tolist() == []
    index.insert(0, 0)
    hi[0], lo[0] = 3, 4
    index.insert(0, 1)
    assert index.find(hi, lo, 1).tolist() == [0] and index.find(hi, lo, 0).tolist() == [-1]
    empty, _, _ = index_of(0)
    assert empty.find(np.array([1], np.uint64), np.array([1], np.uint64), 0).tolist() == [-1]


def test_it_is_as_lean_as_the_budget_says() -> None:
    index, _, _ = index_of(50_000)
    assert index.nbytes <= 50_000 * (4 * 8 + 4), "a row may take eight slots at most, and its chain"


def test_readers_find_every_published_row_while_one_writer_inserts() -> None:
    rng = np.random.default_rng(5)
    n = 20_000
    index, hi, lo = index_of(n)
    keys = rng.integers(0, 6_000, n).astype(np.uint64)  # most keys come several times
    published = 0
    stop = threading.Event()
    problems: list[str] = []

    def read() -> None:
        reader = np.random.default_rng(threading.get_ident() % 2**32)
        while not stop.is_set():
            visible = published
            if not visible:
                continue
            rows = reader.integers(0, visible, 200)
            found = index.find(keys[rows], keys[rows], visible)
            if not ((found >= rows) & (found < visible)).all() or (keys[found] != keys[rows]).any():
                problems.append(f"of {visible} rows")
                return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    at = 0
    while at < n:
        # A batch names each key once.
        size = 64 if len(np.unique(keys[at : at + 64])) == 64 else 1
        stop_at = min(at + size, n)
        hi[at:stop_at] = lo[at:stop_at] = keys[at:stop_at]
        index.insert(at, stop_at - at)
        at = published = stop_at
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not problems

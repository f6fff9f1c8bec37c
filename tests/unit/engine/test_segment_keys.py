"""Key lookup equals a dict, for any hashes; the bloom filter never denies what is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_common.ids import IdColumn
from omendb_engine.segment import keys
from omendb_engine.segment.arrow_file import decode_batch_file, encode_batch_file
from omendb_engine.segment.keys import Bloom, KeyTable, bloom_masks, keys_batch, keys_from_batch

WORDS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1), st.just(2**64 - 1))
KEYS = st.lists(st.tuples(WORDS, WORDS), max_size=40)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The high and low halves."""
    return np.array([h for h, _ in pairs], np.uint64), np.array([low for _, low in pairs], np.uint64)


@settings(deadline=None, max_examples=300)
@given(KEYS.map(lambda pairs: list(dict.fromkeys(pairs))), KEYS, st.booleans())
def test_lookup_equals_a_dict(present: list[tuple[int, int]], asked: list[tuple[int, int]], bloom: bool) -> None:
    table = KeyTable.build(*columns(present), bloom=bloom)
    rows = {key: row for row, key in enumerate(present)}
    questions = asked + present
    found = table.lookup(*columns(questions))
    assert found.tolist() == [rows.get(key, -1) for key in questions]


def test_equal_high_halves_are_told_apart() -> None:
    lo = np.arange(1_000, dtype=np.uint64)
    hi = np.full(1_000, 42, np.uint64)
    table = KeyTable.build(hi, lo)
    assert table.lookup(hi, lo).tolist() == list(range(1_000))
    assert table.lookup(hi[:1], np.array([5_000], np.uint64)).tolist() == [-1]


def test_a_key_twice_is_refused() -> None:
    hi = np.array([7, 1, 7, 7], np.uint64)
    with pytest.raises(ValueError, match="rows 0 and 3"):
        KeyTable.build(hi, np.array([1, 1, 2, 1], np.uint64))


def test_bloom_passes_what_is_there_and_little_else() -> None:
    hi, lo = IdColumn.of(np.arange(100_000, dtype=np.uint64)).hashes()
    bloom = Bloom.build(hi[:50_000], lo[:50_000])
    assert bloom.probe(lo[:50_000], bloom_masks(hi[:50_000])).all()
    assert bloom.probe(lo[50_000:], bloom_masks(hi[50_000:])).mean() < 0.02
    assert bloom.words.nbytes * 8 <= 50_000 * keys.BLOOM_BITS_PER_KEY + 64


def test_bloom_file_refuses_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    hi, lo = IdColumn.of(np.arange(60, dtype=np.uint64)).hashes()
    whole = b"".join(Bloom.build(hi, lo).encode())
    assert (Bloom.decode(memoryview(whole), "b").words == Bloom.build(hi, lo).words).all()
    for offset in range(len(whole)):
        for pattern in (1, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[offset] ^= pattern
            with pytest.raises(CorruptionError):
                Bloom.decode(memoryview(changed), "b")
    for length in range(len(whole)):
        with pytest.raises(CorruptionError):
            Bloom.decode(memoryview(whole[:length]), "b")
    monkeypatch.setattr(keys, "BLOOM_FORMAT", 2)
    newer = b"".join(Bloom.build(hi, lo).encode())
    monkeypatch.setattr(keys, "BLOOM_FORMAT", 1)
    with pytest.raises(FormatVersionError):
        Bloom.decode(memoryview(newer), "b")


def test_keys_file_round_trip_with_mixed_ids() -> None:
    ids = IdColumn.of([5, "five", 6, "six"])
    table = KeyTable.build(*ids.hashes())
    stamps = np.arange(4, dtype=np.uint64)
    batch = keys_batch(ids, stamps, table)
    view = memoryview(b"".join(bytes(p) for p in encode_batch_file(batch)))
    again, again_stamps, again_table = keys_from_batch(decode_batch_file(view, "k"), table.bloom, "k")
    assert again.to_list() == [5, "five", 6, "six"]
    assert (again_stamps == stamps).all()
    asked = IdColumn.of(["six", 7, 5])
    assert again_table.lookup(*asked.hashes()).tolist() == [3, -1, 0]


def test_a_batch_without_a_column_is_corrupt() -> None:
    ids = IdColumn.of([1])
    batch = keys_batch(ids, np.zeros(1, np.uint64), KeyTable.build(*ids.hashes()))
    with pytest.raises(CorruptionError, match="stamp"):
        keys_from_batch(batch.drop_columns(["stamp"]), None, "k")
    with pytest.raises(CorruptionError, match="id column"):
        keys_from_batch(batch.drop_columns(["id_int"]), None, "k")

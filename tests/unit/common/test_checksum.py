"""CRC32C and the block sums of immutable files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.checksum import BLOCK_BYTES, block_sums, byte_length, byte_view, crc32c, verify_blocks
from omendb_common.errors import CorruptionError


def test_the_published_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 2**32 - 1))
def test_parts_sum_as_if_joined(parts: list[bytes], seed: int) -> None:
    joined = crc32c(b"".join(parts), seed)
    assert crc32c(parts, seed) == joined
    assert crc32c([np.frombuffer(p, np.uint8) for p in parts], seed) == joined


def test_any_contiguous_buffer() -> None:
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    assert crc32c(array) == crc32c(array.tobytes())
    assert byte_length(array) == 24 == byte_view(array).nbytes
    assert byte_view(np.zeros((0, 3))).nbytes == 0
    with pytest.raises(ValueError, match="contiguous"):
        crc32c(array[:, ::2])


@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_blocks_verify_and_name_the_first_damage(length: int) -> None:
    data = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8)
    sums = block_sums(data)
    assert sums.dtype == np.uint32
    assert sums.size == -(-length // BLOCK_BYTES)
    verify_blocks(data, sums, "f")
    for at in {0, length // 2, length - 1} if length else ():
        damaged = data.copy()
        damaged[at] ^= 4
        with pytest.raises(CorruptionError) as caught:
            verify_blocks(damaged, sums, "f")
        assert caught.value.path == "f"
        assert caught.value.offset == at // BLOCK_BYTES * BLOCK_BYTES


def test_a_file_of_another_length_is_damage() -> None:
    data = bytes(2 * BLOCK_BYTES)
    sums = block_sums(data)
    for other, offset in ((data[:BLOCK_BYTES], BLOCK_BYTES), (data + b"x", 2 * BLOCK_BYTES)):
        with pytest.raises(CorruptionError) as caught:
            verify_blocks(other, sums, "f")
        assert caught.value.offset == offset

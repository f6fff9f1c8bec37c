"""Values survive their messages; whatever is malformed is refused with an error that names it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError
from omendb_common.filters import FilterOp as F
from omendb_common.filters import MatchAll
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.shard_calls import Work
from omendb_common.wire import convert
from omendb_common.wire.arrow_ipc import COLUMNS_MAX, batch_from_ipc, batch_to_ipc
from omendb_proto.v1.common_pb2 import Columns, Ids, StringIds, Vectors

IDS = st.lists(st.integers(0, (1 << 64) - 1) | st.text(min_size=1, max_size=100), max_size=20)


@given(IDS)
def test_ids_survive(values: list[int | str]) -> None:
    message = Ids.FromString(convert.ids_to_proto(IdColumn.of(values)).SerializeToString())
    assert convert.ids_from_proto(message).to_list() == values
    assert convert.unpack_ids(memoryview(convert.pack_ids(IdColumn.of(values)))).to_list() == values


def test_ids_of_a_slice_are_those_of_the_slice() -> None:
    ids = IdColumn.of(["a", 1, "bc", 2, "def"]).slice(1, 4)
    assert convert.ids_from_proto(convert.ids_to_proto(ids)).to_list() == [1, "bc", 2]


def test_ids_may_be_given_as_strings() -> None:
    assert convert.ids_from_proto(Ids(strings=StringIds(values=["x", "y"]))).to_list() == ["x", "y"]
    assert convert.ids_from_proto(Ids()).to_list() == []


def ipc(**columns: Any) -> bytes:
    return bytes(batch_to_ipc(pa.record_batch(columns)))


@pytest.mark.parametrize(
    "message",
    [
        Ids(packed=b"1234567"),
        Ids(arrow=b"no arrow"),
        Ids(arrow=ipc(id=pa.array([1], pa.uint64()))),
        Ids(arrow=ipc(id_int=pa.array([1], pa.int64()))),
        Ids(arrow=ipc(id_int=pa.array([1, None], pa.uint64()))),
        Ids(arrow=ipc(id_str=pa.array(["a", None]))),
        Ids(arrow=ipc(id_str=pa.array(["a", ""]))),
        Ids(arrow=ipc(id_str=pa.array(["x" * 513]))),
        Ids(arrow=ipc(id_int=pa.array([1], pa.uint64()), extra=pa.array([1]))),
        Ids(strings=StringIds(values=[""])),
        Ids(packed=bytes(8 * 4)),
    ],
    ids=str,
)
def test_malformed_ids_are_refused(message: Ids) -> None:
    with pytest.raises(InvalidArgumentError):
        convert.ids_from_proto(message, count_max=3)


def test_the_longest_id_passes() -> None:
    assert convert.ids_from_proto(Ids(arrow=ipc(id_str=pa.array(["x" * 512])))).to_list() == ["x" * 512]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 7)])
def test_vectors_survive(dtype: str, shape: tuple[int, int]) -> None:
    array = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    message = Vectors.FromString(convert.vectors_to_proto(array, "title").SerializeToString())
    back = convert.vectors_from_proto(message, rows=shape[0])
    assert back.dtype == dtype and message.field == "title"
    np.testing.assert_array_equal(back, array)
    strided = np.asfortranarray(array)[::2]
    np.testing.assert_array_equal(convert.vectors_from_proto(convert.vectors_to_proto(strided)), strided)


@pytest.mark.parametrize(
    "message",
    [
        Vectors(dtype="float64", dimension=1, data=bytes(8)),
        Vectors(dtype="O", dimension=1, data=bytes(8)),
        Vectors(dtype="", dimension=1, data=bytes(8)),
        Vectors(dtype="float32", dimension=0, data=bytes(8)),
        Vectors(dtype="float32", dimension=65_537, data=bytes(4 * 65_537)),
        Vectors(dtype="float32", dimension=(1 << 32) - 1, data=bytes(8)),
        Vectors(dtype="float32", dimension=3, data=bytes(8)),
        Vectors(dtype="float32", dimension=1, data=bytes(12)),
    ],
    ids=lambda m: f"{m.dtype}-{m.dimension}",
)
def test_malformed_vectors_are_refused(message: Vectors) -> None:
    with pytest.raises(InvalidArgumentError):
        convert.vectors_from_proto(message, rows=2)


@pytest.mark.parametrize("array", [np.ones((2, 2)), np.ones(2, np.float32)], ids=["float64", "flat"])
def test_only_rows_of_vectors_are_sent(array: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        convert.vectors_to_proto(array)


def test_the_largest_dimension_passes() -> None:
    message = Vectors(dtype="uint8", dimension=65_536, data=bytes(65_536))
    assert convert.vectors_from_proto(message).shape == (1, 65_536)


def test_payload_columns_survive() -> None:
    rows = [{"a": 1, "b": {"c": ["x", "y"]}}, {"a": "s", "t": True}, {}]
    batch = columns_from_rows(rows)
    back = convert.columns_from_proto(Columns.FromString(convert.columns_to_proto(batch).SerializeToString()), rows=3)
    assert back is not None and back.equals(batch)
    assert convert.columns_from_proto(convert.columns_to_proto(None), rows=3) is None
    with pytest.raises(InvalidArgumentError, match="3 rows"):
        convert.columns_from_proto(convert.columns_to_proto(batch), rows=2)


def stream(schema: pa.Schema, *batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def test_only_one_plain_record_batch_is_read() -> None:
    batch = pa.record_batch({"a": pa.array(["x"] * 100)})
    coded = pa.record_batch({"a": pa.array(["x"] * 100).dictionary_encode()})
    wide = pa.record_batch([pa.array([1])] * (COLUMNS_MAX + 1), names=[str(i) for i in range(COLUMNS_MAX + 1)])
    assert batch_from_ipc(stream(batch.schema, batch), "x").equals(batch)
    for bad, why in (
        (stream(batch.schema), "holds schema"),
        (stream(batch.schema, batch, batch), "record batch, record batch"),
        (stream(coded.schema, coded), "dictionary"),
        (stream(batch.schema, batch, compression="zstd"), "compressed"),
        (stream(batch.schema, batch, compression="lz4"), "compressed"),
        (stream(wide.schema, wide), "4097 columns"),
    ):
        with pytest.raises(InvalidArgumentError, match=why):
            batch_from_ipc(bad, "x")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[]], pa.list_(pa.null())),
        pa.array([[]], pa.list_(pa.int8(), 0)),
        pa.array(["x"], pa.string_view()),
        pa.array([[1]], pa.list_view(pa.int8())),
        pa.RunEndEncodedArray.from_arrays(pa.array([9], pa.int32()), pa.array([1])),
        pa.nulls(1 << 14),
    ],
    ids=lambda c: str(c.type),
)
def test_types_that_swell_are_refused(column: pa.Array) -> None:
    with pytest.raises(InvalidArgumentError, match="rows of"):
        batch_from_ipc(batch_to_ipc(pa.record_batch([column], names=["a"])), "x")


def test_two_columns_of_one_name_are_refused() -> None:
    twins = pa.record_batch([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(InvalidArgumentError, match="one name"):
        batch_from_ipc(batch_to_ipc(twins), "x")


def test_text_that_is_no_utf8_is_refused() -> None:
    offsets = pa.py_buffer(struct.pack("<ii", 0, 2))
    forged = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(InvalidArgumentError, match="UTF"):
        batch_from_ipc(batch_to_ipc(pa.record_batch({"a": forged})), "x")
    with pytest.raises(InvalidArgumentError, match="UTF"):
        convert.check_strings(forged)


def test_offsets_that_run_out_of_their_bytes_are_refused() -> None:
    offsets = pa.py_buffer(struct.pack("<iii", 0, 1_000_000, 2))
    forged = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"ab"))
    with pytest.raises(InvalidArgumentError):
        batch_from_ipc(batch_to_ipc(pa.record_batch({"a": forged})), "x")


GOOD = ipc(id_str=pa.array(["ab", "c", None]), id_int=pa.array([0, 0, 7], pa.uint64()))


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255), st.integers(0, len(GOOD)))
def test_a_damaged_stream_is_read_or_refused_and_nothing_else(at: int, flip: int, end: int) -> None:
    damaged = bytearray(GOOD)
    damaged[at] ^= flip
    for data in (bytes(damaged), bytes(damaged[:end])):
        try:
            convert.unpack_ids(data)
        except InvalidArgumentError as error:
            assert error.field == "ids"


def test_filters_survive() -> None:
    for condition in (F.eq("a", 1) & ~F.gte("b.c", 2.5), F.in_("x", ["ä", "\U0001f600"]), MatchAll(), None):
        assert convert.filter_from_text(convert.filter_to_text(condition)) == condition


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"a": NaN}', "[" * 100_000, '{"a": ' * 5_000, '{"a": {"$x": 1}}'])
def test_malformed_filters_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        convert.filter_from_text(text)


def test_performance_survives() -> None:
    work = Work(10, 2, 1, 0.5, 1.25)
    assert convert.performance_from_proto(convert.performance_to_proto(work, 3.5)) == (work, 3.5)

"""Arrow arrays made from bytes: what ``pa.array`` would have made, and no look for pandas before a first write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.payload import columns_from_mapping
from omendb_common.plain_arrow import (
    arrow_of_numpy,
    arrow_of_strings,
    arrow_of_texts,
    arrow_of_values,
    filled,
    numpy_of_arrow,
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])))))
def test_texts_are_what_arrow_makes_of_them(values: list[str | None]) -> None:
    made = arrow_of_texts(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.string()))


@pytest.mark.parametrize(
    ("target", "elements"),
    [
        (pa.int64(), INT64),
        (pa.float64(), st.floats(allow_nan=False)),
        (pa.bool_(), st.booleans()),
        (pa.string(), st.text(max_size=3)),
        (pa.list_(pa.int64()), st.lists(st.one_of(st.none(), INT64), max_size=3)),
        (pa.list_(pa.string()), st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=3)),
        (pa.list_(pa.bool_()), st.lists(st.booleans(), max_size=3)),
    ],
)
def test_lists_are_what_arrow_makes_of_them(target: pa.DataType, elements: Any) -> None:
    @given(st.lists(st.one_of(st.none(), elements)), st.booleans())
    def holds(values: list[Any], gaps: bool) -> None:
        values = values if gaps else [value for value in values if value is not None]
        made = arrow_of_values(values, target)
        made.validate(full=True)
        assert made.equals(pa.array(values, target))

    holds()


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", ">i2", "i4", "<u8", ">f4", "f8"])
@pytest.mark.parametrize("step", [1, 3, -1])
def test_arrays_are_what_arrow_makes_of_them(dtype: str, step: int) -> None:
    array = np.arange(20).astype(dtype)[::step]
    made = arrow_of_numpy(array)
    made.validate(full=True)
    assert made.equals(pa.array(array.astype(array.dtype.newbyteorder("="))))


@settings(deadline=None)
@given(
    st.sampled_from(["?", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "M8[us]"]),
    st.lists(st.booleans(), max_size=40),
    st.integers(0, 40),
    st.booleans(),
)
def test_there_and_back_with_gaps_and_offsets(dtype: str, null: list[bool], start: int, gaps: bool) -> None:
    array = (np.arange(len(null)) * 7 % 5).astype(dtype)
    mask = np.array(null, np.bool_)
    made = arrow_of_numpy(array, mask) if gaps else arrow_of_numpy(array)
    made.validate(full=True)
    expected = pa.array(array, mask=mask) if gaps else pa.array(array)
    assert made.equals(expected)
    cut, told = made.slice(start), expected.slice(start)
    np.testing.assert_array_equal(numpy_of_arrow(cut), told.to_numpy(zero_copy_only=False))
    if dtype != "M8[us]":
        full = filled(cut, 1)
        assert full.equals(told.fill_null(pa.scalar(1).cast(told.type)))
        assert numpy_of_arrow(full).dtype == array.dtype


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=3))), st.integers(0, 5))
def test_texts_come_back_as_objects(values: list[str | None], start: int) -> None:
    made = arrow_of_texts(values).slice(start)
    back = numpy_of_arrow(made)
    assert back.dtype == object and back.tolist() == made.to_numpy(zero_copy_only=False).tolist() == values[start:]


@pytest.mark.parametrize(("values", "kind"), [([1 << 63], int), ([-(1 << 63) - 1], int), (["\ud800"], str)])
def test_what_does_not_fit_is_refused(values: list[Any], kind: type) -> None:
    with pytest.raises((OverflowError, UnicodeEncodeError, pa.ArrowException)):
        arrow_of_values(values, pa.int64() if kind is int else pa.string())


STORY = """
import sys
import numpy as np
import omendb
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_mapping
from omendb_common.wire import convert

metadata = {"cat": ["a", "bé"], "n": np.arange(2), "price": [1.5, 2.5], "new": [True, False], "i": [1, 2]}
convert.columns_to_proto(columns_from_mapping(metadata, 2))
convert.ids_to_proto(IdColumn.of(["x", "y"]))
with omendb.open(sys.argv[1]) as database:
    notes = database.create_collection("notes", dimension=2)
    notes.upsert(["x", "y"], np.eye(2, dtype=np.float32), metadata)
    assert len(notes.search([1, 0], k=2)) == 2
"""


def test_a_first_write_does_not_wait_for_pandas(tmp_path: Path) -> None:
    """pyarrow imports pandas, where there is one, when it is first asked to convert something."""
    folder = tmp_path / "packages" / "pandas"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('pandas was imported')\n")
    path = os.pathsep.join([str(folder.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", STORY, str(tmp_path / "db")]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


class Longer(str):
    """A string that says another length than it has."""

    def __len__(self) -> int:
        return super().__len__() + 100


def test_a_string_is_as_long_as_its_bytes_whatever_it_says() -> None:
    values = ["a", Longer("bc"), "d"]
    with pytest.raises(TypeError):
        arrow_of_strings(values)
    batch = columns_from_mapping({"x": values}, 3)
    assert batch.to_pydict() == {"x#s": ["a", "bc", "d"]}


@pytest.mark.parametrize("other", [0, 0.0, False, [], b""])
def test_a_value_among_strings_that_is_none_is_not_taken_for_one(other: object) -> None:
    with pytest.raises(TypeError):
        arrow_of_strings(["a", other, "b"])  # type: ignore[list-item]


def test_a_list_that_begins_with_a_string_may_go_on_with_anything() -> None:
    batch = columns_from_mapping({"x": ["a", None, 0, False, "ü", 1.5]}, 6)
    assert batch.to_pydict() == {
        "x#s": ["a", None, None, None, "ü", None],
        "x#i": [None, None, 0, None, None, None],
        "x#b": [None, None, None, False, None, None],
        "x#f": [None, None, None, None, None, 1.5],
    }

"""Commands and results as bytes, and the memory of requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import (
    AlreadyExistsError,
    FormatVersionError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    ResourceExhaustedError,
)
from omendb_coordinator.commands import (
    COMMAND_FORMAT,
    Command,
    ConflictError,
    RequestMemory,
    decode_result,
    encode_error,
    encode_value,
    is_conflict,
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(args=st.dictionaries(st.text(max_size=8), _json, max_size=4), when=st.integers(0, 2**60))
def test_a_command_comes_back_from_its_bytes(args: dict[str, Any], when: int) -> None:
    command = Command("r1", "me", "drain", args, when)
    assert Command.decode(command.encode()) == command
    # Equal arguments in another order are equal bytes.
    assert Command("r1", "me", "drain", dict(reversed(args.items())), when).encode() == command.encode()


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"v":1,"request_id":"","client":"c","op":"x","args":{},"proposer_time_ms":0}',
        b'{"v":1,"request_id":"r","client":"c","op":"x","args":[],"proposer_time_ms":0}',
        b'{"v":1,"request_id":"r","client":"c","op":7,"args":{},"proposer_time_ms":0}',
        b'{"v":1,"request_id":"r","client":"c","op":"x","args":{},"proposer_time_ms":-1}',
        b'{"v":true,"request_id":"r","client":"c","op":"x","args":{},"proposer_time_ms":0}',
    ],
)
def test_what_is_no_command_is_refused(wrong: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        Command.decode(wrong)


def test_a_command_of_a_newer_release_is_not_passed_over() -> None:
    value = json.loads(Command("r", "c", "x", {}, 0).encode()) | {"v": COMMAND_FORMAT + 1}
    with pytest.raises(FormatVersionError):
        Command.decode(json.dumps(value).encode())


@pytest.mark.parametrize("wrong", [float("nan"), b"bytes", {1, 2}, object()])
def test_arguments_that_are_no_json_are_refused_before_they_are_proposed(wrong: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        Command("r", "c", "x", {"n": wrong}, 0).encode()


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("gone", field="f", bound="b", mend="m"),
        AlreadyExistsError("there"),
        InvalidArgumentError("no", field="x"),
        ConflictError("changed", field="epoch"),
        ResourceExhaustedError("full"),
    ],
)
def test_an_error_comes_back_as_itself(error: OmenDBError) -> None:
    with pytest.raises(type(error)) as raised:
        decode_result(encode_error(error))
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    assert is_conflict(encode_error(error)) == isinstance(error, ConflictError)


def test_a_value_that_looks_like_a_conflict_is_none() -> None:
    assert not is_conflict(encode_value('"class":"ConflictError"'))
    assert not is_conflict(encode_value({"class": "ConflictError"}))


def test_requests_are_forgotten_by_their_place_in_the_log() -> None:
    memory = RequestMemory(keep=10)
    for index in (1, 5, 6, 20):
        memory.forget(index)
        memory.remember(index, f"r{index}", b"%d" % index)
    memory.forget(20)
    assert len(memory) == 1
    memory.forget(29)
    assert memory.recall("r20") == b"20"
    memory.forget(30)
    assert memory.recall("r20") is None


def test_the_memory_comes_back_from_its_json() -> None:
    memory = RequestMemory()
    memory.remember(3, "a", b'{"value":1}')
    memory.remember(9, "b", b'{"value":"\xc3\xa4"}')
    again = RequestMemory()
    again.load(json.loads(memory.encode()))
    assert again.encode() == memory.encode()
    assert again.recall("b") == memory.recall("b")

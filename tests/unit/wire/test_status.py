"""Every error survives every wire exactly; what is no error of ours comes back as the nearest one."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import (
    DatabaseLockedError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.wire import grpc_status, status
from omendb_proto.v1 import common_pb2
from tests.unit.wire.error_cases import bare, classes, full, told

CASES = [make(cls) for cls in classes() for make in (full, bare)]


def rpc(code: str, details: str = "", metadata: tuple[tuple[str, str | bytes], ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        code=lambda: grpc.StatusCode[code], details=lambda: details, trailing_metadata=lambda: metadata
    )


@pytest.mark.parametrize("error", CASES, ids=lambda e: type(e).__name__)
def test_an_error_survives_protobuf_json_and_trailing_metadata(error: OmenDBError) -> None:
    assert told(status.from_bytes(status.to_bytes(error))) == told(error)
    assert told(status.from_json(json.loads(json.dumps(status.to_json(error))))) == told(error)
    assert told(status.from_rpc(rpc(error.code, "x", status.trailing(error)))) == told(error)
    assert error.code in grpc.StatusCode.__members__


def test_every_class_of_the_tree_is_tried() -> None:
    assert {type(e) for e in CASES} == set(classes()) and OmenDBError in classes()


@pytest.mark.parametrize("error", CASES[::2], ids=lambda e: type(e).__name__)
def test_a_class_of_a_newer_release_comes_back_as_that_of_its_code(error: OmenDBError) -> None:
    message = status.to_proto(error)
    message.class_name = "FromTheFutureError"
    body = status.to_json(error)
    body["error"]["class"] = "FromTheFutureError"
    for back in (status.from_proto(message), status.from_json(body)):
        parent = type(back)
        assert parent.code == error.code and issubclass(type(error), parent)
        assert parent is OmenDBError or parent.__bases__ == (OmenDBError,)


@given(st.text(max_size=2000), st.text(max_size=2000), st.integers(), st.integers(0, (1 << 64) - 1), st.floats())
def test_no_attribute_breaks_the_form(message: str, mend: str, acked: int, stamp: int, wait: float) -> None:
    error = UnavailableError(message, mend=mend, acked=acked, stamp=stamp)
    for back in (status.from_bytes(status.to_bytes(error)), status.from_json(status.to_json(error))):
        assert isinstance(back, UnavailableError) and back.stamp == stamp
        assert len((back.mend or "").encode()) <= status.TEXT_BYTES_MAX
    slow = status.from_bytes(status.to_bytes(ResourceExhaustedError("", retry_after=wait)))
    assert isinstance(slow, ResourceExhaustedError) and 0.0 <= slow.retry_after <= 86_400.0


def test_a_name_that_is_no_text_does_not_hide_the_error() -> None:
    back = status.from_bytes(status.to_bytes(NotFoundError("no file a\udcff")))
    assert type(back) is NotFoundError and "udcff" in back.message


@given(st.binary(max_size=200))
def test_any_bytes_give_an_error(data: bytes) -> None:
    assert isinstance(status.from_bytes(data), OmenDBError)
    assert isinstance(status.from_rpc(rpc("UNAVAILABLE", "", ((status.TRAILING_KEY, data),))), OmenDBError)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
_KEYS = ("class", "code", "message", "field", "outcome", "retry_after", "acked", "stamp", "pid", "path", "offset")


@given(JSON | st.fixed_dictionaries({"error": st.fixed_dictionaries({}, optional=dict.fromkeys(_KEYS, JSON))}))
def test_any_json_gives_an_error(body: object) -> None:
    assert isinstance(status.from_json(body, 503), OmenDBError)


def test_an_answer_without_our_error_is_that_of_its_status() -> None:
    lost = status.from_rpc(rpc("UNAVAILABLE", "socket closed"))
    assert type(lost) is UnavailableError and lost.outcome == "unknown" and lost.message == "socket closed"
    assert type(status.from_rpc(rpc("DEADLINE_EXCEEDED"))) is DeadlineExceededError
    assert type(status.from_rpc(rpc("CANCELLED"))) is UnavailableError
    assert type(status.from_rpc(rpc("UNIMPLEMENTED"))) is OmenDBError
    assert type(status.from_json("<html>", 503)) is UnavailableError
    assert type(status.from_json(None, 404)) is NotFoundError
    assert type(status.from_json({}, 418)) is InvalidArgumentError
    assert type(status.from_json({}, 502)) is OmenDBError


def test_a_missing_outcome_is_unknown() -> None:
    back = status.from_proto(common_pb2.Error(class_name="UnavailableError", code="UNAVAILABLE", message="x"))
    assert isinstance(back, UnavailableError) and back.outcome == "unknown"


def test_nothing_of_a_bug_leaves_the_process() -> None:
    seen: list[BaseException] = []
    bug = KeyError("secret")
    shown = status.of_exception(bug, seen.append)
    assert "secret" not in str(shown) and type(shown) is OmenDBError and seen == [bug]
    own = NotFoundError("x")
    assert status.of_exception(own, seen.append) is own and len(seen) == 1


def test_a_grpc_call_brings_the_error_back() -> None:
    async def scene() -> OmenDBError:
        async def handle(request: bytes, context: object) -> bytes:
            await grpc_status.abort(context, DatabaseLockedError("locked", pid=7))

        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(handle)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Do": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/t.T/Do")(b"", timeout=10)
                return status.from_rpc(caught.value)
        finally:
            await server.stop(None)

    back = asyncio.run(scene())
    assert told(back) == told(DatabaseLockedError("locked", pid=7))

"""Every call and every answer survives the wire; a malformed one is refused, and nothing else happens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common import shard_calls as calls
from omendb_common.checksum import byte_view
from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.ids import IdColumn
from omendb_common.records import Op, WriteBatch, encode_batch
from omendb_common.shard_calls import ShardRef, Verdict
from omendb_common.wire.frames import Attachment
from omendb_common.wire.shard_wire import READS, decode_answer, decode_call, encode_answer, encode_call
from omendb_proto.v1 import datanode_pb2 as pb
from tests.unit.wire.shard_cases import any_answer, any_call, names_of, plain

SHARD = ShardRef("u", 1, 2, 3)


def arrived(attachments: Any) -> list[memoryview]:
    """Attachments as the other end has them."""

    def joined(attachment: Attachment) -> bytes:
        parts = attachment if isinstance(attachment, (list, tuple)) else [attachment]
        return b"".join(bytes(byte_view(part)) for part in parts)

    return [memoryview(joined(a)) for a in attachments]


@settings(max_examples=150, deadline=None)
@given(any_call())
def test_calls_survive(call: Any) -> None:
    method, message, attachments = encode_call(call)
    assert plain(decode_call(method, message, arrived(attachments))) == plain(call)


@settings(max_examples=150, deadline=None)
@given(any_answer())
def test_answers_survive(case: tuple[int, Any]) -> None:
    method, answer = case
    message, attachments = encode_answer(method, answer)
    assert plain(decode_answer(method, message, arrived(attachments))) == plain(answer)


CARRIED = {
    calls.Apply: "shard stamp batch body create_only claim versions",
    calls.Search: "shard queries k field condition exact ef recall_target score_threshold payload vectors unproven "
    "explain",
    calls.Shared: "openings positions names",
    calls.Lookup: "shard ids records payload vectors brief",
    calls.Score: "shard query ids field condition",
    calls.Repair: "shard records gc_floor tied",
    calls.Scroll: "shard cursor limit condition payload vectors",
    calls.Select: "shard condition count_only",
    calls.Maintain: "shard task through openings positions bytes_per_s",
    calls.Sums: "shard through gc_floor depth nodes fresh agree",
    calls.Entries: "shard gc_floor depth nodes limit cursor",
    calls.Applied: (
        "verdict hlc lsn durability existed superseded newer missing error partial barred open_rows open_stamps"
    ),
    calls.ShardHits: "verdict distances counts ids stamps payload vectors work hlc error overlays opening lsn shared "
    "explanation",
    calls.Looked: "verdict states stamps digests records payload vectors hlc error overlays",
    calls.Scored: "verdict states stamps matches distances error overlays",
    calls.Scrolled: "verdict ids stamps hashes payload vectors cursor error overlays",
    calls.Selected: "verdict count ids stamps error overlays",
    calls.Maintained: "verdict value error",
    calls.Summed: "verdict counts first second gc_floor repaired_through error opening lsn",
    calls.Listed: "verdict ids states stamps bases digests cursor error",
    calls.Work: "vectors_scanned segments_searched segments_skipped cache_hit_rate cost_estimate",
}


@pytest.mark.parametrize("kind", CARRIED, ids=lambda kind: kind.__name__)
def test_no_field_stays_behind(kind: type) -> None:
    """A field that joins a call or an answer joins the wire, the cases above, and this list."""
    assert " ".join(names_of(kind)) == CARRIED[kind]


def test_a_batch_that_is_encoded_already_is_sent_as_it_is() -> None:
    batch = WriteBatch(Op.UPSERT, IdColumn.of([1, 2]), {"": np.ones((2, 2000), np.float32)})
    body = encode_batch(batch)
    _, message, attachments = encode_call(calls.Apply(SHARD, 7, batch, body))
    assert attachments == [body] and all(a is b for a, b in zip(attachments[0], body, strict=True))
    back = decode_call(pb.DATA_NODE_METHOD_APPLY, message, arrived(attachments))
    assert isinstance(back, calls.Apply) and back.body is not None
    assert b"".join(map(bytes, back.body)) == b"".join(bytes(byte_view(part)) for part in body)


def test_a_verdict_of_a_newer_release_is_a_refusal() -> None:
    message = pb.SelectedAnswer(verdict=pb.Verdict(verdict=99)).SerializeToString()
    back = decode_answer(pb.DATA_NODE_METHOD_SELECT, message, [])
    assert back.verdict is Verdict.REFUSED and isinstance(back.error, OmenDBError)


def test_writes_are_never_among_what_may_be_ended() -> None:
    assert not {pb.DATA_NODE_METHOD_APPLY, pb.DATA_NODE_METHOD_REPAIR, pb.DATA_NODE_METHOD_MAINTAIN} & READS


def blob(data: bytes) -> pb.Blob:
    return pb.Blob(inline=data)


def array(shape: list[int], data: bytes, dtype: str = "<f4") -> pb.Array:
    return pb.Array(dtype=dtype, shape=shape, data=blob(data))


def upsert(**change: Any) -> bytes:
    """A body of two points; ``change`` replaces columns by wrong ones."""
    columns = {"vectors": {"": np.ones((2, 2), np.float32)}, "payload": None, "stamps": None} | change
    batch = WriteBatch(Op.UPSERT, IdColumn.of([1, 2]), **columns)
    return b"".join(bytes(byte_view(part)) for part in encode_batch(batch))


FORGED = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 99, 2], np.int32)), pa.py_buffer(b"ab"))
BAD_CALLS: dict[str, tuple[int, Any]] = {
    "unknown method": (99, b""),
    "no message": (pb.DATA_NODE_METHOD_SEARCH, b"\xff\xff\xff"),
    "no queries": (2, pb.SearchCall(k=1)),
    "queries of another size": (2, pb.SearchCall(k=1, queries=array([2, 2], bytes(12)))),
    "queries whose size overflows": (2, pb.SearchCall(k=1, queries=array([1 << 62, 4], bytes(0)))),
    "queries of no bytes and many rows": (2, pb.SearchCall(k=1, queries=array([0, 1 << 40], b""))),
    "queries of objects": (2, pb.SearchCall(k=1, queries=array([1, 1], bytes(8), "|O"))),
    "queries of one dimension": (2, pb.SearchCall(k=1, queries=array([1], bytes(4)))),
    "k of 0": (2, pb.SearchCall(queries=array([1, 1], bytes(4)))),
    "k beyond reason": (2, pb.SearchCall(k=(1 << 32) - 1, queries=array([1, 1], bytes(4)))),
    "a bad filter": (2, pb.SearchCall(k=1, queries=array([1, 1], bytes(4)), condition="{")),
    "a missing attachment": (3, pb.LookupCall(ids=pb.IdBlob(data=pb.Blob(attachment=2)))),
    "half an id": (3, pb.LookupCall(ids=pb.IdBlob(data=blob(bytes(7))))),
    "no Arrow": (3, pb.LookupCall(ids=pb.IdBlob(arrow=True, data=blob(b"abc")))),
    "a page of none": (6, pb.ScrollCall(limit=0)),
    "a page of too many": (6, pb.ScrollCall(limit=100_001)),
    "a strange task": (8, pb.MaintainCall(task="rm -rf")),
    "a level that no tree has": (9, pb.SumsCall(depth=17, nodes=blob(bytes(8)))),
    "no nodes": (9, pb.SumsCall(depth=3)),
    "a node beyond its level": (9, pb.SumsCall(depth=3, nodes=blob(np.array([8]).tobytes()))),
    "a node below zero": (10, pb.EntriesCall(depth=3, limit=1, nodes=blob(np.array([-1]).tobytes()))),
    "more nodes than one asks for": (9, pb.SumsCall(depth=16, nodes=blob(bytes(8 * 8193)))),
    "no entries": (10, pb.EntriesCall(depth=3, nodes=blob(bytes(8)))),
    "too many entries": (10, pb.EntriesCall(depth=3, limit=8193, nodes=blob(bytes(8)))),
    "no batch": (1, pb.ApplyCall()),
    "a short batch": (1, pb.ApplyCall(batch=blob(upsert()[:100]))),
    "vectors of objects": (1, pb.ApplyCall(batch=blob(upsert().replace(b'"<f4"', b'"|O8"')))),
    "vectors of another type": (1, pb.ApplyCall(batch=blob(upsert().replace(b'"<f4"', b'"<i4"')))),
    "vectors of other rows": (1, pb.ApplyCall(batch=blob(upsert().replace(b"[2,2]", b"[1,4]")))),
    "vectors that are flat": (1, pb.ApplyCall(batch=blob(upsert().replace(b"[2,2]", b"[4]  ")))),
    "vectors whose size overflows": (1, pb.ApplyCall(batch=blob(upsert().replace(b"[2,2]", b"[2,9]")))),
    "forged payload": (1, pb.ApplyCall(batch=blob(upsert(payload=pa.record_batch({"a#s": FORGED}))))),
    "payload of other rows": (1, pb.ApplyCall(batch=blob(upsert(payload=pa.record_batch({"a#i": [1]}))))),
    "too few stamps": (1, pb.ApplyCall(batch=blob(upsert(stamps=np.ones(1, np.uint64))))),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_malformed_calls_are_refused(name: str) -> None:
    method, message = BAD_CALLS[name]
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with pytest.raises(InvalidArgumentError):
        decode_call(method, data, [memoryview(b"")])


BAD_HITS = {
    "counts beyond k": pb.HitsAnswer(counts=blob(np.array([3]).tobytes()), distances=blob(bytes(8))),
    "negative counts": pb.HitsAnswer(counts=blob(np.array([-1, 1]).tobytes()), distances=blob(bytes(8))),
    "ragged distances": pb.HitsAnswer(counts=blob(np.array([1, 1]).tobytes()), distances=blob(bytes(12))),
    "distances of nobody": pb.HitsAnswer(distances=blob(bytes(12))),
    "ids that do not add up": pb.HitsAnswer(counts=blob(np.array([1]).tobytes()), distances=blob(bytes(4))),
}


@pytest.mark.parametrize("name", BAD_HITS)
def test_malformed_hits_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        decode_answer(pb.DATA_NODE_METHOD_SEARCH, BAD_HITS[name].SerializeToString(), [])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 11), st.binary(max_size=120), st.binary(max_size=50))
def test_any_bytes_are_a_call_or_refused(method: int, message: bytes, attachment: bytes) -> None:
    try:
        decode_call(method, message, [memoryview(attachment)])
    except OmenDBError as error:
        assert error.code == "INVALID_ARGUMENT"


@settings(max_examples=200, deadline=None)
@given(any_call(), st.data())
def test_a_damaged_call_is_read_or_refused(call: Any, data: st.DataObject) -> None:
    method, message, attachments = encode_call(call)
    places = [bytearray(message), *(bytearray(a) for a in arrived(attachments))]
    place = data.draw(st.sampled_from([p for p in places if p] or [bytearray(1)]))
    place[data.draw(st.integers(0, len(place) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode_call(method, bytes(places[0]), [memoryview(bytes(p)) for p in places[1:]])
    except OmenDBError as error:
        assert error.code == "INVALID_ARGUMENT"

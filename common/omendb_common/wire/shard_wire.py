"""The calls of ``shard_calls`` and their answers, as messages with attachments and back.

``encode_call`` and ``encode_answer`` never fail for values that the rest of OmenDB made; ``decode_call`` and
``decode_answer`` refuse what is malformed with InvalidArgumentError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

import numpy as np
from google.protobuf.message import DecodeError

from omendb_common import shard_calls as calls
from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.overlays import NO_OVERLAYS, Overlays
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import K_MAX, QUERIES_PER_CALL_MAX, SCROLL_LIMIT_MAX
from omendb_common.shard_calls import ShardRef, Verdict
from omendb_common.wire import status
from omendb_common.wire.blobs import F32, I64, U8, U32, U64, Packer, Unpacker
from omendb_common.wire.convert import (
    explanation_from_text,
    explanation_to_text,
    filter_from_known_text,
    filter_to_text,
    performance_from_proto,
    performance_to_proto,
)
from omendb_common.wire.frames import Attachment
from omendb_proto.v1 import datanode_pb2 as pb

Call = (
    calls.Apply
    | calls.Search
    | calls.Lookup
    | calls.Score
    | calls.Repair
    | calls.Scroll
    | calls.Select
    | calls.Maintain
    | calls.Sums
    | calls.Entries
)
Answer = (
    calls.Applied
    | calls.ShardHits
    | calls.Looked
    | calls.Scored
    | calls.Scrolled
    | calls.Selected
    | calls.Maintained
    | calls.Summed
    | calls.Listed
)
Packed = tuple[int, bytes, Sequence[Attachment]]
"""Method, message, attachments."""

_TASKS = frozenset(get_args(calls.Task))
# A router asks a replica for more than its caller asked for, to have some left when others know better.
_K_MAX = 4 * K_MAX
# More than a shard ever has replicas.
_OPENINGS_MAX = 64

READS = frozenset(
    {
        pb.DATA_NODE_METHOD_SEARCH,
        pb.DATA_NODE_METHOD_LOOKUP,
        pb.DATA_NODE_METHOD_SCORE,
        pb.DATA_NODE_METHOD_SCROLL,
        pb.DATA_NODE_METHOD_SELECT,
        pb.DATA_NODE_METHOD_SUMS,
        pb.DATA_NODE_METHOD_ENTRIES,
    }
)
"""Methods that change nothing: a call of one that nobody waits for may be ended."""


def _shard_out(shard: ShardRef) -> pb.Shard:
    return pb.Shard(
        collection_uuid=shard.collection_uuid, shard_id=shard.shard_id, epoch=shard.epoch, origin=shard.origin
    )


def _shard_in(shard: pb.Shard) -> ShardRef:
    return ShardRef(shard.collection_uuid, shard.shard_id, shard.epoch, shard.origin)


def _within(value: int, low: int, high: int, field: str) -> int:
    if not low <= value <= high:
        raise InvalidArgumentError(f"got {value}", field=field, bound=f"{low}..{high}")
    return value


# --- calls


def _apply_out(call: calls.Apply, pack: Packer) -> pb.ApplyCall:
    message = pb.ApplyCall(
        shard=_shard_out(call.shard), stamp=call.stamp, create_only=call.create_only, claim=call.claim
    )
    if call.claim:
        pack.ids(message.claimed, call.batch.ids)
    elif call.versions is not None:
        pack.column(message.versions, call.versions, U64)
        pack.batch(message.conditional, call.batch, call.body)
    else:
        pack.batch(message.batch, call.batch, call.body)
    return message


def _apply_in(message: pb.ApplyCall, blobs: Unpacker) -> calls.Apply:
    claim = calls.Claim(_within(message.claim, calls.Claim.NONE, calls.Claim.WAIVE, "claim"))
    if claim:
        marked = WriteBatch(Op.DELETE, blobs.ids(message.claimed))
        return calls.Apply(_shard_in(message.shard), message.stamp, marked, None, message.create_only, claim)
    conditional = message.HasField("conditional")
    batch, body = blobs.batch(message.conditional if conditional else message.batch)
    wanted = blobs.column(message.versions, U64, "versions", batch.rows) if conditional else None
    return calls.Apply(_shard_in(message.shard), message.stamp, batch, (body,), message.create_only, versions=wanted)


def _search_out(call: calls.Search, pack: Packer) -> pb.SearchCall:
    message = pb.SearchCall(
        shard=_shard_out(call.shard),
        k=call.k,
        field=call.field,
        condition=filter_to_text(call.condition),
        exact=call.exact,
        ef=call.ef,
        recall_target=call.recall_target,
        score_threshold=call.score_threshold,
        payload=call.payload,
        vectors=call.vectors,
        unproven=call.unproven,
        explain=call.explain,
    )
    pack.array(message.queries, call.queries)
    return message


def _search_in(message: pb.SearchCall, blobs: Unpacker) -> calls.Search:
    queries = blobs.array(message.queries, "queries", dimensions=2)
    _within(len(queries), 1, QUERIES_PER_CALL_MAX, "queries")
    return calls.Search(
        _shard_in(message.shard),
        queries,
        _within(message.k, 1, _K_MAX, "k"),
        message.field,
        filter_from_known_text(message.condition),
        message.exact,
        message.ef if message.HasField("ef") else None,
        message.recall_target if message.HasField("recall_target") else None,
        message.score_threshold if message.HasField("score_threshold") else None,
        message.payload,
        message.vectors,
        message.unproven,
        message.explain,
    )


def _lookup_out(call: calls.Lookup, pack: Packer) -> pb.LookupCall:
    message = pb.LookupCall(
        shard=_shard_out(call.shard),
        records=call.records,
        payload=call.payload,
        vectors=call.vectors,
        brief=call.brief,
    )
    pack.ids(message.ids, call.ids)
    return message


def _lookup_in(message: pb.LookupCall, blobs: Unpacker) -> calls.Lookup:
    ids = blobs.ids(message.ids)
    vectors = tuple(message.vectors)
    return calls.Lookup(_shard_in(message.shard), ids, message.records, message.payload, vectors, message.brief)


def _score_out(call: calls.Score, pack: Packer) -> pb.ScoreCall:
    message = pb.ScoreCall(shard=_shard_out(call.shard), field=call.field, condition=filter_to_text(call.condition))
    pack.array(message.query, call.query)
    pack.ids(message.ids, call.ids)
    return message


def _score_in(message: pb.ScoreCall, blobs: Unpacker) -> calls.Score:
    # One query, as a row or as a matrix of one row: it comes back as it was given.
    dimensions = _within(len(message.query.shape), 1, 2, "query")
    query = blobs.array(message.query, "query", dimensions=dimensions)
    ids = blobs.ids(message.ids)
    return calls.Score(_shard_in(message.shard), query, ids, message.field, filter_from_known_text(message.condition))


def _repair_out(call: calls.Repair, pack: Packer) -> pb.RepairCall:
    message = pb.RepairCall(shard=_shard_out(call.shard), gc_floor=call.gc_floor, tied=call.tied)
    for batch in call.records:
        pack.batch(message.records.add(), batch)
    return message


def _repair_in(message: pb.RepairCall, blobs: Unpacker) -> calls.Repair:
    records = tuple(blobs.batch(record)[0] for record in message.records)
    return calls.Repair(_shard_in(message.shard), records, message.gc_floor, message.tied)


def _scroll_out(call: calls.Scroll, pack: Packer) -> pb.ScrollCall:
    return pb.ScrollCall(
        shard=_shard_out(call.shard),
        cursor=call.cursor,
        limit=call.limit,
        condition=filter_to_text(call.condition),
        payload=call.payload,
        vectors=call.vectors,
    )


def _scroll_in(message: pb.ScrollCall, blobs: Unpacker) -> calls.Scroll:
    return calls.Scroll(
        _shard_in(message.shard),
        message.cursor if message.HasField("cursor") else None,
        _within(message.limit, 1, SCROLL_LIMIT_MAX, "limit"),
        filter_from_known_text(message.condition),
        message.payload,
        tuple(message.vectors),
    )


def _select_out(call: calls.Select, pack: Packer) -> pb.SelectCall:
    return pb.SelectCall(
        shard=_shard_out(call.shard), condition=filter_to_text(call.condition), count_only=call.count_only
    )


def _select_in(message: pb.SelectCall, blobs: Unpacker) -> calls.Select:
    return calls.Select(_shard_in(message.shard), filter_from_known_text(message.condition), message.count_only)


def _maintain_out(call: calls.Maintain, pack: Packer) -> pb.MaintainCall:
    told = pb.MaintainCall(
        shard=_shard_out(call.shard), task=call.task, through=call.through, bytes_per_s=call.bytes_per_s
    )
    told.openings.extend(call.openings)
    told.positions.extend(call.positions)
    return told


def _maintain_in(message: pb.MaintainCall, blobs: Unpacker) -> calls.Maintain:
    if message.task not in _TASKS:
        raise InvalidArgumentError(f"unknown task {message.task!r}", field="task", bound=f"one of {sorted(_TASKS)}")
    _within(len(message.openings), 0, _OPENINGS_MAX, "openings")
    if len(message.positions) != len(message.openings):
        raise InvalidArgumentError(f"{len(message.positions)} positions", field="positions", bound="one each")
    return calls.Maintain(
        _shard_in(message.shard),
        cast(calls.Task, message.task),
        message.through,
        tuple(message.openings),
        tuple(message.positions),
        message.bytes_per_s,
    )


def _sums_out(call: calls.Sums, pack: Packer) -> pb.SumsCall:
    message = pb.SumsCall(
        shard=_shard_out(call.shard),
        through=call.through,
        gc_floor=call.gc_floor,
        depth=call.depth,
        fresh=call.fresh,
        agree=call.agree,
    )
    pack.column(message.nodes, call.nodes, I64)
    return message


def _sums_in(message: pb.SumsCall, blobs: Unpacker) -> calls.Sums:
    depth, nodes = _nodes_in(message, blobs)
    shard = _shard_in(message.shard)
    return calls.Sums(shard, message.through, message.gc_floor, depth, nodes, message.fresh, message.agree)


def _nodes_in(message: pb.SumsCall | pb.EntriesCall, blobs: Unpacker) -> tuple[int, calls.Int64]:
    """A level of the hash tree, and numbers of nodes there."""
    depth = _within(message.depth, 0, calls.TREE_DEPTH_MAX, "depth")
    nodes = blobs.column(message.nodes, I64, "nodes")
    _within(len(nodes), 1, calls.TREE_NODES_MAX, "nodes")
    _within(int(nodes.min()), 0, (1 << depth) - 1, "nodes")
    _within(int(nodes.max()), 0, (1 << depth) - 1, "nodes")
    return depth, nodes


def _entries_out(call: calls.Entries, pack: Packer) -> pb.EntriesCall:
    message = pb.EntriesCall(
        shard=_shard_out(call.shard), gc_floor=call.gc_floor, depth=call.depth, limit=call.limit, cursor=call.cursor
    )
    pack.column(message.nodes, call.nodes, I64)
    return message


def _entries_in(message: pb.EntriesCall, blobs: Unpacker) -> calls.Entries:
    depth, nodes = _nodes_in(message, blobs)
    limit = _within(message.limit, 1, calls.ENTRIES_MAX, "limit")
    cursor = message.cursor if message.HasField("cursor") else None
    return calls.Entries(_shard_in(message.shard), message.gc_floor, depth, nodes, limit, cursor)


# --- answers


def _verdict_out(out: pb.Verdict, verdict: Verdict, error: OmenDBError | None, hlc: int = 0) -> None:
    out.verdict = verdict
    out.hlc = hlc
    if error is not None:
        out.error.CopyFrom(status.to_proto(error))


def _verdict_in(message: pb.Verdict) -> tuple[Verdict, OmenDBError | None]:
    error = status.from_proto(message.error) if message.HasField("error") else None
    try:
        return Verdict(message.verdict), error
    except ValueError:
        # Of a newer release: whatever it says, it is not OK.
        return Verdict.REFUSED, error or OmenDBError(f"the node answered {message.verdict}, which is unknown here")


def _overlays_out(message: Any, overlays: Overlays, pack: Packer) -> None:
    """Nothing, where there are none."""
    if len(overlays.rows):
        pack.column(message.overlays.rows, overlays.rows, I64)
        pack.column(message.overlays.bases, overlays.bases, U64)
        pack.column(message.overlays.marks, overlays.marks, U64)


def _overlays_in(message: Any, blobs: Unpacker, rows: int) -> Overlays:
    """Of an answer with that many rows."""
    if not message.HasField("overlays"):
        return NO_OVERLAYS
    at = blobs.column(message.overlays.rows, I64, "overlays")
    if len(at):
        _within(int(at[0]), 0, rows - 1, "overlays")
        _within(int(at[-1]), 0, rows - 1, "overlays")
    if (np.diff(at) <= 0).any():
        raise InvalidArgumentError("rows out of order", field="overlays", bound="ascending")
    bases = blobs.column(message.overlays.bases, U64, "overlays", len(at))
    return Overlays(at, bases, blobs.column(message.overlays.marks, U64, "overlays", len(at)))


def _applied_out(answer: calls.Applied, pack: Packer) -> pb.AppliedAnswer:
    message = pb.AppliedAnswer(
        lsn=answer.lsn, durability=answer.durability, existed=answer.existed, partial=answer.partial
    )
    _verdict_out(message.verdict, answer.verdict, answer.error, answer.hlc)
    pack.column(message.superseded, answer.superseded, I64)
    pack.column(message.newer, answer.newer, U64)
    pack.column(message.missing, answer.missing, I64)
    pack.column(message.barred, answer.barred, I64)
    pack.column(message.open_rows, answer.open_rows, I64)
    pack.column(message.open_stamps, answer.open_stamps, U64)
    return message


def _applied_in(message: pb.AppliedAnswer, blobs: Unpacker) -> calls.Applied:
    verdict, error = _verdict_in(message.verdict)
    superseded = blobs.column(message.superseded, I64, "superseded")
    return calls.Applied(
        verdict,
        message.verdict.hlc,
        message.lsn,
        message.durability,
        message.existed,
        superseded,
        blobs.column(message.newer, U64, "newer", len(superseded)),
        blobs.column(message.missing, I64, "missing"),
        error,
        message.partial,
        blobs.column(message.barred, I64, "barred"),
        opened := blobs.column(message.open_rows, I64, "open_rows"),
        blobs.column(message.open_stamps, U64, "open_stamps", len(opened)),
    )


def _hits_out(answer: calls.ShardHits, pack: Packer) -> pb.HitsAnswer:
    message = pb.HitsAnswer(work=performance_to_proto(answer.work, 0.0), opening=answer.opening, lsn=answer.lsn)
    _verdict_out(message.verdict, answer.verdict, answer.error, answer.hlc)
    pack.column(message.distances, answer.distances, F32)
    pack.column(message.counts, answer.counts, I64)
    pack.ids(message.ids, answer.ids)
    pack.column(message.stamps, answer.stamps, U64)
    if answer.payload is not None:
        pack.payload(message.payload, answer.payload)
    if answer.vectors is not None:
        pack.array(message.vectors, answer.vectors)
    _overlays_out(message, answer.overlays, pack)
    if answer.shared is not None:
        message.shared.SetInParent()
        pack.column(message.shared.openings, answer.shared.openings, U64)
        pack.column(message.shared.positions, answer.shared.positions, U64)
        pack.column(message.shared.names, answer.shared.names, U32)
    message.explanation = explanation_to_text(answer.explanation)
    return message


def _shared_in(message: pb.HitsAnswer, blobs: Unpacker) -> calls.Shared | None:
    if not message.HasField("shared"):
        return None
    openings = blobs.column(message.shared.openings, U64, "openings")
    positions = blobs.column(message.shared.positions, U64, "positions", len(openings))
    names = blobs.column(message.shared.names, U32, "names")
    if (names[1:] < names[:-1]).any():
        raise InvalidArgumentError("names out of order", field="names", bound="ascending")
    return calls.Shared(openings, positions, names)


def _hits_in(message: pb.HitsAnswer, blobs: Unpacker) -> calls.ShardHits:
    verdict, error = _verdict_in(message.verdict)
    counts = blobs.column(message.counts, I64, "counts")
    distances = blobs.column(message.distances, F32, "distances")
    queries = len(counts)
    if len(distances) % max(queries, 1) or (distances.size and not queries):
        raise InvalidArgumentError(f"{len(distances)} distances", field="distances", bound=f"rows for {queries}")
    k = len(distances) // max(queries, 1)
    # Plain integers: for the few counts of a search they are quicker than three reductions.
    numbers = counts.tolist()
    if queries and not 0 <= min(numbers) <= max(numbers) <= k:
        raise InvalidArgumentError(f"counts up to {max(numbers)}", field="counts", bound=f"0..{k}")
    total = sum(numbers)
    vectors = blobs.array(message.vectors, "vectors", dimensions=2) if message.HasField("vectors") else None
    if vectors is not None and len(vectors) != total:
        raise InvalidArgumentError(f"{len(vectors)} vectors", field="vectors", bound=f"{total}")
    return calls.ShardHits(
        verdict,
        distances.reshape(queries, k),
        counts,
        blobs.ids(message.ids, rows=total),
        blobs.column(message.stamps, U64, "stamps", total),
        blobs.payload(message.payload, total) if message.HasField("payload") else None,
        vectors,
        performance_from_proto(message.work)[0],
        message.verdict.hlc,
        error,
        _overlays_in(message, blobs, total),
        message.opening,
        message.lsn,
        _shared_in(message, blobs),
        explanation_from_text(message.explanation),
    )


def _looked_out(answer: calls.Looked, pack: Packer) -> pb.LookedAnswer:
    message = pb.LookedAnswer()
    _verdict_out(message.verdict, answer.verdict, answer.error, answer.hlc)
    pack.column(message.states, answer.states, U8)
    pack.column(message.stamps, answer.stamps, U64)
    pack.column(message.digests, answer.digests, U64)
    _overlays_out(message, answer.overlays, pack)
    for batch in answer.records:
        pack.batch(message.records.add(), batch)
    if answer.payload is not None:
        pack.payload(message.payload, answer.payload)
    pack.arrays(message.vectors, answer.vectors)
    return message


def _looked_in(message: pb.LookedAnswer, blobs: Unpacker) -> calls.Looked:
    verdict, error = _verdict_in(message.verdict)
    states = blobs.column(message.states, U8, "states")
    rows = len(states)
    live = int(np.count_nonzero(states == calls.State.LIVE))
    return calls.Looked(
        verdict,
        states,
        blobs.column(message.stamps, U64, "stamps", rows),
        blobs.column(message.digests, U64, "digests", rows),
        tuple(blobs.batch(record)[0] for record in message.records),
        blobs.payload(message.payload, live) if message.HasField("payload") else None,
        blobs.arrays(message.vectors, live, "vectors"),
        message.verdict.hlc,
        error,
        _overlays_in(message, blobs, rows),
    )


def _scored_out(answer: calls.Scored, pack: Packer) -> pb.ScoredAnswer:
    message = pb.ScoredAnswer()
    _verdict_out(message.verdict, answer.verdict, answer.error)
    pack.column(message.states, answer.states, U8)
    pack.column(message.stamps, answer.stamps, U64)
    pack.column(message.matches, answer.matches, U8)
    pack.column(message.distances, answer.distances, F32)
    _overlays_out(message, answer.overlays, pack)
    return message


def _scored_in(message: pb.ScoredAnswer, blobs: Unpacker) -> calls.Scored:
    verdict, error = _verdict_in(message.verdict)
    states = blobs.column(message.states, U8, "states")
    rows = len(states)
    return calls.Scored(
        verdict,
        states,
        blobs.column(message.stamps, U64, "stamps", rows),
        blobs.column(message.matches, U8, "matches", rows) != 0,
        blobs.column(message.distances, F32, "distances", rows),
        error,
        _overlays_in(message, blobs, rows),
    )


def _scrolled_out(answer: calls.Scrolled, pack: Packer) -> pb.ScrolledAnswer:
    message = pb.ScrolledAnswer(cursor=answer.cursor)
    _verdict_out(message.verdict, answer.verdict, answer.error)
    pack.ids(message.ids, answer.ids)
    pack.column(message.stamps, answer.stamps, U64)
    pack.column(message.hashes, answer.hashes, U64)
    _overlays_out(message, answer.overlays, pack)
    if answer.payload is not None:
        pack.payload(message.payload, answer.payload)
    pack.arrays(message.vectors, answer.vectors)
    return message


def _scrolled_in(message: pb.ScrolledAnswer, blobs: Unpacker) -> calls.Scrolled:
    verdict, error = _verdict_in(message.verdict)
    ids = blobs.ids(message.ids)
    rows = len(ids)
    return calls.Scrolled(
        verdict,
        ids,
        blobs.column(message.stamps, U64, "stamps", rows),
        blobs.column(message.hashes, U64, "hashes", rows),
        blobs.payload(message.payload, rows) if message.HasField("payload") else None,
        blobs.arrays(message.vectors, rows, "vectors"),
        message.cursor if message.HasField("cursor") else None,
        error,
        _overlays_in(message, blobs, rows),
    )


def _selected_out(answer: calls.Selected, pack: Packer) -> pb.SelectedAnswer:
    message = pb.SelectedAnswer(count=answer.count)
    _verdict_out(message.verdict, answer.verdict, answer.error)
    pack.ids(message.ids, answer.ids)
    pack.column(message.stamps, answer.stamps, U64)
    _overlays_out(message, answer.overlays, pack)
    return message


def _selected_in(message: pb.SelectedAnswer, blobs: Unpacker) -> calls.Selected:
    verdict, error = _verdict_in(message.verdict)
    ids = blobs.ids(message.ids)
    stamps = blobs.column(message.stamps, U64, "stamps", len(ids))
    return calls.Selected(verdict, message.count, ids, stamps, error, _overlays_in(message, blobs, len(ids)))


def _maintained_out(answer: calls.Maintained, pack: Packer) -> pb.MaintainedAnswer:
    message = pb.MaintainedAnswer(value=json.dumps(answer.value))
    _verdict_out(message.verdict, answer.verdict, answer.error)
    return message


def _maintained_in(message: pb.MaintainedAnswer, blobs: Unpacker) -> calls.Maintained:
    verdict, error = _verdict_in(message.verdict)
    try:
        value = json.loads(message.value)
    except (ValueError, RecursionError):
        raise InvalidArgumentError("no JSON", field="value") from None
    return calls.Maintained(verdict, value, error)


def _summed_out(answer: calls.Summed, pack: Packer) -> pb.SummedAnswer:
    message = pb.SummedAnswer(
        gc_floor=answer.gc_floor, repaired_through=answer.repaired_through, opening=answer.opening, lsn=answer.lsn
    )
    _verdict_out(message.verdict, answer.verdict, answer.error)
    pack.column(message.counts, answer.counts, I64)
    pack.column(message.first, answer.first, U64)
    pack.column(message.second, answer.second, U64)
    return message


def _summed_in(message: pb.SummedAnswer, blobs: Unpacker) -> calls.Summed:
    verdict, error = _verdict_in(message.verdict)
    counts = blobs.column(message.counts, I64, "counts")
    return calls.Summed(
        verdict,
        counts,
        blobs.column(message.first, U64, "first", len(counts)),
        blobs.column(message.second, U64, "second", len(counts)),
        message.gc_floor,
        message.repaired_through,
        error,
        message.opening,
        message.lsn,
    )


def _listed_out(answer: calls.Listed, pack: Packer) -> pb.ListedAnswer:
    message = pb.ListedAnswer(cursor=answer.cursor)
    _verdict_out(message.verdict, answer.verdict, answer.error)
    pack.ids(message.ids, answer.ids)
    pack.column(message.states, answer.states, U8)
    pack.column(message.stamps, answer.stamps, U64)
    pack.column(message.bases, answer.bases, U64)
    pack.column(message.digests, answer.digests, U64)
    return message


def _listed_in(message: pb.ListedAnswer, blobs: Unpacker) -> calls.Listed:
    verdict, error = _verdict_in(message.verdict)
    ids = blobs.ids(message.ids)
    rows = len(ids)
    return calls.Listed(
        verdict,
        ids,
        blobs.column(message.states, U8, "states", rows),
        blobs.column(message.stamps, U64, "stamps", rows),
        blobs.column(message.bases, U64, "bases", rows),
        blobs.column(message.digests, U64, "digests", rows),
        message.cursor if message.HasField("cursor") else None,
        error,
    )


# --- the tables

_CALLS: dict[int, tuple[type, Any, Callable[..., Any], Callable[..., Call]]] = {
    pb.DATA_NODE_METHOD_APPLY: (calls.Apply, pb.ApplyCall, _apply_out, _apply_in),
    pb.DATA_NODE_METHOD_SEARCH: (calls.Search, pb.SearchCall, _search_out, _search_in),
    pb.DATA_NODE_METHOD_LOOKUP: (calls.Lookup, pb.LookupCall, _lookup_out, _lookup_in),
    pb.DATA_NODE_METHOD_SCORE: (calls.Score, pb.ScoreCall, _score_out, _score_in),
    pb.DATA_NODE_METHOD_REPAIR: (calls.Repair, pb.RepairCall, _repair_out, _repair_in),
    pb.DATA_NODE_METHOD_SCROLL: (calls.Scroll, pb.ScrollCall, _scroll_out, _scroll_in),
    pb.DATA_NODE_METHOD_SELECT: (calls.Select, pb.SelectCall, _select_out, _select_in),
    pb.DATA_NODE_METHOD_MAINTAIN: (calls.Maintain, pb.MaintainCall, _maintain_out, _maintain_in),
    pb.DATA_NODE_METHOD_SUMS: (calls.Sums, pb.SumsCall, _sums_out, _sums_in),
    pb.DATA_NODE_METHOD_ENTRIES: (calls.Entries, pb.EntriesCall, _entries_out, _entries_in),
}
_ANSWERS: dict[int, tuple[Any, Callable[..., Any], Callable[..., Answer]]] = {
    pb.DATA_NODE_METHOD_APPLY: (pb.AppliedAnswer, _applied_out, _applied_in),
    pb.DATA_NODE_METHOD_SEARCH: (pb.HitsAnswer, _hits_out, _hits_in),
    pb.DATA_NODE_METHOD_LOOKUP: (pb.LookedAnswer, _looked_out, _looked_in),
    pb.DATA_NODE_METHOD_SCORE: (pb.ScoredAnswer, _scored_out, _scored_in),
    pb.DATA_NODE_METHOD_REPAIR: (pb.AppliedAnswer, _applied_out, _applied_in),
    pb.DATA_NODE_METHOD_SCROLL: (pb.ScrolledAnswer, _scrolled_out, _scrolled_in),
    pb.DATA_NODE_METHOD_SELECT: (pb.SelectedAnswer, _selected_out, _selected_in),
    pb.DATA_NODE_METHOD_MAINTAIN: (pb.MaintainedAnswer, _maintained_out, _maintained_in),
    pb.DATA_NODE_METHOD_SUMS: (pb.SummedAnswer, _summed_out, _summed_in),
    pb.DATA_NODE_METHOD_ENTRIES: (pb.ListedAnswer, _listed_out, _listed_in),
}
_METHOD_OF = {value: method for method, (value, _, _, _) in _CALLS.items()}


def encode_call(call: Call) -> Packed:
    """Method, message and attachments of a call; large arrays are referenced, not copied."""
    method = _METHOD_OF[type(call)]
    pack = Packer()
    message = _CALLS[method][2](call, pack)
    return method, message.SerializeToString(), pack.attachments


def decode_call(method: int, message: bytes, attachments: Sequence[memoryview]) -> Call:
    """The call of a request; its arrays are views of ``message`` and ``attachments``.

    Raises:
        InvalidArgumentError: an unknown method, or malformed.
    """
    if method not in _CALLS:
        raise InvalidArgumentError(f"unknown method {method}", field="method", mend="upgrade this node")
    _, kind, _, read = _CALLS[method]
    return read(_parse(kind, message), Unpacker(attachments))


def encode_answer(method: int, answer: Answer) -> tuple[bytes, Sequence[Attachment]]:
    """Message and attachments of the answer to a call of ``method``."""
    pack = Packer()
    message = _ANSWERS[method][1](answer, pack)
    return message.SerializeToString(), pack.attachments


def decode_answer(method: int, message: bytes, attachments: Sequence[memoryview]) -> Answer:
    """The answer to a call of ``method``; InvalidArgumentError when it is malformed."""
    kind, _, read = _ANSWERS[method]
    return read(_parse(kind, message), Unpacker(attachments))


def _parse(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidArgumentError("no message of its kind", field=kind.DESCRIPTOR.name) from None


__all__ = ["READS", "Answer", "Call", "Packed", "decode_answer", "decode_call", "encode_answer", "encode_call"]

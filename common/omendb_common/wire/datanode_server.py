"""A data node served over framed connections."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.security.renewal import renewed
from omendb_common.security.tls import TlsFiles
from omendb_common.shard_calls import DataNode
from omendb_common.wire.frame_connection import FrameIdentity, Report
from omendb_common.wire.frame_server import Answer, FrameServer, Request
from omendb_common.wire.frames import FrameLimits, FrameStats
from omendb_common.wire.shard_wire import READS, decode_call, encode_answer
from omendb_proto.v1 import datanode_pb2 as pb

ROLES = ("router", "datanode")
"""The processes that may call a data node: other data nodes compare what they hold (P12)."""


async def serve_datanode(
    node: DataNode,
    listen: str,
    *,
    identity: FrameIdentity,
    tls: TlsFiles | None = None,
    roles: Collection[str] | None = ROLES,
    limits: FrameLimits | None = None,
    stats: FrameStats | None = None,
    clock: Clock | None = None,
    report: Report | None = None,
) -> FrameServer:
    """Serve ``node`` at ``listen`` (``host:port``, port 0 for a free one).

    Returns:
        The running server: ``.address`` is where it listens, ``await .stop()`` answers what was taken and ends it.

    Raises:
        OSError: the address cannot be had.
        InvalidArgumentError: a malformed address, or unusable TLS files.
    """
    server = FrameServer(
        _handler(node),
        identity,
        roles=roles,
        cancellable=READS,
        tls=None if tls is None else renewed(tls).server,
        limits=limits,
        stats=stats,
        clock=clock,
        report=report,
    )
    await server.start(listen)
    return server


def _handler(node: DataNode) -> Callable[[Request], Coroutine[Any, Any, Answer]]:
    methods: dict[int, Callable[[Any, Deadline], Coroutine[Any, Any, Any]]] = {
        pb.DATA_NODE_METHOD_APPLY: node.apply,
        pb.DATA_NODE_METHOD_SEARCH: node.search,
        pb.DATA_NODE_METHOD_LOOKUP: node.lookup,
        pb.DATA_NODE_METHOD_SCORE: node.score,
        pb.DATA_NODE_METHOD_REPAIR: node.repair,
        pb.DATA_NODE_METHOD_SCROLL: node.scroll,
        pb.DATA_NODE_METHOD_SELECT: node.select,
        pb.DATA_NODE_METHOD_MAINTAIN: node.maintain,
        pb.DATA_NODE_METHOD_SUMS: node.sums,
        pb.DATA_NODE_METHOD_ENTRIES: node.entries,
    }

    async def handle(request: Request) -> Answer:
        call = decode_call(request.method, request.message, request.attachments)
        answer = await methods[request.method](call, request.deadline)
        return encode_answer(request.method, answer)

    return handle


__all__ = ["ROLES", "serve_datanode"]

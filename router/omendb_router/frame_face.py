"""The frames face: the calls of ``message_calls`` over framed connections, which clients get by upgrading one of REST.

A frame costs a fraction of an HTTP request or a gRPC call, and a connection carries any number of calls at a time.
There is no port of its own: what passes REST, TLS and proxies that know ``Upgrade`` included, passes frames.
"""

from __future__ import annotations

import asyncio
import logging

from omendb_common.errors import InvalidArgumentError
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frame_server import Answer, ByteBudget, FrameServer, Request
from omendb_common.wire.frames import FRAME_BYTES_MAX_HARD, FrameLimits, FrameStats
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.config import FaceSettings
from omendb_router.message_calls import MessageCalls, Serve

PATH = b"/frames"
PROTOCOL = b"omendb-frames/1"
"""What a request for ``PATH`` asks an upgrade to."""
ROLE = "client"
# Above our own limit, so that a message that is a little too long is refused with words.
_SLACK_BYTES = 8 << 20
_LOG = logging.getLogger("omendb.router.frames")


class FrameFace:
    """Connections that speak frames, taken over from REST.

    Args:
        budget: of the bytes of requests, shared with REST.
        stats: counted into.
    """

    def __init__(self, calls: MessageCalls, *, budget: ByteBudget, release: str = "", stats: FrameStats) -> None:
        settings = calls.settings
        self.draining = False
        self._connections_max = settings.connections_max
        self._served = _by_number(calls)
        self._server = FrameServer(
            self._handle,
            # Of no cluster: clients know none, and the router serves whoever may reach it.
            FrameIdentity("", "router", "", release),
            roles=(ROLE,),
            members_only=False,
            # The router ends a write that it has begun, whatever becomes of the call (P20).
            cancellable=self._served,
            limits=frame_limits(settings),
            connections_max=settings.connections_max,
            calls_max=settings.frame_calls_max,
            unsent_max=settings.bodies_bytes_max,
            budget=budget,
            stats=stats,
            clock=calls.clock,
            report=lambda error: _LOG.error("a call failed", exc_info=error),
        )

    @property
    def connections(self) -> int:
        """Connections that speak frames."""
        return self._server.connections

    def has_room(self, others: int) -> bool:
        """Whether one more connection may change over, beside ``others`` that speak HTTP."""
        return not self.draining and self.connections + others < self._connections_max

    def take_over(self, transport: asyncio.Transport) -> None:
        """A connection speaks frames from here on."""
        self._server.accept(transport)

    async def stop(self, drain_s: float) -> None:
        """Take no more calls, and let those that were taken end for ``drain_s`` seconds."""
        self.draining = True
        await self._server.stop(drain_s)

    async def _handle(self, request: Request) -> Answer:
        serve = self._served.get(request.method)
        if serve is None:
            raise InvalidArgumentError(f"got {request.method}", field="method", bound="a number of RouterMethod")
        return await serve(request.message, request.deadline.left_s), ()


def frame_limits(settings: FaceSettings) -> FrameLimits:
    """What the settings of the faces come to for a connection."""
    return FrameLimits(
        frame_bytes_max=min(settings.body_bytes_max + _SLACK_BYTES, FRAME_BYTES_MAX_HARD),
        in_flight_bytes_max=settings.bodies_bytes_max,
        hello_timeout_s=settings.head_timeout_s,
    )


def _by_number(calls: MessageCalls) -> dict[int, Serve]:
    numbers = pb.RouterMethod.items()
    # ROUTER_METHOD_LIST_COLLECTIONS is ListCollections.
    named = {name.removeprefix("ROUTER_METHOD").title().replace("_", ""): number for name, number in numbers}
    return {named[name]: serve for name, serve in calls.served().items()}


__all__ = ["PATH", "PROTOCOL", "ROLE", "FrameFace", "frame_limits"]

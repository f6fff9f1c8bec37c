"""The services that gRPC tools expect beside ours: ``grpc.health.v1.Health`` and server reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from omendb_router.grpc_face import SERVICE

_NAMES = ("", SERVICE)


class GrpcHealth:
    """Whether the face takes calls, for the whole server (the empty name) and for our service.

    The package's own servicer holds watches open until they are cut off; a drain must not wait for somebody who
    waits for the drain.
    """

    def __init__(self) -> None:
        self._serving = False
        self._ended = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Say whether calls are welcome, and tell those who watch."""
        self._serving = serving
        self._tell()

    def end(self) -> None:
        """Say for the last time that calls are not welcome, and end every watch."""
        self._ended = True
        self.set_serving(False)

    def _tell(self) -> None:
        # A new event for the next change: whoever waits for the old one has been told.
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """The state of one service; NOT_FOUND for a name that is not served here."""
        if request.service not in _NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:100]!r} here")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> health_pb2.HealthListResponse:
        """The state of every service."""
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in _NAMES}
        )

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state of one service now, and again whenever it is another one, until the server ends."""
        last = None
        while True:
            # All of one moment: what happens while an answer is on its way is for the next round.
            changed, ended, status = self._changed, self._ended, self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            if ended:
                return
            await changed.wait()

    def _status(self, name: str) -> Any:
        states = health_pb2.HealthCheckResponse
        if name not in _NAMES:
            return states.SERVICE_UNKNOWN
        return states.SERVING if self._serving else states.NOT_SERVING


def add_standard_services(server: Any) -> GrpcHealth:
    """Give a ``grpc.aio`` server, before it starts, health and reflection; returns what says how it is."""
    told = GrpcHealth()
    health_pb2_grpc.add_HealthServicer_to_server(told, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return told


__all__ = ["GrpcHealth", "add_standard_services"]

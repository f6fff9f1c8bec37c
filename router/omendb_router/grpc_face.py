"""The gRPC face: the service ``omendb.v1.Router``, a skin over the calls of ``message_calls``."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from omendb_common.errors import OmenDBError
from omendb_common.wire.grpc_status import abort
from omendb_router.config import FaceSettings
from omendb_router.message_calls import MessageCalls, Serve

SERVICE = "omendb.v1.Router"
# Above our own limit, so that a message that is a little too long is refused with words.
_SLACK_BYTES = 8 << 20
_LOG = logging.getLogger("omendb.router.grpc")


def _handlers(calls: MessageCalls) -> Any:
    """The service's handlers, for a ``grpc.aio`` server."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            # Messages are read and written by us and not by gRPC, whose own refusal of a malformed one says nothing.
            name: grpc.unary_unary_rpc_method_handler(_handler(name, serve))
            for name, serve in calls.served().items()
        },
    )


def _handler(name: str, serve: Serve) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def handle(data: bytes, context: Any) -> bytes:
        try:
            return await serve(data, context.time_remaining())
        except OmenDBError as error:
            await abort(context, error)
        except Exception as error:
            # A bug: the caller learns nothing of it, the log everything.
            await abort(context, error, lambda told: _LOG.error("%s failed", name, exc_info=told))
            raise

    return handle


def make_server(calls: MessageCalls, settings: FaceSettings, *, shared: bool = False) -> Any:
    """A ``grpc.aio`` server of the calls, not started, without a port; ``shared``: one of several on the same port."""
    limit = settings.body_bytes_max + _SLACK_BYTES
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_concurrent_streams", 1024),
            # A client that is gone without a word must not hold its calls.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ],
        maximum_concurrent_rpcs=settings.grpc_calls_max,
    )
    server.add_generic_rpc_handlers((_handlers(calls),))
    return server


__all__ = ["SERVICE", "make_server"]

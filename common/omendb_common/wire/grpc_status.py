"""Ending a gRPC call with an OmenDB error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from omendb_common.wire import status


async def abort(
    context: Any, error: BaseException, report: Callable[[BaseException], object] | None = None
) -> NoReturn:
    """End the call of ``context`` (a ``grpc.aio.ServicerContext``) with the status and metadata of ``error``.

    Args:
        report: given an exception that is not OmenDB's, for the log: the caller learns "internal error".
    """
    told = status.of_exception(error, report)
    details = status.to_proto(told).message
    await context.abort(grpc.StatusCode[told.code], details, status.trailing(told))
    raise AssertionError("abort() raises")


__all__ = ["abort"]

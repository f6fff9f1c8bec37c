"""The way to one router: frames where it offers them, gRPC where it does not."""

from __future__ import annotations

import time
from typing import Any

from omendb.remote.addresses import Address
from omendb.remote.frame_calls import FrameCalls, no_time
from omendb.remote.frame_link import NotOfferedError
from omendb.remote.grpc_calls import GrpcCalls
from omendb.remote.trying import CallFailed, Tls
from omendb_common.errors import UnavailableError

AGAIN_S = 60.0
"""How long a router that offers no frames is not asked for them again: it may have been an old release's."""


class RouterChannel:
    """The connections to one router, opened by its first call. Thread-safe.

    An address of gRPC is called over gRPC. At an address of REST frames are asked for; what does not know them (an
    older router, a proxy that passes no ``Upgrade``) is called over gRPC.
    """

    def __init__(self, address: Address, tls: Tls) -> None:
        self._grpc = GrpcCalls(address, tls)
        self._frames = None if address.http_port is None else FrameCalls(address, tls)
        self._spoken = False
        self._grpc_until_s = 0.0

    @property
    def address(self) -> Address:
        """Where the router is."""
        return self._grpc.address

    @property
    def where(self) -> str:
        """``host:port`` as it was named: of REST and frames, or of gRPC."""
        address = self._grpc.address
        return address.target if address.http_port is None else address.http

    def call(self, method: str, request: Any, timeout_s: float) -> Any:
        """One try of one call.

        Raises:
            CallFailed: as :class:`GrpcCalls` and :class:`FrameCalls`.
        """
        if self._frames is None or (self._grpc_until_s and time.monotonic() < self._grpc_until_s):
            return self._grpc.call(method, request, timeout_s)
        until_s = time.monotonic() + timeout_s
        try:
            reply = self._frames.call(method, request, timeout_s)
            self._spoken = True
            return reply
        except NotOfferedError:
            refused = None
            self._grpc_until_s = time.monotonic() + AGAIN_S
        except CallFailed as failure:
            self._spoken = self._spoken or failure.answered
            if self._spoken or getattr(failure.error, "outcome", "") != "none":
                raise
            # Perhaps only its REST address is out of reach.
            refused = failure
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise refused or CallFailed(no_time(), answered=False)
        return self._over_grpc(method, request, left_s, unreachable=refused is not None)

    def _over_grpc(self, method: str, request: Any, left_s: float, *, unreachable: bool) -> Any:
        try:
            reply = self._grpc.call(method, request, left_s)
        except CallFailed as failure:
            if isinstance(failure.error, UnavailableError) and not failure.answered:
                # It is gone, or another release by now: the next call asks for frames again.
                self._grpc_until_s = 0.0
            raise
        if unreachable:
            self._grpc_until_s = time.monotonic() + AGAIN_S
        return reply

    def close(self) -> None:
        """Close the connections and break off their calls."""
        if self._frames is not None:
            self._frames.close()
        self._grpc.close()


__all__ = ["AGAIN_S", "CallFailed", "RouterChannel", "Tls"]

"""Calls to one router over gRPC: a call goes in, a reply or one of OmenDB's errors comes out."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from omendb.remote.addresses import Address, resolve
from omendb.remote.cancelling import CANCEL_SCOPE
from omendb.remote.trying import CallFailed, Tls
from omendb_common.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    Outcome,
    UnavailableError,
)
from omendb_common.wire import status
from omendb_proto.v1 import router_pb2_grpc

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 64 << 10),
    # Our own rules decide what is sent again (retries.py).
    ("grpc.enable_retries", 0),
    # A router that hangs is noticed, also by calls with a long timeout.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A router that was down a moment ago is tried again soon, and a new client does not inherit an old one's waiting.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A proxy in the environment is for the web, not for a database beside us.
    ("grpc.enable_http_proxy", 0),
)
# gRPC's words for a call that never left this machine.
_NEVER_SENT = ("failed to connect to all addresses", "DNS resolution failed", "name resolution")


class GrpcCalls:
    """A channel to one router, opened by its first call. Thread-safe."""

    def __init__(self, address: Address, tls: Tls) -> None:
        self.address = address
        self._given = address
        self._tls = tls
        self._lock = threading.Lock()
        self._channel: Any = None
        self._methods: dict[str, Any] = {}

    def call(self, method: str, request: Any, timeout_s: float) -> Any:
        """One try of one call.

        Raises:
            CallFailed: with the server's own error; or UnavailableError of ``outcome`` ``none`` when nothing was sent,
                and of ``unknown`` when the connection broke; or DeadlineExceededError after ``timeout_s``.
        """
        invoke = self._methods.get(method) or self._open(method)
        scope = CANCEL_SCOPE.get()
        try:
            if scope is None:
                return invoke(request, timeout=timeout_s)
            call = invoke.future(request, timeout=timeout_s)
            scope.add(call)
            try:
                return call.result()
            finally:
                scope.remove(call)
        except grpc.FutureCancelledError:
            raise CallFailed(UnavailableError("the call was cancelled", outcome="unknown"), answered=True) from None
        except grpc.RpcError as failure:
            raise self._failed(failure) from None
        except ValueError:  # gRPC's word for a channel that was closed meanwhile
            closed = UnavailableError("the connection was closed", field=self.address.target, outcome="none")
            raise CallFailed(closed, answered=False) from None

    def close(self) -> None:
        """Close the channel and break off its calls."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._methods = {}
        if channel is not None:
            channel.close()

    def _open(self, method: str) -> Any:
        with self._lock:
            if self._channel is None:
                secure = self.address.secure
                self.address = resolve(self._given, self._tls.context() if secure else None)
                target = self.address.target
                if secure:
                    self._channel = grpc.secure_channel(target, _credentials(self._tls), _OPTIONS)
                else:
                    self._channel = grpc.insecure_channel(target, _OPTIONS)
                self._methods = dict(vars(router_pb2_grpc.RouterStub(self._channel)))
            return self._methods[method]

    def _failed(self, failure: Any) -> CallFailed:
        """What a gRPC failure means, with what is certain about the call's outcome."""
        if any(key == status.TRAILING_KEY for key, _ in failure.trailing_metadata() or ()):
            return CallFailed(status.from_rpc(failure), answered=True)
        code, details = failure.code(), failure.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            late = DeadlineExceededError(
                "no answer in time", field="timeout", mend="allow more time", outcome="unknown"
            )
            return CallFailed(late, answered=False)
        if code is grpc.StatusCode.UNAVAILABLE:
            never_sent = any(words in details for words in _NEVER_SENT)
            outcome: Outcome = "none" if never_sent else "unknown"
            what = "cannot be reached" if never_sent else "the connection broke"
            if never_sent and self._given.asked is not None:
                self.close()  # its gRPC may have moved: the next call asks again
            lost = UnavailableError(f"{what}: {details}", field=self.address.target, outcome=outcome)
            return CallFailed(lost, answered=False)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own: a message beyond the server's bound
            refused = InvalidArgumentError(details, field="message", mend="send less at a time")
            return CallFailed(refused, answered=True)
        return CallFailed(status.from_rpc(failure), answered=True)


def _credentials(tls: Tls) -> Any:
    ca, cert, key = tls.read()
    return grpc.ssl_channel_credentials(ca, key, cert)


__all__ = ["GrpcCalls"]

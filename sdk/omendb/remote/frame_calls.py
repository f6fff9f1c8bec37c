"""Calls to one router over frames: a call goes in, a reply or one of OmenDB's errors comes out."""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from omendb.remote.addresses import Address
from omendb.remote.cancelling import CANCEL_SCOPE
from omendb.remote.frame_link import FrameLink, LinkCall, LinkLostError
from omendb.remote.trying import CallFailed, Tls
from omendb_common.errors import DeadlineExceededError, OmenDBError, UnavailableError
from omendb_proto.v1 import router_pb2 as pb

QUICK_BYTES = 64 << 10
"""Longer requests, and pages of points, go over a connection of their own: a search need not stand behind them."""
_SERVICE = pb.DESCRIPTOR.services_by_name["Router"]


class _Method(NamedTuple):
    number: int
    reply: type[Message]


class FrameCalls:
    """Connections to one router, opened by the calls that first need them. Thread-safe."""

    def __init__(self, address: Address, tls: Tls) -> None:
        self._address = address
        self._tls = tls
        self._lanes = _Lane(self), _Lane(self)
        self.closed = False

    def call(self, method: str, request: Any, timeout_s: float) -> Any:
        """One try of one call.

        Raises:
            NotOfferedError: what answers there speaks no frames; nothing was sent.
            CallFailed: with the router's own error; or UnavailableError of ``outcome`` ``none`` when nothing was sent,
                and of ``unknown`` when the connection broke; or DeadlineExceededError after ``timeout_s``.
        """
        until_s = time.monotonic() + timeout_s
        told = _METHODS[method]
        data: bytes = request.SerializeToString()
        lane = self._lanes[len(data) > QUICK_BYTES or method == "Scroll"]
        call: LinkCall | None = None
        try:
            link = lane.link(until_s)
            call = link.begin(told.number, data, max(until_s - time.monotonic(), 1e-3))
            answer = _result(link, call, until_s - time.monotonic())
        except LinkLostError as lost:
            raise CallFailed(self._lost(lost), answered=False) from None
        except OmenDBError as error:
            # What is refused here, before anything is sent, says nothing against the router; being late does.
            here = call is None and not isinstance(error, DeadlineExceededError)
            raise CallFailed(error, answered=here or (call is not None and call.answered)) from None
        try:
            return told.reply.FromString(answer)
        except DecodeError as error:
            bad = UnavailableError(f"a malformed answer: {error}", field=self._address.http, outcome="unknown")
            raise CallFailed(bad, answered=True) from None

    def open(self, timeout_s: float) -> FrameLink:
        """A new connection."""
        if self.closed:
            raise LinkLostError("the client is closed", sent=False)
        tls = self._tls.context() if self._address.secure else None
        return FrameLink(self._address.host, self._address.http_port or 0, tls, timeout_s)

    def close(self) -> None:
        """Close the connections and break off their calls."""
        self.closed = True
        for lane in self._lanes:
            lane.close()

    def _lost(self, lost: LinkLostError) -> UnavailableError:
        what = "the connection broke" if lost.sent else "cannot be reached"
        return UnavailableError(f"{what}: {lost}", field=self._address.http, outcome="unknown" if lost.sent else "none")


class _Lane:
    """One connection at a time, and a new one when it has ended."""

    def __init__(self, calls: FrameCalls) -> None:
        self._calls = calls
        self._opening = threading.Lock()
        self._link: FrameLink | None = None

    def link(self, until_s: float) -> FrameLink:
        link = self._link
        if link is not None and link.usable:
            return link
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not self._opening.acquire(timeout=left_s):
            raise no_time()
        try:
            link = self._link
            if link is None or not link.usable:
                if link is not None:
                    link.retire()
                link = self._link = self._calls.open(max(until_s - time.monotonic(), 1e-3))
            if self._calls.closed:
                link.close()
            return link
        finally:
            self._opening.release()

    def close(self) -> None:
        link = self._link
        if link is not None:
            link.close()


def no_time() -> DeadlineExceededError:
    """The time went by before there was a connection."""
    return DeadlineExceededError("no connection in time", field="timeout", mend="allow more time", outcome="none")


def _result(link: FrameLink, call: LinkCall, left_s: float) -> bytes:
    scope = CANCEL_SCOPE.get()
    if scope is None:
        return link.result(call, left_s)
    scope.add(call)
    try:
        return link.result(call, left_s)
    finally:
        scope.remove(call)


def _methods() -> dict[str, _Method]:
    numbers = pb.RouterMethod.items()
    # ROUTER_METHOD_LIST_COLLECTIONS is ListCollections.
    named = {name.removeprefix("ROUTER_METHOD").title().replace("_", ""): number for name, number in numbers}
    return {told.name: _Method(named[told.name], getattr(pb, told.output_type.name)) for told in _SERVICE.methods}


_METHODS = _methods()

__all__ = ["QUICK_BYTES", "FrameCalls", "no_time"]

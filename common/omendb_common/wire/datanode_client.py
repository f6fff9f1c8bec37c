"""A data node at the other end of framed connections, behind the port that routers and other data nodes know."""

from __future__ import annotations

from typing import Any, cast

from omendb_common.deadline import Deadline
from omendb_common.errors import InvalidArgumentError, UnavailableError
from omendb_common.security.renewal import renewed
from omendb_common.security.tls import TlsFiles
from omendb_common.shard_calls import (
    Applied,
    Apply,
    Entries,
    Listed,
    Looked,
    Lookup,
    Maintain,
    Maintained,
    Repair,
    Score,
    Scored,
    Scroll,
    Scrolled,
    Search,
    Select,
    Selected,
    ShardHits,
    Summed,
    Sums,
)
from omendb_common.wire.coalesce import Coalescer
from omendb_common.wire.frame_client import FrameClient
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frames import FrameLimits, FrameStats
from omendb_common.wire.joined_calls import JoinedLookups, JoinedSearches
from omendb_common.wire.shard_wire import Answer, Call, decode_answer, encode_call

CONNECTIONS = 2
"""Connections to one data node: a search need not stand behind a large write."""


class RemoteDataNode:
    """Implements ``shard_calls.DataNode`` over frames. Connects when first called. Belongs to one event loop.

    A node that answers with an error, instead of a verdict, has it raised here as it was.
    """

    def __init__(
        self,
        address: str,
        *,
        identity: FrameIdentity,
        node_id: str = "",
        tls: TlsFiles | None = None,
        connections: int = CONNECTIONS,
        limits: FrameLimits | None = None,
        stats: FrameStats | None = None,
        coalesce: bool = True,
    ) -> None:
        """Prepare to call the node at ``address`` (``host:port``).

        Args:
            identity: who this process is.
            node_id: the data node that must answer there; empty: any.
            tls: files for mutual TLS; None speaks in the clear.
            coalesce: whether searches, and look-ups, of one kind travel together.

        Raises:
            InvalidArgumentError: a malformed address, or unusable TLS files.
        """
        self._frames = FrameClient(
            address,
            identity,
            peer_node=node_id,
            tls=None if tls is None else renewed(tls),
            connections=connections,
            limits=limits,
            stats=stats,
        )
        self._searches = Coalescer(self._search, JoinedSearches()) if coalesce else None
        self._lookups = Coalescer(self._lookup, JoinedLookups()) if coalesce else None

    @property
    def address(self) -> str:
        """Where the node is."""
        return self._frames.address

    @property
    def frames(self) -> FrameClient:
        """The connections, for what is measured of them."""
        return self._frames

    async def close(self) -> None:
        """End every connection and every call."""
        if self._searches is not None:
            await self._searches.close()
        if self._lookups is not None:
            await self._lookups.close()
        await self._frames.close()

    async def apply(self, call: Apply, deadline: Deadline) -> Applied:
        """Write."""
        return cast(Applied, await self._ask(call, deadline))

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        """Search."""
        if self._searches is not None:
            return await self._searches.ask(call, deadline)
        return await self._search(call, deadline)

    async def lookup(self, call: Lookup, deadline: Deadline) -> Looked:
        """Look ids up."""
        if self._lookups is not None:
            return await self._lookups.ask(call, deadline)
        return await self._lookup(call, deadline)

    async def score(self, call: Score, deadline: Deadline) -> Scored:
        """Score ids."""
        return cast(Scored, await self._ask(call, deadline))

    async def repair(self, call: Repair, deadline: Deadline) -> Applied:
        """Bring records up to date."""
        return cast(Applied, await self._ask(call, deadline))

    async def scroll(self, call: Scroll, deadline: Deadline) -> Scrolled:
        """Read a page."""
        return cast(Scrolled, await self._ask(call, deadline))

    async def select(self, call: Select, deadline: Deadline) -> Selected:
        """Resolve a filter."""
        return cast(Selected, await self._ask(call, deadline))

    async def maintain(self, call: Maintain, deadline: Deadline) -> Maintained:
        """Do or tell something about a replica."""
        return cast(Maintained, await self._ask(call, deadline))

    async def sums(self, call: Sums, deadline: Deadline) -> Summed:
        """Tell values of the hash tree."""
        return cast(Summed, await self._ask(call, deadline))

    async def entries(self, call: Entries, deadline: Deadline) -> Listed:
        """List records by the hash tree."""
        return cast(Listed, await self._ask(call, deadline))

    async def _search(self, call: Search, deadline: Deadline) -> ShardHits:
        return cast(ShardHits, await self._ask(call, deadline))

    async def _lookup(self, call: Lookup, deadline: Deadline) -> Looked:
        return cast(Looked, await self._ask(call, deadline))

    async def _ask(self, call: Call, deadline: Deadline) -> Answer:
        method, message, attachments = encode_call(call)
        reply = await self._frames.call(method, message, attachments, deadline=deadline)
        return self._read(method, reply)

    def _read(self, method: int, reply: Any) -> Answer:
        try:
            return decode_answer(method, reply.message, reply.attachments)
        except InvalidArgumentError as error:
            # The node's mistake, not the caller's; what it has done, nobody can tell from this.
            raise UnavailableError(
                f"{self.address} gave a malformed answer: {error}", field="node", outcome="unknown"
            ) from None


__all__ = ["CONNECTIONS", "RemoteDataNode"]

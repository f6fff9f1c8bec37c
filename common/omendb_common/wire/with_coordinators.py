"""One piece of work with the coordinators of a cluster, for programs that have no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.security.tls import TlsFiles
from omendb_common.wire.coordinator_client import CoordinatorClient

T = TypeVar("T")


def with_coordinators(
    coordinators: Sequence[str],
    work: Callable[[CoordinatorClient, Deadline], Awaitable[T]],
    timeout_s: float,
    *,
    tls: TlsFiles | None = None,
    name: str = "omendb-cli",
) -> T:
    """Connect, do the work, and close.

    Raises:
        UnavailableError, DeadlineExceededError: no coordinator answers.
    """

    async def whole() -> T:
        clock = SystemClock()
        client = CoordinatorClient(coordinators, tls, clock, name=name)
        await client.start()
        try:
            return await work(client, Deadline.after(clock, timeout_s))
        finally:
            await client.close()

    return asyncio.run(whole())


__all__ = ["with_coordinators"]

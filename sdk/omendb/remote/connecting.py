"""From a URL to a backend."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from omendb.backend import Consistency
from omendb.calls import check_consistency, check_timeout
from omendb.remote.addresses import parse_addresses
from omendb.remote.backend import RemoteBackend
from omendb.remote.channels import RouterChannel, Tls
from omendb.remote.link import Link
from omendb.remote.routers import Routers
from omendb_common.clock import SystemClock


def connect(
    url: str | Sequence[str], timeout: float, consistency: Consistency | None, tls: Tls, dice: Random | None = None
) -> RemoteBackend:
    """A backend that has spoken with one of the routers.

    Raises:
        InvalidArgumentError: a bad URL, timeout or consistency.
        UnavailableError, DeadlineExceededError: no router answers.
    """
    addresses = parse_addresses(url)
    # So that many clients do not all keep to the router that they were given first.
    (dice or Random()).shuffle(addresses)
    clock = SystemClock()
    routers = Routers([RouterChannel(address, tls) for address in addresses], check_timeout(timeout), clock)
    link = Link(routers, clock, None if consistency is None else check_consistency(consistency))
    backend = RemoteBackend(link, url if isinstance(url, str) else ",".join(url))
    try:
        told = backend.server_info().message_bytes_max
    except BaseException:
        backend.close()
        raise
    if told:
        # Half of it leaves room for what the estimate of a message's size does not see.
        link.message_bytes_max = told
        link.part_bytes = min(link.part_bytes, told // 2)
    return backend


__all__ = ["connect"]

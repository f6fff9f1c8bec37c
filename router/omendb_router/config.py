"""Every setting of the faces, with its unit, bound and reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from omendb_common.errors import InvalidArgumentError
from omendb_common.security.renewal import RenewedTls, renewed
from omendb_common.security.tls import TlsFiles
from omendb_common.settings import KIB, MIB, check_value, setting


@dataclass(frozen=True, slots=True)
class FaceSettings:
    """What the faces take, and how long they try."""

    body_bytes_max: int = setting(
        64 * MIB, "longest request and answer of either face; what is longer is sent in parts", low=MIB, high=1 << 31
    )
    bodies_bytes_max: int = setting(
        512 * MIB,
        "bytes of all REST bodies and client frames at work, and of answers in frames that nobody reads: more of them "
        "are told when to come back, or cut off",
        low=MIB,
        high=1 << 40,
    )
    timeout_s: float = setting(
        30.0, "time for a request that names none, so that each has a deadline", low=0.001, high=86_400
    )
    care_timeout_s: float = setting(
        600.0,
        "the same for flush, compact and wait-until-indexed, which work through whole collections",
        low=0.001,
        high=86_400,
    )
    connections_max: int = setting(
        4096,
        "open connections of REST and frames, and REST requests; one more is answered 503 at once",
        low=1,
        high=1_000_000,
    )
    grpc_calls_max: int = setting(
        4096, "gRPC calls at work; one more is refused as RESOURCE_EXHAUSTED", low=1, high=1_000_000
    )
    frame_calls_max: int = setting(
        4096, "calls of client frames at work; one more is told when to come back", low=1, high=1_000_000
    )
    head_bytes_max: int = setting(
        64 * KIB, "line and headers of a REST request; a longer head is answered 431", low=4 * KIB, high=16 * MIB
    )
    head_timeout_s: float = setting(
        10.0,
        "from a REST connection, or a request's first byte, to the end of its headers, and from an upgrade to a "
        "client's hello: silence holds no place",
        low=0.01,
        high=3600.0,
    )
    keep_alive_s: int = setting(30, "how long an idle REST connection is kept", low=1, high=3600)
    drain_s: float = setting(10.0, "how long calls that were taken may go on after SIGTERM", low=0.0, high=600)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), field.name)


@dataclass(frozen=True, slots=True)
class FaceTls:
    """PEM files of the certificate and key that both faces show to clients."""

    cert: str
    key: str

    @property
    def files(self) -> TlsFiles:
        """The same, without an authority: clients need no certificate."""
        return TlsFiles("", self.cert, self.key)

    def renewed(self) -> RenewedTls:
        """What serves them as they are now; InvalidArgumentError when they cannot be used."""
        try:
            return renewed(self.files)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                error.message, field="face_tls", bound="PEM files of a certificate and its key"
            ) from None


@dataclass(frozen=True, slots=True)
class About:
    """What answers: its release, whether it is a router or a single-node server, and whose it is.

    ``location``: a server's folder, a router's cluster.
    """

    version: str
    kind: str
    node_id: str
    location: str
    feature_level: int = 1


__all__ = ["About", "FaceSettings", "FaceTls"]

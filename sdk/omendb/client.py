"""A database across a network: the same collections and the same calls as a folder's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from omendb.backend import Backend, Consistency
from omendb.database import Database, FieldHints
from omendb_common.schema import Metric, VectorDType

DEFAULT_URL = "http://localhost:8480"
DEFAULT_TIMEOUT_S = 30.0


class Client(Database):
    """A connected cluster, or single-node server.

    ::

        client = omendb.Client("http://localhost:8480")
        client.search(collection="documents", vectors=embeddings, k=10, timeout=0.1)

    Threads may share a client. Calls are sent again when that cannot change what they mean: reads always, writes when
    they certainly did nothing or under the stamp of the first try; all within a budget and the call's ``timeout``.
    A client sees its own writes.

    Args:
        url: a router's address: ``http://host:8480`` (its REST address; the router tells where its gRPC is),
            ``grpc://host:8481``, the same with TLS as ``https`` and ``grpcs``; or several, in a list or separated by
            commas, of which one is asked and the others stand in.
        timeout: seconds for a call that names none.
        consistency: of reads that name none: ``one``, ``session``, ``verified`` or ``quorum``. None: quorum for reads
            by id, scroll and count; for searches one replica, or ``session`` once this client has written.
        dimension: of the default collection; inferred from the first write when None.
        metric: of the default collection: ``l2`` (when None), ``cosine`` or ``dot``.
        dtype: of the default collection: ``float32`` (when None), ``float16``, ``int8`` or ``uint8``.
        tls_ca: a PEM file of the CA to believe, instead of the system's.
        tls_cert: a PEM file of this client's own certificate, where the server asks for one; with ``tls_key``.
        tls_key: its key.

    Raises:
        ImportError: grpcio is not installed; the extra ``omendb[client]`` brings it.
        InvalidArgumentError: a bad argument.
        UnavailableError, DeadlineExceededError: no router answers.
        AlreadyExistsError: the default collection exists with another dimension, metric or dtype.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        consistency: Consistency | None = None,
        dimension: int | None = None,
        metric: Metric | None = None,
        dtype: VectorDType | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
    ) -> None:
        hints = FieldHints(dimension, metric, dtype)
        hints.check_self()
        files = (None if file is None else os.fspath(file) for file in (tls_ca, tls_cert, tls_key))
        backend = _connect(url, timeout, consistency, *files)
        try:
            super().__init__(backend, hints=hints)
        except BaseException:
            backend.close()
            raise

    @property
    def router(self) -> str:
        """``host:port`` of the router that is asked first now."""
        where: str = self._session.backend.router  # type: ignore[attr-defined]
        return where

    def cluster_status(self) -> dict[str, Any]:
        """Members, collections and their shards, for people; a single-node server is a cluster of one."""
        self._session.check_open()
        status: dict[str, Any] = self._session.backend.cluster_status()  # type: ignore[attr-defined]
        return status


def _connect(
    url: str | Sequence[str],
    timeout: float,
    consistency: Consistency | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
) -> Backend:
    try:
        # Here, because an embedded program must not need them.
        from omendb.remote.channels import Tls
        from omendb.remote.connecting import connect
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise ImportError("omendb.Client needs grpcio and protobuf: pip install 'omendb[client]'") from error
    return connect(url, timeout, consistency, Tls(ca, cert, key))


__all__ = ["DEFAULT_TIMEOUT_S", "DEFAULT_URL", "Client"]

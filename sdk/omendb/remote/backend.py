"""The backend across a network: a database whose collections live in a cluster."""

from __future__ import annotations

import json
import threading
from typing import Any, cast

from omendb.backend import NO_OPTIONS, CallOptions, CollectionBackend, Spread
from omendb.remote.collection import Known, RemoteCollection, schema_of
from omendb.remote.link import Link
from omendb.remote.retries import Kind
from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.schema import CollectionSchema
from omendb_proto.v1 import router_pb2 as pb

_COUNT_MAX = (1 << 32) - 1


class RemoteBackend:
    """Collections behind routers. Thread-safe."""

    local = False

    def __init__(self, link: Link, location: str, options: CallOptions = NO_OPTIONS) -> None:
        self._link = link
        self._location = location
        self._options = options
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}

    @property
    def location(self) -> str:
        """The routers' addresses."""
        return self._location

    @property
    def router(self) -> str:
        """``host:port`` of the router that is asked first now."""
        return self._link.routers.kept

    def within(self, options: CallOptions) -> RemoteBackend:
        """The same database, with options for the calls made through it."""
        if options == self._options:
            return self
        other = RemoteBackend(self._link, self._location, options)
        other._lock, other._known = self._lock, self._known
        return other

    def bind(self, handle: CollectionBackend, options: CallOptions) -> CollectionBackend:
        """The same collection, with options for the calls made through it."""
        return cast(RemoteCollection, handle).bound(options)

    def names(self) -> list[str]:
        """The collections' names."""
        return [c.name for c in self._call("ListCollections", pb.ListCollectionsRequest()).collections]

    def find(self, name: str) -> CollectionBackend | None:
        """The collection, or None."""
        try:
            reply = self._call("GetCollection", pb.GetCollectionRequest(name=name))
        except NotFoundError:
            return None
        return self._handle(name, reply.collection)

    def create(self, name: str, schema: CollectionSchema, spread: Spread) -> CollectionBackend:
        """Create a collection; AlreadyExistsError when there is one."""
        counts = spread._asdict()
        key = counts.pop("partition_key")
        for field, value in counts.items():
            if value is not None and (type(value) is not int or not 1 <= value <= _COUNT_MAX):
                raise InvalidArgumentError(f"got {value!r}", field=field, bound="an integer, 1 or more")
        if key is not None and not isinstance(key, str):
            raise InvalidArgumentError(f"got {key!r}", field="partition_key", bound="a metadata key")
        spec = pb.CollectionSpec(
            name=name,
            vectors=[
                pb.VectorFieldSpec(name=v.name, dimension=v.dimension, metric=v.metric, dtype=v.dtype)
                for v in schema.vectors
            ],
            options=json.dumps(dict(schema.options)),
            partition_key=key,
            **counts,
        )
        request = pb.CreateCollectionRequest(collection=spec)
        return self._handle(name, self._call("CreateCollection", request, Kind.CHANGE).collection)

    def drop(self, name: str) -> None:
        """Delete a collection."""
        self._call("DropCollection", pb.DropCollectionRequest(name=name), Kind.CHANGE)
        self._link.sessions.forget(name)
        with self._lock:
            self._known.pop(name, None)

    def rename(self, old: str, new: str) -> CollectionBackend:
        """Give a collection another name; handles of it go on working."""
        request = pb.RenameCollectionRequest(name=old, new_name=new)
        spec = self._call("RenameCollection", request, Kind.CHANGE).collection
        self._link.sessions.renamed(old, new)
        with self._lock:
            known = self._known.pop(old, None)
            if known is not None:
                known.name = new
                self._known[new] = known
        return self._handle(new, spec)

    def alter(self, name: str, spread: Spread) -> None:
        """Ask for another replication and other quorums; what is None stays."""
        request = pb.AlterCollectionRequest(
            name=name,
            replication=spread.replication,
            write_quorum=spread.write_quorum,
            read_quorum=spread.read_quorum,
        )
        self._call("AlterCollection", request, Kind.CHANGE)

    def cluster_status(self) -> dict[str, Any]:
        """Members, collections and shards, for people."""
        status: dict[str, Any] = json.loads(self._call("ClusterStatus", pb.ClusterStatusRequest()).status)
        return status

    def server_info(self) -> pb.ServerInfoReply:
        """What answers there."""
        return cast(pb.ServerInfoReply, self._call("ServerInfo", pb.ServerInfoRequest()))

    def close(self) -> None:
        """Let go of connections and threads; a second call does nothing."""
        self._link.close()

    def _call(self, method: str, request: Any, kind: Kind = Kind.READ) -> Any:
        return self._link.routers.call(method, request, kind, self._options.deadline)

    def _handle(self, name: str, spec: pb.CollectionSpec) -> RemoteCollection:
        """A handle; all handles of one collection share what is known of it."""
        schema, now = schema_of(spec), self._link.clock.mono_s()
        with self._lock:
            known = self._known.get(name)
            if known is None or known.schema.uuid != schema.uuid:
                known = self._known[name] = Known(name, schema, now)
            known.schema, known.at_s = schema, now
        return RemoteCollection(self._link, known)


__all__ = ["RemoteBackend"]

"""The backend in the caller's own process: the engine's folder."""

from __future__ import annotations

from typing import Literal, cast

from omendb.backend import CallOptions, CollectionBackend, Spread
from omendb_common.config import EngineSettings
from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.schema import CollectionSchema
from omendb_engine.folder import Folder


class EmbeddedBackend:
    """A database folder opened in this process."""

    local = True

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    @staticmethod
    def open(path: str, mode: Literal["rw", "r"], settings: EngineSettings) -> EmbeddedBackend:
        """Open the folder, creating it when ``mode`` is ``rw`` and there is none."""
        return EmbeddedBackend(Folder.open(path, mode=mode, settings=settings))

    @property
    def location(self) -> str:
        """The folder's path."""
        return self._folder.path

    def within(self, options: CallOptions) -> EmbeddedBackend:
        """This: a call into memory waits for nobody, and there is one copy to read."""
        return self

    def bind(self, handle: CollectionBackend, options: CallOptions) -> CollectionBackend:
        """The handle itself, for the same reason."""
        return handle

    def names(self) -> list[str]:
        """The collections' names."""
        return self._folder.names()

    def find(self, name: str) -> CollectionBackend | None:
        """The collection's replica, or None."""
        try:
            # In a folder opened for reading this is a reader, whose writing half the SDK never calls.
            return cast(CollectionBackend, self._folder.replica(name))
        except NotFoundError:
            return None

    def create(self, name: str, schema: CollectionSchema, spread: Spread) -> CollectionBackend:
        """Create a collection, durably; a folder is one shard with one copy."""
        _check_single(spread)
        if spread.partition_key is not None:
            raise InvalidArgumentError(
                "there is one shard to route to",
                field="partition_key",
                bound="none in a folder",
                mend="or use a cluster",
            )
        return self._folder.create(name, schema)

    def drop(self, name: str) -> None:
        """Delete a collection and its files."""
        self._folder.drop(name)

    def rename(self, old: str, new: str) -> CollectionBackend:
        """Give a collection another name, durably."""
        self._folder.rename(old, new)
        return cast(CollectionBackend, self._folder.replica(new))

    def alter(self, name: str, spread: Spread) -> None:
        """A folder is one shard with one copy, and stays that."""
        _check_single(spread)

    def close(self) -> None:
        """Close every replica and give up the writer lock."""
        self._folder.close()


def _check_single(spread: Spread) -> None:
    for field in ("shards", "replication", "write_quorum", "read_quorum"):
        if getattr(spread, field) not in (None, 1):
            raise InvalidArgumentError(
                f"got {getattr(spread, field)!r}", field=field, bound="1 in a folder", mend="or use a cluster"
            )


__all__ = ["EmbeddedBackend"]

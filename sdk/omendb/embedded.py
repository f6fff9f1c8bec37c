"""The backend in the caller's own process: the engine's folder."""

from __future__ import annotations

from typing import Literal, cast

from omendb.backend import CollectionBackend
from omendb_common.config import EngineSettings
from omendb_common.errors import NotFoundError
from omendb_common.schema import CollectionSchema
from omendb_engine.folder import Folder


class EmbeddedBackend:
    """A database folder opened in this process."""

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

    def create(self, name: str, schema: CollectionSchema) -> CollectionBackend:
        """Create a collection, durably."""
        return self._folder.create(name, schema)

    def drop(self, name: str) -> None:
        """Delete a collection and its files."""
        self._folder.drop(name)

    def rename(self, old: str, new: str) -> None:
        """Give a collection another name, durably."""
        self._folder.rename(old, new)

    def close(self) -> None:
        """Close every replica and give up the writer lock."""
        self._folder.close()


__all__ = ["EmbeddedBackend"]

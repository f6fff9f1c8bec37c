"""The catalog of one folder: which collections it holds, by name.

``catalog.json`` is one checksummed document, replaced by rename. A collection lives in a folder named by its
uuid, so renaming one changes only the catalog, and a dropped name can be used again at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omendb_common.disk import Disk, replace_file
from omendb_common.errors import AlreadyExistsError, CorruptionError, NotFoundError
from omendb_engine.segment import layout

CATALOG_NAME = "catalog.json"
KIND = "catalog"
CATALOG_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Catalog:
    """Collections of a folder: name → uuid."""

    database_uuid: str
    collections: Mapping[str, str]

    def uuid_of(self, name: str) -> str:
        """The uuid of a collection; NotFoundError when there is none of that name."""
        found = self.collections.get(name)
        if found is None:
            raise NotFoundError(
                f"no collection {name!r}", field="collection", bound=f"one of {sorted(self.collections)}"
            )
        return found

    def added(self, name: str, uuid: str) -> Catalog:
        """With one more; AlreadyExistsError when the name is taken."""
        if name in self.collections:
            raise AlreadyExistsError(f"collection {name!r} exists", field="collection", mend="choose another name")
        return Catalog(self.database_uuid, {**self.collections, name: uuid})

    def removed(self, name: str) -> Catalog:
        """Without one."""
        self.uuid_of(name)
        return Catalog(self.database_uuid, {n: u for n, u in self.collections.items() if n != name})

    def renamed(self, old: str, new: str) -> Catalog:
        """With one under another name."""
        uuid = self.uuid_of(old)
        return self.removed(old).added(new, uuid)


def write_catalog(disk: Disk, folder: str, catalog: Catalog) -> None:
    """Replace the catalog, durably."""
    body = {
        "kind": KIND,
        "format": CATALOG_FORMAT,
        "database_uuid": catalog.database_uuid,
        "collections": dict(catalog.collections),
    }
    data, _ = layout.seal(body)
    replace_file(disk, f"{folder}/{CATALOG_NAME}", [data])


def read_catalog(disk: Disk, folder: str) -> Catalog:
    """Read the catalog; CorruptionError or FormatVersionError when it cannot be."""
    path = f"{folder}/{CATALOG_NAME}"
    body = layout.read_document(disk, path, kind=KIND, format_max=CATALOG_FORMAT)
    collections = body["collections"]
    if not isinstance(collections, dict):
        raise CorruptionError("the catalog names no collections", path=path)
    return Catalog(str(body["database_uuid"]), {str(n): str(u) for n, u in collections.items()})


__all__ = ["CATALOG_NAME", "Catalog", "read_catalog", "write_catalog"]

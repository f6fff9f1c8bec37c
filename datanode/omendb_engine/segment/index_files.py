"""The index files of a segment: ``index.hnsw``, ``index.codes`` where needed, and ``index.json`` that sums them.

They are written into the finished segment's folder later than the segment, each under another name first.
``index.json`` comes last and its hash goes into the next replica manifest, which makes the index exist. An
index is never replaced while a kept manifest names it: another index means another segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError
from omendb_engine.index.curve import RecallCurve
from omendb_engine.index.hnsw import HnswBuild
from omendb_engine.segment import layout
from omendb_engine.segment.layout import FileEntry

KIND = "index"


@dataclass(frozen=True, slots=True)
class IndexFile:
    """One field's index as ``index.json`` describes it."""

    field: str
    kind: str
    graph: str
    codes: str | None
    rows: int
    m: int
    ef_construction: int
    curve: RecallCurve


@dataclass(frozen=True, slots=True)
class IndexDocument:
    """A verified ``index.json``: the indexes by field name and the files' entries by file name."""

    indexes: Mapping[str, IndexFile]
    files: Mapping[str, FileEntry]

    @property
    def size_bytes(self) -> int:
        """Bytes of all index files, index.json not counted."""
        return sum(entry.size for entry in self.files.values())


def graph_name(position: int) -> str:
    """Graph file of the ``position``-th vector field of the segment."""
    return "index.hnsw" if position == 0 else f"index-{position}.hnsw"


def codes_name(position: int) -> str:
    """Codes file of the ``position``-th vector field of the segment."""
    return "index.codes" if position == 0 else f"index-{position}.codes"


def write_index(disk: Disk, replica_path: str, segment_id: int, builds: Mapping[tuple[int, str], HnswBuild]) -> str:
    """Write the indexes of a segment and return the hash for ``SegmentRef.index_hash``; durable when it returns.

    ``builds``: by (position, name) of the vector field; fields that stay flat are left out.
    """
    folder = layout.segment_path(replica_path, segment_id)
    files: dict[str, Any] = {}
    indexes: list[dict[str, Any]] = []
    for (position, name), build in sorted(builds.items()):
        parts = {graph_name(position): build.graph}
        if build.codes is not None:
            parts[codes_name(position)] = build.codes
        for file, data in parts.items():
            files[file] = layout.describe([data]).to_json()
            _put(disk, folder, file, [data])
        indexes.append(_index_json(position, name, build))
    body = {"kind": KIND, "format": layout.INDEX_FORMAT, "segment_id": segment_id, "files": files, "indexes": indexes}
    document, digest = layout.seal(body)
    _put(disk, folder, layout.INDEX_DOCUMENT, [document])
    disk.sync_dir(folder)
    return digest


def _index_json(position: int, name: str, build: HnswBuild) -> dict[str, Any]:
    return {
        "field": name,
        "kind": "hnsw",
        "graph": graph_name(position),
        "codes": codes_name(position) if build.codes is not None else None,
        "rows": build.n,
        "m": build.m,
        "ef_construction": build.ef_construction,
        "curve": build.curve.to_json(),
    }


def _put(disk: Disk, folder: str, name: str, parts: list[Any]) -> None:
    """Write and fsync under another name, then rename: a reader never sees half a file."""
    temporary = f"{folder}/{name}{layout.TEMPORARY_SUFFIX}"
    if disk.exists(temporary):
        disk.unlink(temporary)  # left by a crash
    disk.write_file(temporary, parts)
    disk.rename(temporary, f"{folder}/{name}")


def read_index_document(disk: Disk, replica_path: str, segment_id: int, index_hash: str) -> IndexDocument:
    """Read and check ``index.json``; CorruptionError when it is not the one the replica manifest names."""
    path = f"{layout.segment_path(replica_path, segment_id)}/{layout.INDEX_DOCUMENT}"
    body = layout.read_document(disk, path, kind=KIND, format_max=layout.INDEX_FORMAT, expected=index_hash)
    if int(body["segment_id"]) != segment_id:
        raise CorruptionError(f"the index of segment {body['segment_id']}", path=path, offset=0, bound=f"{segment_id}")
    indexes = [
        IndexFile(
            field=str(i["field"]),
            kind=str(i["kind"]),
            graph=str(i["graph"]),
            codes=None if i["codes"] is None else str(i["codes"]),
            rows=int(i["rows"]),
            m=int(i["m"]),
            ef_construction=int(i["ef_construction"]),
            curve=RecallCurve.from_json(i["curve"]),
        )
        for i in body["indexes"]
    ]
    return IndexDocument({i.field: i for i in indexes}, layout.file_entries(body, path))


__all__ = ["IndexDocument", "IndexFile", "codes_name", "graph_name", "read_index_document", "write_index"]

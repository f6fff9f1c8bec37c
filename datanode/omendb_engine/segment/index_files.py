"""The index files of a segment: a graph with its codes, or lists, and ``index.json``, which sums them.

They are written into the finished segment's folder later than the segment, each under another name first.
``index.json`` comes last and its hash goes into the next replica manifest, which makes the index exist. An
index is never replaced while a kept manifest names it: another index means another segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_common.index_options import QUANTIZATIONS, Quantization
from omendb_engine.index.curve import RecallCurve
from omendb_engine.index.hnsw import HnswBuild
from omendb_engine.index.ivf import IvfBuild
from omendb_engine.index.ivf_effort import NO_LADDER, EffortLadder
from omendb_engine.index.kinds import IndexBuild
from omendb_engine.segment import layout
from omendb_engine.segment.layout import FileEntry

KIND = "index"


@dataclass(frozen=True, slots=True)
class IndexFile:
    """One field's index as ``index.json`` describes it.

    ``graph``: the file of its graph or lists. ``m`` and ``ef_construction`` are 0 for lists, ``nlist`` is for graphs.
    """

    field: str
    kind: str
    graph: str
    codes: str | None
    rows: int
    m: int
    ef_construction: int
    curve: RecallCurve
    quantization: Quantization = "none"
    nlist: int = 0
    ladder: EffortLadder = NO_LADDER


@dataclass(frozen=True, slots=True)
class IndexDocument:
    """A verified ``index.json``: the indexes by field name and the files' entries by file name."""

    indexes: Mapping[str, IndexFile]
    files: Mapping[str, FileEntry]

    @property
    def size_bytes(self) -> int:
        """Bytes of all index files, index.json not counted."""
        return sum(entry.size for entry in self.files.values())


def graph_name(position: int, kind: str = "hnsw") -> str:
    """File of the graph, or of the lists, of the ``position``-th vector field of the segment."""
    return f"index.{kind}" if position == 0 else f"index-{position}.{kind}"


def codes_name(position: int) -> str:
    """Codes file of the ``position``-th vector field of the segment."""
    return "index.codes" if position == 0 else f"index-{position}.codes"


def write_index(disk: Disk, replica_path: str, segment_id: int, builds: Mapping[tuple[int, str], IndexBuild]) -> str:
    """Write the indexes of a segment and return the hash for ``SegmentRef.index_hash``; durable when it returns.

    ``builds``: by (position, name) of the vector field; fields that stay flat are left out.
    """
    folder = layout.segment_path(replica_path, segment_id)
    files: dict[str, Any] = {}
    indexes: list[dict[str, Any]] = []
    for (position, name), build in sorted(builds.items()):
        for file, data in _parts(position, build).items():
            files[file] = layout.describe([data]).to_json()
            _put(disk, folder, file, [data])
        indexes.append(_index_json(position, name, build))
    # What the first release can read is written as it wrote it.
    version = max((_format_of(build) for build in builds.values()), default=1)
    body = {"kind": KIND, "format": version, "segment_id": segment_id, "files": files, "indexes": indexes}
    document, digest = layout.seal(body)
    _put(disk, folder, layout.INDEX_DOCUMENT, [document])
    disk.sync_dir(folder)
    return digest


def _parts(position: int, build: IndexBuild) -> dict[str, Any]:
    """The bytes of a field's files by name."""
    if isinstance(build, IvfBuild):
        return {graph_name(position, "ivf"): build.lists}
    parts = {graph_name(position): build.graph}
    if build.codes is not None:
        parts[codes_name(position)] = build.codes
    return parts


def _format_of(build: IndexBuild) -> int:
    """The oldest format that has such an index: an older release refuses it by that, and by nothing else."""
    return 1 if isinstance(build, HnswBuild) and build.quantization == "none" else layout.INDEX_FORMAT


def _index_json(position: int, name: str, build: IndexBuild) -> dict[str, Any]:
    if isinstance(build, IvfBuild):
        return {
            "field": name,
            "kind": "ivf",
            "graph": graph_name(position, "ivf"),
            "codes": None,
            "rows": build.n,
            "m": 0,
            "ef_construction": 0,
            "curve": build.curve.to_json(),
            "quantization": build.quantization,
            "nlist": build.nlist,
            "ladder": build.ladder.to_json(),
        }
    quantized = {} if build.quantization == "none" else {"quantization": build.quantization}
    return {
        **quantized,
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
    indexes = [_described(value, path) for value in body["indexes"]]
    return IndexDocument({i.field: i for i in indexes}, layout.file_entries(body, path))


def _described(value: Mapping[str, Any], path: str) -> IndexFile:
    kind, quantization = str(value["kind"]), value.get("quantization", "none")
    if kind not in ("hnsw", "ivf") or quantization not in QUANTIZATIONS:
        raise FormatVersionError(
            f"an index of kind {kind!r} over {quantization!r}", field=path, bound="a kind of this release",
            mend="upgrade omendb",
        )  # fmt: skip
    return IndexFile(
        field=str(value["field"]),
        kind=kind,
        graph=str(value["graph"]),
        codes=None if value["codes"] is None else str(value["codes"]),
        rows=int(value["rows"]),
        m=int(value["m"]),
        ef_construction=int(value["ef_construction"]),
        curve=RecallCurve.from_json(value["curve"]),
        quantization=cast(Quantization, quantization),
        nlist=int(value.get("nlist", 0)),
        ladder=EffortLadder.from_json(value.get("ladder", ())),
    )


__all__ = ["IndexDocument", "IndexFile", "codes_name", "graph_name", "read_index_document", "write_index"]

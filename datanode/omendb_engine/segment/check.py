"""The deep check of a replica's files: every byte of every kept generation, and what must agree across files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_engine.payload.cache import ColumnCache
from omendb_engine.segment import layout
from omendb_engine.segment.deletes import DeletesRef, read_deletes
from omendb_engine.segment.keys import Bloom, KeyTable, bloom_masks
from omendb_engine.segment.manifest import ManifestStore, SegmentRef
from omendb_engine.segment.reader import Segment

_MANIFEST = re.compile(r"manifest-(\d{6,})\.json\Z")
_CACHE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: the file, what, and where in it (None: the whole file)."""

    path: str
    problem: str
    offset: int | None = None


def check_replica_files(disk: Disk, replica_path: str) -> list[Finding]:
    """Read everything that any generation in the folder names, and compare; an empty list means sound.

    Every manifest in the folder counts as kept, so damage in an older generation, which is not in use now but
    may be needed tomorrow, is found as well. The log is not read.
    """
    findings: list[Finding] = []
    store = ManifestStore(disk, replica_path)
    try:
        store.load(lambda manifest: True)
    except (CorruptionError, FormatVersionError) as error:
        findings.append(_finding(error, replica_path))
    findings += [_finding(problem, replica_path) for problem in store.problems]
    refs: dict[tuple[int, str], SegmentRef] = {}
    indexed: dict[tuple[int, str], SegmentRef] = {}
    deletes: dict[tuple[int, DeletesRef], SegmentRef] = {}
    for generation in _generations(disk, replica_path):
        try:
            manifest = store.read(generation)
        except (CorruptionError, FormatVersionError) as error:
            findings.append(_finding(error, replica_path))
            continue
        for ref in manifest.segments:
            refs[ref.segment_id, ref.manifest_hash] = ref
            if ref.index_hash is not None:
                indexed[ref.segment_id, ref.index_hash] = ref
            if ref.deletes is not None:
                deletes[ref.segment_id, ref.deletes] = ref
    # A segment got its index later than itself: look at the version of it that has one.
    refs |= {(ref.segment_id, ref.manifest_hash): ref for ref in indexed.values()}
    for ref in refs.values():
        findings += check_segment(disk, replica_path, ref)
    findings += _check_deletes(disk, replica_path, deletes)
    return sorted(set(findings), key=lambda f: (f.path, f.offset or 0, f.problem))


def _generations(disk: Disk, replica_path: str) -> list[int]:
    return [int(match[1]) for match in map(_MANIFEST.match, disk.listdir(replica_path)) if match]


def _finding(error: CorruptionError | FormatVersionError, replica_path: str) -> Finding:
    if isinstance(error, CorruptionError):
        bound = f" (expected {error.bound})" if error.bound else ""
        return Finding(error.path, error.message + bound, error.offset)
    return Finding(error.field or replica_path, str(error))


def check_segment(disk: Disk, replica_path: str, ref: SegmentRef) -> list[Finding]:
    """Read every byte of one segment and its index, and check what must agree between its files."""
    try:
        segment = Segment.open(disk, replica_path, ref, cache=ColumnCache(_CACHE_BYTES))
    except (CorruptionError, FormatVersionError) as error:
        return [_finding(error, replica_path)]
    findings = [_finding(problem, replica_path) for problem in segment.verify_all()]
    if findings:
        return findings
    folder = layout.segment_path(replica_path, ref.segment_id)
    try:
        return [Finding(f"{folder}/{name}", problem) for name, problem in _disagreements(segment)]
    except (CorruptionError, FormatVersionError) as error:
        return [_finding(error, replica_path)]


def _disagreements(segment: Segment) -> Iterator[tuple[str, str]]:
    """(file, problem) for every invariant between intact files that does not hold."""
    hi, lo = segment.ids.hashes()
    if not (np.array_equal(hi, segment.hi) and np.array_equal(lo, segment.lo)):
        yield layout.KEYS, "the hashes are not those of the ids"
    yield from _key_disagreements(segment)
    stamps, ref = segment.stamps, segment.ref
    if segment.n and (int(stamps.min()), int(stamps.max())) != (ref.min_stamp, ref.max_stamp):
        yield layout.KEYS, "the stamps are not in the range that the manifest names"
    for field in segment.fields:
        rows, norms = segment.vectors(field.name), segment.norms(field.name)
        if rows.shape != (segment.n, field.dimension) or (norms is not None and len(norms) != segment.n):
            yield layout.VECTORS, f"vectors {field.name!r} have another shape than the manifest says"
        segment.index_of(field.name)  # raises when the graph does not fit the vectors
    if segment.columns.n != segment.n or segment.columns.batch().num_rows not in (0, segment.n):
        yield layout.METADATA, "the payload has another number of rows"


def _key_disagreements(segment: Segment) -> Iterator[tuple[str, str]]:
    order = segment.sorted_row
    if not np.array_equal(np.bincount(order, minlength=segment.n), np.ones(segment.n, np.int64)):
        yield layout.KEYS, "sorted_row is not a permutation of the rows"
        return
    if not np.array_equal(segment.hi[order], segment.sorted_hi) or bool((np.diff(segment.sorted_hi) < 0).any()):
        yield layout.KEYS, "sorted_hi is not the ascending hashes"
        return
    table = KeyTable(segment.hi, segment.lo, segment.sorted_hi, order, None)
    if table.duplicate() is not None:
        yield layout.KEYS, "two rows have the same id"
    bloom: Bloom | None = segment.bloom
    if bloom is not None and not bloom.probe(segment.lo, bloom_masks(segment.hi)).all():
        yield layout.BLOOM, "the filter denies a key that is present"


def _check_deletes(
    disk: Disk, replica_path: str, deletes: dict[tuple[int, DeletesRef], SegmentRef]
) -> Iterator[Finding]:
    for (segment_id, named), ref in deletes.items():
        try:
            read_deletes(disk, replica_path, named, segment_id=segment_id, rows=ref.rows)
        except (CorruptionError, FormatVersionError) as error:
            yield _finding(error, replica_path)


__all__ = ["Finding", "check_replica_files", "check_segment"]

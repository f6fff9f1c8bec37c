"""Short histories of a database, each bringing one mechanism of the engine to work.

A workload gets an open session with one empty collection and leaves it as it likes, open or closed. All of
them take their dice from the session.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omendb_chaos.session import DEFAULT, Session
from omendb_common.schema import VectorField

Run = Callable[[Session], None]


@dataclass(frozen=True, slots=True)
class Workload:
    """A named history; ``changes`` are the settings it needs, ``fields`` the vectors of its collection."""

    name: str
    run: Run
    changes: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[VectorField, ...] = ()

    def session(self, seed: int, changes: Mapping[str, Any] | None = None) -> Session:
        """An open session with the collection made, ready for :attr:`run`."""
        session = Session(changes={**self.changes, **(changes or {})}, seed=seed).open()
        session.create(DEFAULT, *self.fields)
        return session


WORKLOADS: list[Workload] = []


def _workload(changes: Mapping[str, Any] | None = None, fields: tuple[VectorField, ...] = ()) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        WORKLOADS.append(Workload(run.__name__.lstrip("_"), run, changes or {}, fields))
        return run

    return register


_UNSYNCED = {"storage.durability": "os"}
# So long an interval that the syncing thread never takes part: a simulation has one thread.
_INTERVAL = {"storage.durability": "interval", "storage.interval_ms": 60_000}
_TINY_BUFFER = {"buffer.buffer_rows_max": 6}
_NO_INDEX = {"index.kind": "flat"}


# -- the log


@_workload()
def _append(s: Session) -> None:
    """A few small batches."""
    for start in range(0, 18, 3):
        s.upsert(s.rows(range(start, start + 3)))


@_workload()
def _append_single(s: Session) -> None:
    """One point at a time."""
    for n in range(10):
        s.upsert(s.rows([n]))


@_workload()
def _append_wide(s: Session) -> None:
    """Batches of many sectors, which a power cut may tear."""
    for start in range(0, 40, 10):
        s.upsert(s.rows(range(start, start + 10), text_bytes=600))


@_workload()
def _overwrite(s: Session) -> None:
    """The same ids again and again."""
    for _ in range(6):
        s.upsert(s.rows(range(4)))


@_workload()
def _deletes(s: Session) -> None:
    """Points come and go and come back."""
    s.upsert(s.rows(range(8)))
    s.delete([1, 2, 3])
    s.delete([3, 99])
    s.upsert(s.rows([2, 9]))
    s.delete([2, 9])


@_workload()
def _updates(s: Session) -> None:
    """Partial updates of payload and vectors, and keys removed."""
    s.upsert(s.rows(range(6)))
    s.update([0, 1], {"n": -1, "fresh": "yes"})
    s.update([1, 2], vectors=True)
    s.update([2, 3], {"deep": {"x": 1.5}}, vectors=True, unset=["tag"])
    s.update([3], unset=["n", "deep"])


@_workload()
def _refused(s: Session) -> None:
    """Operations that fail and must leave no trace, between others that do not."""
    s.upsert(s.rows(range(4)))
    s.upsert(s.rows([3, 4]), create_only=True)
    s.update([1, 77], {"n": 0})
    s.upsert(s.rows([5, 6]), create_only=True)


@_workload()
def _automatic_ids(s: Session) -> None:
    """Ids made up by the engine, which must never come twice."""
    s.upsert_automatic(3)
    s.upsert(s.rows([50]))
    s.upsert_automatic(3)
    s.reopen(clean=False)
    s.upsert_automatic(2)
    s.flush()
    s.delete([51, 52])
    s.reopen()
    s.upsert_automatic(2)


@_workload()
def _text_ids(s: Session) -> None:
    """Strings as ids, and batches of both kinds."""
    s.upsert(s.rows(["a", "b", "naïve", "x" * 512]))
    s.upsert(s.rows([1, "1", "b"]))
    s.delete(["a", 1])
    s.flush()
    s.upsert(s.rows(["a", 7]))
    s.update(["1"], {"n": 3})


@_workload(_NO_INDEX)
def _rotate(s: Session) -> None:
    """The log goes through several files."""
    for start in range(0, 30, 5):
        s.upsert(s.rows(range(start, start + 5), text_bytes=5000))


@_workload({**_NO_INDEX, "storage.ballast_bytes": 96 << 10})
def _rotate_and_flush(s: Session) -> None:
    """Log files become unnecessary and go, one after the other."""
    for start in range(0, 40, 5):
        s.upsert(s.rows(range(start, start + 5), text_bytes=5000))
        if start in (20, 35):
            s.flush()
    s.delete([1, 2])


@_workload(_NO_INDEX)
def _large_record(s: Session) -> None:
    """A record larger than a log file gets one of its own."""
    s.upsert(s.rows(range(3)))
    s.upsert(s.rows(range(3, 7), text_bytes=24_000))
    s.upsert(s.rows(range(7, 9)))


# -- segments and manifests


@_workload()
def _flush_once(s: Session) -> None:
    """A seal in the middle."""
    s.upsert(s.rows(range(6)))
    s.flush()
    s.upsert(s.rows(range(4, 9)))


@_workload(_NO_INDEX)
def _flush_often(s: Session) -> None:
    """More generations than are kept."""
    for start in range(0, 18, 3):
        s.upsert(s.rows(range(start, start + 3)))
        s.flush()


@_workload()
def _delete_sealed(s: Session) -> None:
    """Deletes, updates and overwrites of points in segments, sealed in their turn."""
    s.upsert(s.rows(range(12)))
    s.flush()
    s.delete([0, 1])
    s.update([2, 3], {"n": 7})
    s.upsert(s.rows([4, 20]))
    s.flush()
    s.delete([2, 20])
    s.flush()
    s.delete([5])


@_workload(_TINY_BUFFER)
def _overflow(s: Session) -> None:
    """Buffers that fill up and wait for their seal."""
    for start in range(0, 24, 4):
        s.upsert(s.rows(range(start, start + 4)))
        s.delete([start + 1])
        if start % 8 == 4:
            s.work(jobs=1)
    s.work()


@_workload(_TINY_BUFFER)
def _late_deletes_in_seal(s: Session) -> None:
    """Points die while the segment that holds them is being written."""
    s.upsert(s.rows(range(6)))
    s.upsert(s.rows(range(6, 10)))
    s.disk.meanwhile("keys.arrow", lambda: s.delete([0, 7]))
    s.disk.meanwhile("vectors.arrow", lambda: s.update([1], {"n": 9}))
    s.flush()
    s.upsert(s.rows([1]))
    s.reopen(clean=False)
    s.flush()
    s.delete([2])


@_workload(_NO_INDEX)
def _merge(s: Session) -> None:
    """Small segments become one."""
    for start in range(0, 16, 4):
        s.upsert(s.rows(range(start, start + 4)))
        s.flush()
    s.compact()
    s.upsert(s.rows([2]))


@_workload(_NO_INDEX)
def _late_writes_in_merge(s: Session) -> None:
    """Points die, change and come back while their segments are being merged."""
    for start in range(0, 12, 4):
        s.upsert(s.rows(range(start, start + 4)))
        s.flush()
    s.delete([8])
    s.disk.meanwhile("keys.arrow", lambda: s.delete([0, 5]))
    s.disk.meanwhile("bloom.bin", lambda: s.upsert(s.rows([1, 5])))
    s.disk.meanwhile("vectors.arrow", lambda: s.update([2], {"n": 4}, vectors=True))
    s.work()
    s.delete([1])
    s.reopen(clean=False)
    s.delete([6])
    s.compact()


@_workload(_NO_INDEX)
def _late_seal_in_merge(s: Session) -> None:
    """Deaths are checkpointed by a seal while a merge of the same segments runs."""
    for start in range(0, 12, 4):
        s.upsert(s.rows(range(start, start + 4)))
        s.flush()

    def kill_and_seal() -> None:
        s.delete([0, 5])
        s.upsert(s.rows([1, 30]))
        if not s.is_sealing():  # a fault may have put this into a seal instead of the merge
            s.flush()

    s.disk.meanwhile("keys.arrow", kill_and_seal)
    s.work(jobs=1)
    s.delete([9])
    s.reopen(clean=False)
    s.compact()


@_workload()
def _index(s: Session) -> None:
    """A segment gets its graph, with deaths before, while and after it is built."""
    s.upsert(s.rows(range(20)))
    s.flush()
    s.delete([3])
    s.disk.meanwhile("index.hnsw", lambda: s.delete([4, 5]))
    s.work()
    s.delete([6])
    s.flush()
    s.upsert(s.rows([6, 7]))


@_workload({"compaction.merge_fanin": 2})
def _merge_indexed(s: Session) -> None:
    """Segments with graphs are merged into one with a graph."""
    for start in range(0, 36, 12):
        s.upsert(s.rows(range(start, start + 12)))
        s.flush()
        s.work(jobs=2)
    s.disk.meanwhile("index.hnsw", lambda: s.delete([1]))
    s.compact()
    s.upsert(s.rows([1, 2]))


_LISTS = {"index.kind": "ivf", "buffer.buffer_rows_max": 200, "compaction.merge_fanin": 2}
_BYTES = {"index.quantization": "scalar8", "compaction.merge_fanin": 2}


@_workload(_LISTS)
def _lists(s: Session) -> None:
    """Segments get inverted lists, with deaths while they are built, and are merged into one that has its own."""
    for start in range(0, 140, 70):
        s.upsert(s.rows(range(start, start + 70)))
        s.flush()
        s.disk.meanwhile("index.ivf", lambda: s.delete([4, 75]))
        s.work(jobs=2)
    s.disk.meanwhile("index.ivf", lambda: s.delete([1]))
    s.compact()
    s.upsert(s.rows([1, 2]))


@_workload(_BYTES)
def _graphs_over_codes(s: Session) -> None:
    """Graphs over a byte an element: one is built, one grown from it when segments are merged."""
    for start in range(0, 24, 12):
        s.upsert(s.rows(range(start, start + 12)))
        s.flush()
        s.disk.meanwhile("index.codes", lambda: s.delete([3]))
        s.work(jobs=2)
    s.compact()
    s.upsert(s.rows([1, 2]))


@_workload()
def _purge(s: Session) -> None:
    """Everything is deleted and cleaned away."""
    s.upsert(s.rows(range(12)))
    s.flush()
    s.delete(list(range(12)))
    s.flush()
    s.compact()
    s.work()
    s.upsert(s.rows([5]))


@_workload(_NO_INDEX)
def _retire(s: Session) -> None:
    """Old generations are pushed out so that their files go."""
    for start in range(0, 9, 3):
        s.upsert(s.rows(range(start, start + 3)))
        s.flush()
    s.compact()
    s.retire()
    s.upsert(s.rows([50]))


@_workload()
def _delete_by_filter(s: Session) -> None:
    """A filter is resolved to ids before it is logged."""
    s.upsert(s.rows(range(12)))
    s.flush()
    s.upsert(s.rows(range(10, 16)))
    s.delete_where("a")
    s.delete_where("b")


# -- closing and opening


@_workload()
def _reopen_clean(s: Session) -> None:
    """Closed and opened between writes."""
    for start in range(0, 9, 3):
        s.upsert(s.rows(range(start, start + 3)))
        s.reopen()
    s.delete([4])
    s.close()


@_workload()
def _reopen_killed(s: Session) -> None:
    """The process dies between writes, and what it had not synced is synced by recovery."""
    for start in range(0, 12, 3):
        s.upsert(s.rows(range(start, start + 3)))
        s.update([start], {"n": 1})
        s.reopen(clean=False)
    s.flush()
    s.delete([1])
    s.reopen(clean=False)


@_workload()
def _opened_for_nothing(s: Session) -> None:
    """Opened and closed without a write."""
    s.upsert(s.rows(range(3)))
    for clean in (True, False, True, False):
        s.reopen(clean=clean)
    s.upsert(s.rows([9]))


# -- collections


@_workload()
def _collections(s: Session) -> None:
    """Several collections, written in turn."""
    s.create("second")
    s.create("third", VectorField(3))
    for start in range(0, 6, 2):
        for name in (DEFAULT, "second"):
            s.upsert(s.rows(range(start, start + 2)), name)
    s.upsert(s.rows([1], fields=[VectorField(3)]), "third")
    s.flush("second")
    s.delete([1], "second")


@_workload()
def _drop(s: Session) -> None:
    """A collection with data goes, and its name is used again."""
    s.upsert(s.rows(range(5)))
    s.flush()
    s.upsert(s.rows(range(3)))
    s.drop(DEFAULT)
    s.create()
    s.upsert(s.rows([1]))
    s.reopen(clean=False)
    s.drop(DEFAULT)


@_workload()
def _rename(s: Session) -> None:
    """A collection changes its name between writes."""
    s.upsert(s.rows(range(4)))
    s.rename(DEFAULT, "other")
    s.upsert(s.rows(range(2, 6)), "other")
    s.create()
    s.upsert(s.rows([9]))
    s.reopen()
    s.rename("other", "third")


# -- weaker durability


@_workload(_UNSYNCED)
def _unsynced(s: Session) -> None:
    """Acknowledged before it is durable: a power cut may take the newest writes, in order."""
    for start in range(0, 18, 3):
        s.upsert(s.rows(range(start, start + 3)))
        if start == 9:
            s.sync()


@_workload({**_UNSYNCED, **_TINY_BUFFER})
def _unsynced_seals(s: Session) -> None:
    """Seals, which must not get ahead of the log."""
    for start in range(0, 20, 4):
        s.upsert(s.rows(range(start, start + 4)))
        s.delete([start])
        s.work(jobs=1)
    s.flush()
    s.upsert(s.rows([40]))


@_workload({**_UNSYNCED, **_NO_INDEX})
def _unsynced_rotation(s: Session) -> None:
    """Log files follow each other without a sync in between that anybody asked for."""
    for start in range(0, 25, 5):
        s.upsert(s.rows(range(start, start + 5), text_bytes=5000))


@_workload(_INTERVAL)
def _interval(s: Session) -> None:
    """Synced from time to time, and died in between."""
    for start in range(0, 12, 3):
        s.upsert(s.rows(range(start, start + 3)))
        if start % 6 == 3:
            s.sync()
    s.reopen(clean=False)
    s.upsert(s.rows([20]))
    s.flush()


# -- other shapes of vectors


@_workload(fields=(VectorField(4, "cosine"),))
def _cosine(s: Session) -> None:
    """Vectors stored normalised, with their lengths."""
    s.upsert(s.rows(range(12)))
    s.flush()
    s.update([1, 2], vectors=True)
    s.work()
    s.upsert(s.rows([2, 3]))
    s.compact()


@_workload(fields=(VectorField(4, "l2", "float16"),))
def _halves(s: Session) -> None:
    """Vectors of 16-bit floats."""
    fields = [VectorField(4, "l2", "float16")]
    s.upsert(s.rows(range(12), fields=fields))
    s.flush()
    s.work()
    s.update([1], {"n": 2})
    s.upsert(s.rows([2, 3], fields=fields))
    s.flush()


@_workload(fields=(VectorField(4, "dot", "int8"),))
def _integers(s: Session) -> None:
    """Vectors of bytes."""
    fields = [VectorField(4, "dot", "int8")]
    s.upsert(s.rows(range(10), fields=fields))
    s.flush()
    s.update([1], {"n": 2}, vectors=True)
    s.work()
    s.delete([3])


@_workload(fields=(VectorField(4), VectorField(3, "cosine", "float32", "image")))
def _two_fields(s: Session) -> None:
    """Two vectors a point."""
    fields = [VectorField(4), VectorField(3, "cosine", "float32", "image")]
    s.upsert(s.rows(range(10), fields=fields))
    s.flush()
    s.update([1, 2], vectors=True)
    s.flush()
    s.compact()


# -- after a failure


@_workload()
def _failed_sync(s: Session) -> None:
    """A sync fails, the outcome is unknown until the database was opened again, and then it is settled."""
    s.upsert(s.rows(range(4)))
    s.disk.faults.fail("datasync", path_part="/wal/")
    s.upsert(s.rows(range(3, 7)))
    s.upsert(s.rows([9]))
    s.disk.faults.clear()
    s.reopen(clean=False)
    s.upsert(s.rows([10]))


@_workload()
def _failed_seal(s: Session) -> None:
    """The disk is full in the middle of a seal and a merge, which are tried again."""
    s.upsert(s.rows(range(10)))
    for part in ("vectors.arrow", "segments/segment", "manifest-", "CURRENT"):
        fault = s.disk.faults.fail("pwrite", error=errno.ENOSPC, path_part=part)
        s.upsert(s.rows([20, 21]))
        s.delete([1])
        before, s.tolerant = s.tolerant, True
        s.flush()
        s.tolerant = before
        s.disk.faults.clear()
        s.delete([2, 20])
        assert fault.fired <= 1
    s.flush()
    s.work()


# -- everything at once


def mixed(s: Session, operations: int = 30) -> None:
    """Operations drawn by dice."""
    rng = s.rng
    for _ in range(operations):
        ids = rng.sample(range(24), rng.randint(1, 6))
        present = [i for i in ids if i in s.points()]
        draw = rng.random()
        if draw < 0.40:
            s.upsert(s.rows(ids, text_bytes=rng.choice((0, 0, 0, 800))))
        elif draw < 0.55:
            s.delete(ids)
        elif draw < 0.70 and present:
            s.update(present, {"n": rng.randrange(99)}, vectors=rng.random() < 0.5, unset=rng.choice(((), ("tag",))))
        elif draw < 0.78:
            s.flush()
        elif draw < 0.90:
            s.disk.meanwhile("keys.arrow", lambda: s.delete([rng.randrange(24)]))
            s.work(jobs=rng.randint(1, 3))
        elif draw < 0.94:
            s.compact()
        else:
            s.reopen(clean=rng.random() < 0.5)


@_workload({"buffer.buffer_rows_max": 10})
def _mixed_first(s: Session) -> None:
    """Operations drawn by dice."""
    mixed(s)


@_workload({"buffer.buffer_rows_max": 10, "compaction.merge_fanin": 2, **_NO_INDEX})
def _mixed_second(s: Session) -> None:
    """Operations drawn by dice, with eager merges."""
    mixed(s)


@_workload({"buffer.buffer_rows_max": 7, "compaction.merge_fanin": 2, "index.flat_rows_max": 4})
def _mixed_third(s: Session) -> None:
    """Operations drawn by dice, with eager indexes."""
    mixed(s)


__all__ = ["WORKLOADS", "Run", "Workload", "mixed"]

"""A reader beside the writer: it must see what was acknowledged, whatever the writer seals, merges and removes."""

from __future__ import annotations

from contextlib import suppress

import pytest

from omendb_chaos.oracle import Violation, difference, observe
from omendb_chaos.rows.memory import Refusals, refusing
from omendb_chaos.session import PATH, Session, SimClock
from omendb_chaos.workloads import WORKLOADS, Workload
from omendb_common.errors import OmenDBError, ResourceExhaustedError
from omendb_common.ids import IdColumn
from omendb_engine.folder import Folder

# Those that fail on purpose, or kill the writer, have no reader to speak of.
FOLLOWED = [w for w in WORKLOADS if not w.name.startswith(("failed", "mixed", "reopen", "opened", "late"))]


def follow(session: Session) -> Folder:
    """A reader's handle on the session's disk."""
    return Folder.open(PATH, mode="r", settings=session.settings, disk=session.disk, clock=SimClock(), lock=False)


def check_reader(session: Session, reader: Folder) -> None:
    seen = observe(reader, sorted(session.known, key=str))
    if seen != session.history.newest:
        raise Violation(f"the reader is behind or ahead: {difference(session.history.newest, seen)}")


@pytest.mark.parametrize("workload", FOLLOWED, ids=lambda w: w.name)
def test_a_reader_sees_every_acknowledged_write_at_once(workload: Workload) -> None:
    session = workload.session(seed=0)
    reader = follow(session)
    session.watch = lambda: check_reader(session, reader)
    workload.run(session)
    reader.close()
    if session.is_open:
        session.close()


def test_a_reader_keeps_what_it_picked_after_its_files_are_gone() -> None:
    session = Session(changes={"index.kind": "flat"}).open()
    session.create()
    for start in range(0, 9, 3):
        session.upsert(session.rows(range(start, start + 3)))
        session.flush()
    reader = follow(session)
    held, _ = reader.replica("points").get(IdColumn.of(list(range(9))))
    writers, _ = session.replica().get(IdColumn.of(list(range(9))))
    session.delete(list(range(9)))
    session.flush()
    session.compact()
    for start in range(20, 35, 3):
        session.upsert(session.rows([start]))
        session.flush()
    session.compact()
    while session.replica().maintenance.retire_one():
        pass
    gone = [s for s in session.disk.listdir(f"{session.replica().path}/segments") if s <= "segment_000003"]
    assert not gone, "the segments that were picked from are still on disk, so nothing was tried"
    assert [p["n"] for p in held.payload()] == [p["n"] for p in writers.payload()]
    schema = session.replica().schema
    assert (held.vectors("", schema) == writers.vectors("", schema)).all()
    check_reader(session, reader)


def test_a_reader_that_gets_no_memory_says_so_and_is_right_the_next_time() -> None:
    session = Session(changes={"buffer.buffer_rows_max": 6}).open()
    session.create()
    session.upsert(session.rows(range(4)))
    reader = follow(session)
    for nth in range(1, 12):
        session.upsert(session.rows(range(nth, nth + 4)))
        session.delete([nth])
        if nth % 3 == 0:
            session.work()
        refusals = Refusals(1 + nth % 4)
        with refusing(refusals):
            with suppress(ResourceExhaustedError):
                check_reader(session, reader)
            refusals.over = True
            check_reader(session, reader)
    reader.close()
    assert reader.resources.budget.used_bytes == 0


@pytest.mark.parametrize("kind", ["pread", "open", "listdir"])
def test_a_reader_on_a_failing_disk_says_so_and_is_right_the_next_time(kind: str) -> None:
    session = Session(changes={"buffer.buffer_rows_max": 6}).open()
    session.create()
    session.upsert(session.rows(range(4)))
    reader = follow(session)
    struck = 0
    for nth in range(1, 20):
        session.upsert(session.rows(range(nth, nth + 4)))
        session.work()
        fault = session.disk.faults.fail(kind, 1 + nth % 5)
        with suppress(OmenDBError, OSError):
            check_reader(session, reader)
        session.disk.faults.clear()
        struck += fault.fired
        check_reader(session, reader)
    assert struck, "no read failed, so nothing was tried"

"""R5: blocks zeroed, swapped, stale or misdirected, files cut at every length, and torn tails told from damage."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from omendb_chaos.oracle import Violation, match, observe
from omendb_chaos.rows.fixture import Fixture, build, noticed, served
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_chaos.session import BusyDisk, open_folder
from omendb_chaos.sim.content import PAGE_BYTES
from omendb_chaos.sim.rot import misdirect, stale_block, swap_blocks, truncate_file, zero_block
from omendb_chaos.workloads import WORKLOADS
from omendb_common.errors import CorruptionError, OmenDBError
from omendb_engine.wal.record import COMMIT_NAME

_FAULTS = {"small": 150, "full": 10_000}
_CUTS = {"small": 60, "full": None}
_TAILS = {"small": 60, "full": 3_000}
_ROWS = 60


def run(seed: int, budget: Budget) -> Outcome:
    """Damage blocks, cut files, and tear or damage the ends of logs."""
    outcome = Outcome("R5", seed, budget)
    fixture = build(seed, rows=_ROWS)
    counts = _blocks(fixture, outcome, _FAULTS[budget])
    cuts = _cuts(fixture, outcome, _CUTS[budget])
    torn, damaged = _tails(seed, outcome, _TAILS[budget])
    outcome.notes.append(", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items())))
    outcome.figure = (
        f"{counts.total()} block faults and {cuts} cut files noticed or harmless, "
        f"{torn} torn tails opened and {damaged} damaged logs refused, {len(outcome.violations)} violations"
    )
    return outcome


def _blocks(fixture: Fixture, outcome: Outcome, count: int) -> Counter[str]:
    rng = dice("R5", outcome.seed)
    counts: Counter[str] = Counter()
    kinds: dict[str, Callable[[BusyDisk, random.Random, str], bool]] = {
        "zero": lambda disk, rng, path: zero_block(disk, path, _block(disk, rng, path)),
        "swap": lambda disk, rng, path: swap_blocks(disk, path, _block(disk, rng, path), *_other(disk, rng)),
        "stale": lambda disk, rng, path: stale_block(disk, path, _block(disk, rng, path)),
        "misdirect": lambda disk, rng, path: misdirect(disk, path, _block(disk, rng, path), *_other(disk, rng)),
    }
    pristine = {path: fixture.disk.peek(path) for path in fixture.files()}
    attempts = 0
    while counts.total() < count and attempts < count * 20:
        attempts += 1
        kind = rng.choice(sorted(kinds))
        path = rng.choice(sorted(pristine))
        if not kinds[kind](fixture.disk, rng, path):
            continue  # nothing changed, so there is nothing to notice
        counts[kind] += 1
        touched = [p for p, data in pristine.items() if fixture.disk.peek(p) != data]
        _judge(fixture, outcome, f"{kind} of {touched}, fault {counts.total()}", touched, rng.random() < 0.2)
        for changed in touched:
            _restore(fixture.disk, changed, pristine[changed])
    return counts


def _block(disk: BusyDisk, rng: random.Random, path: str) -> int:
    return rng.randrange(max(1, -(-disk.size(path) // PAGE_BYTES)))


def _other(disk: BusyDisk, rng: random.Random) -> tuple[str, int]:
    path = rng.choice(disk.paths())
    return path, _block(disk, rng, path)


def _restore(disk: BusyDisk, path: str, data: bytes) -> None:
    disk.cut(path, len(data))
    if data:
        disk.damage(path, 0, data)


def _judge(fixture: Fixture, outcome: Outcome, what: str, touched: list[str], serve: bool) -> None:
    found = [noticed(fixture, path) for path in touched]
    if found == [None] and touched[0].endswith(COMMIT_NAME) and served(fixture) is None:
        return  # an older commit point is what a power cut may leave as well: advice, and recovery finds more
    # Both ends of a swap are damage, but one notice is enough to know that the disk is bad.
    if not any(found) or "WRONG CONTENT" in found:
        outcome.violated(f"{what}: {found}")
    if serve and (problem := served(fixture)) is not None:
        outcome.violated(f"{what}: {problem}")


def _cuts(fixture: Fixture, outcome: Outcome, per_file: int | None) -> int:
    """Cut every file at every length (or at some)."""
    count = 0
    rng = dice("R5 cuts", outcome.seed)
    for path in fixture.files():
        data = fixture.disk.peek(path)
        lengths = range(len(data)) if per_file is None else sorted(rng.sample(range(len(data)), min(5, len(data))))
        for length in lengths:
            truncate_file(fixture.disk, path, length)
            count += 1
            _judge(fixture, outcome, f"{path} cut from {len(data)} to {length} bytes", [path], rng.random() < 0.02)
            _restore(fixture.disk, path, data)
    return count


def _tails(seed: int, outcome: Outcome, count: int) -> tuple[int, int]:
    """A tear in what was never acknowledged is passed over; damage to what was is refused."""
    rng = dice("R5 tails", seed)
    torn = _torn(seed, outcome, count, rng)
    fixture = build(seed, closed=False)
    session = fixture.session
    damaged = 0
    log = next(path.lstrip("/") for path in reversed(session.disk.paths()) if "/wal/wal-" in path)
    end = len(session.disk.peek(log).rstrip(b"\0"))
    for _ in range(count // 3):
        disk = session.disk.copy()
        offset = rng.randrange(PAGE_BYTES, end)
        length = min(rng.choice((1, 8, 64, 512)), end - offset)
        before = disk.peek(log)[offset : offset + length]
        after = bytes(b ^ rng.randrange(1, 256) for b in before)
        disk.damage(log, offset, after)
        damaged += 1
        try:
            open_folder(disk, session.settings)
            outcome.violated(f"{log} damaged at {offset} for {length} bytes was opened: it holds acknowledged writes")
        except CorruptionError as error:
            if error.path != log:
                outcome.violated(f"damage to {log} was reported for {error.path}")
    return torn, damaged + _without_commit(fixture, outcome, rng, count // 6, log)


def _torn(seed: int, outcome: Outcome, count: int, rng: random.Random) -> int:
    """Writes of many sectors of which a power cut let some through."""
    wide = next(w for w in WORKLOADS if w.name == "append_wide")
    torn = turn = 0
    while torn < count:
        session = wide.session(seed + turn)
        wide.run(session)
        turn += 1
        for survivor in session.disk.crash_states(40 * session.disk.position, rng):
            assert survivor.crash is not None
            if "sectors" not in survivor.crash.label or torn >= count:
                continue
            torn += 1
            try:
                seen = observe(open_folder(survivor, session.settings), sorted(session.known, key=str))
                match(session.history, seen, survivor.crash.at)
            except (Violation, OmenDBError) as error:
                outcome.violated(
                    f"torn tail, seed {seed + turn - 1}, {survivor.crash}: {type(error).__name__}: {error}"
                )
    return torn


def _without_commit(fixture: Fixture, outcome: Outcome, rng: random.Random, count: int, log: str) -> int:
    """A power cut may take the commit point back; then later records vouch for all but the last group."""
    session = fixture.session
    commit = f"{log.rpartition('/')[0]}/{COMMIT_NAME}"
    data = session.disk.peek(log)
    last = data.rstrip(b"\0").rfind(b"OMB1")
    for _ in range(count):
        disk = session.disk.copy()
        disk.damage(commit, 0, bytes(disk.size(commit)))
        offset = rng.randrange(PAGE_BYTES, last - 256)
        disk.damage(log, offset, bytes([data[offset] ^ rng.randrange(1, 256)]))
        try:
            seen = observe(open_folder(disk, session.settings), fixture.known)
        except CorruptionError:
            continue
        if seen != fixture.truth:
            outcome.violated(f"{log} damaged at {offset}, without a commit point: acknowledged writes were dropped")
    return count


__all__ = ["run"]

"""Draws the states in which a power cut may leave a simulated disk.

For every prefix of the operations: nothing unsynced survived, all of it did, up to three operations did or did not,
and one write got through in part, sector by sector.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations

from omendb_chaos.sim.oplog import SECTOR_BYTES, Image, Moment, Op, PendingOp, Write, last_moment, moments

# More operations than these are drawn from, not enumerated.
_ENUMERATED_MAX = 6
_DRAWS = 48
_TEARS = 8


def crash_images(base: Image, log: Sequence[Op], limit: int, rng: random.Random) -> Iterator[tuple[int, str, Image]]:
    """Distinct (operations done, what survived in words, disk), at most ``limit``, spread over all prefixes."""
    every = list(moments(base, log))
    rng.shuffle(every)
    sources = [(moment, _variants(moment, rng)) for moment in every]
    seen: set[tuple[int, int]] = set()
    while sources and len(seen) < limit:
        left: list[tuple[Moment, Iterator[tuple[str, Image]]]] = []
        for moment, source in sources:
            drawn = next(source, None)
            if drawn is None:
                continue
            left.append((moment, source))
            label, image = drawn
            # The same bytes after another sync are another state: more was promised by then.
            key = (moment.syncs, image.key())
            if key in seen:
                continue
            seen.add(key)
            yield moment.at, label, image
            if len(seen) >= limit:
                return
        sources = left


def crash_image(base: Image, log: Sequence[Op], rng: random.Random) -> tuple[str, Image]:
    """One of the states that a power cut after the last operation may leave: what survived in words, and the disk."""
    moment = last_moment(base, log)
    drawn = "nothing was pending", moment.survive(())
    for _, variant in zip(range(rng.randint(1, 4)), _variants(moment, rng), strict=False):
        drawn = variant
    return drawn


def _variants(moment: Moment, rng: random.Random) -> Iterator[tuple[str, Image]]:
    pending = moment.pending
    if moment.last_before_sync:
        # Only there, because that is when the most was acknowledged on the strength of what is durable.
        yield "nothing unsynced survived", moment.survive(())
    if not pending:
        return
    yield "everything survived", moment.survive(pending)
    sources = [_tears(moment, rng), _subsets(moment, rng)]
    while sources:
        source = rng.choice(sources)
        drawn = next(source, None)
        if drawn is None:
            sources.remove(source)
        else:
            yield drawn


def _subsets(moment: Moment, rng: random.Random) -> Iterator[tuple[str, Image]]:
    """Up to three operations survived alone, or were lost alone."""
    count = len(moment.pending)
    if count <= _ENUMERATED_MAX:
        chosen = [c for size in (1, 2, 3) for c in combinations(range(count), min(size, count))]
        rng.shuffle(chosen)
    else:
        chosen = [tuple(sorted(rng.sample(range(count), rng.randint(1, 3)))) for _ in range(_DRAWS)]
    for picked in chosen:
        few = [moment.pending[i] for i in picked]
        rest = [op for i, op in enumerate(moment.pending) if i not in picked]
        yield f"only {_names(few)} survived", moment.survive(few)
        yield f"{_names(few)} was lost", moment.survive(rest)


def _tears(moment: Moment, rng: random.Random) -> Iterator[tuple[str, Image]]:
    """One write got through in part; what came before it survived, what came after did not or did."""
    places = [i for i, op in enumerate(moment.pending) if isinstance(op, Write) and _sectors(op) > 1]
    for _ in range(_TEARS):
        for place in sorted(places, key=lambda _: rng.random()):
            op = moment.pending[place]
            assert isinstance(op, Write)
            after = moment.pending[place + 1 :] if rng.random() < 0.5 else ()
            label, kept = _tear(op, rng)
            yield f"write of {len(op.data)} bytes {label}", moment.survive((*moment.pending[:place], *kept, *after))


def _tear(op: Write, rng: random.Random) -> tuple[str, list[PendingOp]]:
    count = _sectors(op)
    kind = rng.randrange(3)
    cut = rng.randint(1, count - 1)
    if kind == 0:
        return f"kept its first {cut} of {count} sectors", [_piece(op, 0, cut)]
    if kind == 1:
        return f"lost its first {cut} of {count} sectors", [_piece(op, cut, count)]
    kept = [at for at in range(count) if rng.random() < 0.5]
    return f"kept {len(kept)} of {count} sectors", [_piece(op, at, at + 1) for at in kept]


def _sectors(op: Write) -> int:
    first, last = op.offset // SECTOR_BYTES, -(-(op.offset + len(op.data)) // SECTOR_BYTES)
    return last - first


def _piece(op: Write, first: int, last: int) -> Write:
    """Sectors first..last-1 of a write, counted from the one it begins in."""
    start = op.offset // SECTOR_BYTES * SECTOR_BYTES
    begin = max(start + first * SECTOR_BYTES, op.offset)
    end = min(start + last * SECTOR_BYTES, op.offset + len(op.data))
    return Write(op.node, begin, op.data[begin - op.offset : end - op.offset])


def _names(ops: Sequence[PendingOp]) -> str:
    return ", ".join(type(op).__name__.lower() for op in ops)


__all__ = ["crash_image", "crash_images"]

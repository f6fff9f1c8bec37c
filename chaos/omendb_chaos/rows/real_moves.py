"""R19's last part: replicas of a real cluster move while clients write and read, and somebody in it is struck.

Each of the nine (fault, victim) once, then random ones. Every answer is recorded, and one order of all calls must
explain them; the move must end; and what lay there from the start must lie on every replica afterwards.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omendb.client import Client
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb.fleet.process import wait_until
from omendb_chaos.checkers.linearizability import Register, check
from omendb_chaos.cluster.moving import KINDS, VICTIMS
from omendb_chaos.fleet.links import Links, ended
from omendb_chaos.fleet.possible import DIMENSION, vector_of
from omendb_chaos.fleet.replicas import held, soon, topology_of, with_coordinators
from omendb_chaos.fleet.running import START_S, running_fleet
from omendb_chaos.fleet.traffic import at_rest
from omendb_chaos.rows.calling import Calling
from omendb_chaos.rows.convergence import environment
from omendb_chaos.rows.histories import IDS, History
from omendb_chaos.rows.outcome import Outcome, dice
from omendb_common.errors import UnavailableError
from omendb_common.shard_calls import State

_NAME = "moving"
_BASE = 3000
_BASE_FROM = 1_000_000
# So slow that a move of these points takes some seconds, in which something can strike.
_SETTINGS = {"OMENDB_REPAIR_BYTES_PER_S": str(128 << 10), "OMENDB_REPAIR_BATCH_ROWS": "100"}
_SIZE = FleetSize(1, 2, 4)
_TIMEOUT_S = 10.0
_CLIENTS = 2
_STRIKES_WITHIN_S = 2.5
# So many are struck as soon as their first stage has ended: the second is short, and may have ended too.
_LATE = 0.4
_LASTS_S = (0.5, 2.0, 5.0)
_SHOWN_S = 0.3
_NODES = {"d1", "d2", "d3", "d4"}
_MOVER = "c1"


@dataclass(slots=True)
class Struck:
    """What came of it: moves by what struck whom, where they were then, and what clients were told."""

    moves: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def told(self) -> str:
        """The figures, for people."""
        calls = self.answers.total()
        return (
            f"{self.moves.total()} moves of real processes, {100 * self.answers['answered'] / max(calls, 1):.2f} % of "
            f"{calls} calls answered"
        )

    def notes(self) -> list[str]:
        """Which, for people."""
        struck = ", ".join(f"{what} ({n})" for what, n in sorted(self.moves.items()))
        return [f"struck on real processes: {struck}", f"at: {dict(sorted(self.stages.items()))}"]


def strike_moves(outcome: Outcome, seed: int, count: int) -> Struck:
    """Make ``count`` moves, each struck once."""
    struck = Struck()
    links = Links()
    with (
        environment(_SETTINGS),
        ended(links),
        running_fleet(outcome, _SIZE, lambda fleet: links.prepare(fleet, [*sorted(_NODES), _MOVER])) as fleet,
        fleet.client(timeout=START_S) as admin,
    ):
        try:
            _load(admin)
            cases = list(itertools.product(KINDS, VICTIMS))
            for number in range(count):
                rng = dice("R19 real", seed, number)
                kind, victim = cases[number] if number < len(cases) else rng.choice(cases)
                _one(outcome, fleet, links, (kind, victim), 1 + number * IDS, rng, struck)
        finally:
            # While the folder is there: it says which processes the links are.
            links.end()
    return struck


def _load(admin: Client) -> None:
    admin.create_collection(_NAME, DIMENSION, replication=3, write_quorum=2, read_quorum=2, shards=1)
    ids = list(range(_BASE_FROM, _BASE_FROM + _BASE))
    admin.upsert(ids, np.stack([vector_of(i, 0) for i in ids]), [{"value": 0}] * _BASE, collection=_NAME)


def _one(
    outcome: Outcome,
    fleet: Fleet,
    links: Links,
    case: tuple[str, str],
    first_id: int,
    rng: random.Random,
    struck: Struck,
) -> None:
    """One move, its strike, and what everybody sees afterwards."""
    kind, victim = case
    shard = topology_of(fleet).collection(_NAME).shards[0]
    source = rng.choice(shard.nodes("active"))
    (target,) = _NODES - set(shard.nodes("active"))
    name = {"source": source, "target": target, "mover": _MOVER}[victim]
    history = History(first_id, rng)
    calling = [_calling(history, url, rng, _CLIENTS) for url in fleet.urls()]
    try:
        _begin(fleet, source, target)
        if rng.random() < _LATE:
            fleet.wait_status(lambda status: _stage(status) != "filling", START_S, "the first stage to end")
        else:
            time.sleep(rng.uniform(0.0, _STRIKES_WITHIN_S))
        struck.moves[f"{kind} {victim}"] += 1
        struck.stages[_stage(fleet.status())] += 1
        _strike(fleet, links, kind, name, rng.choice(_LASTS_S))
        fleet.wait_status(lambda status: at_rest(status, _NODES - {source}), START_S, "the move to end")
    except UnavailableError as waited:
        outcome.violated(f"{kind} {victim} while {source} moves to {target}: {waited}")
    finally:
        for callers in calling:
            callers.end()
    struck.answers += history.answers
    # Twice, through both routers: what was shown once must not change by itself.
    for url in fleet.urls():
        _calling(history, url, rng, 1, reads_only=True).end(after_s=_SHOWN_S)
    verdict = check(history.operations(), Register())
    if not verdict.ok:
        outcome.violated(f"{kind} {victim} while {source} moved to {target}: no order of the calls: {verdict.why}")
    _everywhere(outcome, fleet, f"{kind} {victim} while {source} moved to {target}")


def _calling(history: History, url: str, rng: random.Random, clients: int, *, reads_only: bool = False) -> Calling:
    return Calling(history, url, rng, clients, name=_NAME, timeout_s=_TIMEOUT_S, reads_only=reads_only)


def _begin(fleet: Fleet, source: str, target: str) -> None:
    info = topology_of(fleet).collection(_NAME)
    epoch = info.shards[0].epoch
    with_coordinators(fleet, lambda client: client.begin_move(info.schema.uuid, 0, epoch, source, target, soon()))


def _stage(status: dict[str, Any]) -> str:
    """Where the move is."""
    moves = status["moves"]
    return str(moves[0]["stage"]) if moves else "ended"


def _strike(fleet: Fleet, links: Links, kind: str, name: str, seconds: float) -> None:
    match kind:
        case "kill":
            fleet.kill(name)
            time.sleep(seconds)
            fleet.start(name, START_S)
        case "pause":
            fleet.pause(name)
            time.sleep(seconds)
            fleet.resume(name)
        case _:
            links.cut(name)
            time.sleep(seconds)
            links.mend(name)


def _everywhere(outcome: Outcome, fleet: Fleet, what: str) -> None:
    """What was there from the start lies on all three replicas, the same on each."""
    ids = list(range(_BASE_FROM, _BASE_FROM + _BASE))
    wrong: list[object] = []

    def holds() -> bool:
        found = held(fleet, _NAME, ids)
        wrong[:] = [
            point_id
            for point_id, versions in found.items()
            if [v.state for v in versions] != [State.LIVE] * 3 or len({v.digest for v in versions}) != 1
        ]
        return not wrong

    try:
        wait_until(holds, START_S, "every replica to have what was there from the start")
    except UnavailableError:
        outcome.violated(f"{what}: {len(wrong)} points are not the same on three replicas, such as {wrong[:3]}")


__all__ = ["Struck", "strike_moves"]

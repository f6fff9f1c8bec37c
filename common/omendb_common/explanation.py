"""How a search is made: what each segment is searched with, why, and how well that is expected to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

Choice = Literal["skip", "exact", "index", "index and pick"]
"""``skip``: not looked at. ``exact``: every row that may be returned is compared. ``index``: the index is
searched, and passes by rows that may not be returned. ``index and pick``: it is searched for more rows than asked for,
of which those are taken that match."""
CHOICES: tuple[str, ...] = get_args(Choice)


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """What a search does with one segment, or with one growing buffer.

    Attributes:
        segment: its number; negative for a buffer, which holds what was written last.
        rows: rows in it, dead ones included.
        matching: rows that may be returned: alive, and passing the filter; exact.
        choice: what is done with it.
        why: the reason, for people.
        effort: of the index; 0 without one.
        asked: neighbours that the index is asked for, before the filter; 0 without one.
        comparisons: vectors compared for one query; of an index an estimate.
        recall: share of the true neighbours that it is expected to find, 0..1, by the segment's own curve.
        cached: whether the rows that match were known from an earlier call.
        shard: the shard that it belongs to.
        node: the data node that was asked; empty in a folder.
    """

    segment: int
    rows: int
    matching: int
    choice: Choice
    why: str
    effort: int = 0
    asked: int = 0
    comparisons: int = 0
    recall: float = 1.0
    cached: bool = False
    shard: int = 0
    node: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search is made, segment by segment.

    Attributes:
        k: hits asked for.
        recall_target: the share of the true neighbours that was aimed at.
        segments: every segment, skipped ones too.
        measured_recall: where it was measured, the share of the ``k`` hits of an exact search that this search found,
            over all queries; None where it was not.
    """

    k: int
    recall_target: float
    segments: tuple[SegmentPlan, ...]
    measured_recall: float | None = None

    @property
    def searched(self) -> tuple[SegmentPlan, ...]:
        """Those that are looked at."""
        return tuple(plan for plan in self.segments if plan.choice != "skip")

    @property
    def matching(self) -> int:
        """Rows that may be returned."""
        return sum(plan.matching for plan in self.segments)

    @property
    def comparisons(self) -> int:
        """Vectors compared for one query, an estimate where an index is searched."""
        return sum(plan.comparisons for plan in self.segments)

    @property
    def expected_recall(self) -> float:
        """Share of the true neighbours that is expected to be found, where each row that matches may be one."""
        matching = self.matching
        return sum(plan.recall * plan.matching for plan in self.segments) / matching if matching else 1.0

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {
            "k": self.k,
            "recall_target": self.recall_target,
            "matching": self.matching,
            "comparisons": self.comparisons,
            "expected_recall": self.expected_recall,
            "measured_recall": self.measured_recall,
            "segments": [asdict(plan) for plan in self.segments],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Explanation:
        """Read what :meth:`to_json` wrote; names that are not known are passed over."""
        measured = value.get("measured_recall")
        return Explanation(
            int(value["k"]),
            float(value["recall_target"]),
            tuple(_plan(plan) for plan in value["segments"]),
            None if measured is None else float(measured),
        )

    @staticmethod
    def joined(shards: Sequence[tuple[int, str, Explanation]], k: int) -> Explanation:
        """One explanation of several shards: (shard, the node that was asked, what it said)."""
        plans = [replace(plan, shard=shard, node=node) for shard, node, told in shards for plan in told.segments]
        return Explanation(k, min((told.recall_target for _, _, told in shards), default=1.0), tuple(plans))

    def measured(self, recall: float) -> Explanation:
        """The same, with the recall that was measured."""
        return replace(self, measured_recall=recall)


def _plan(value: Mapping[str, Any]) -> SegmentPlan:
    if value["choice"] not in CHOICES:
        raise ValueError(f"the choice {value['choice']!r}")
    return SegmentPlan(
        int(value["segment"]),
        int(value["rows"]),
        int(value["matching"]),
        value["choice"],
        str(value["why"]),
        int(value["effort"]),
        int(value["asked"]),
        int(value["comparisons"]),
        float(value["recall"]),
        bool(value["cached"]),
        int(value["shard"]),
        str(value["node"]),
    )


def recall_of(found: Sequence[Sequence[Any]], exact: Sequence[Sequence[Any]]) -> float:
    """The share of the ids of exact answers that were found, over all queries; 1.0 where there is nothing to find."""
    wanted = sum(len(ids) for ids in exact)
    hits = sum(len(set(want) & set(got)) for want, got in zip(exact, found, strict=True))
    return hits / wanted if wanted else 1.0


__all__ = ["CHOICES", "Choice", "Explanation", "SegmentPlan", "recall_of"]

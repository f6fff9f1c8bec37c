"""What a coordinator shows of itself: its place in the group, the members it knows, what it was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from omendb_common.errors import UnavailableError
from omendb_common.telemetry.metrics import Metrics
from omendb_common.topology import MemberState, Role
from omendb_coordinator.consensus.seam import ConsensusStatus
from omendb_coordinator.control import Control


class Figures(Collector):
    """Reads everything when it is asked for it."""

    def __init__(self, control: Control, metrics: Metrics) -> None:
        self._control = control
        self._terms_led = 0
        self._terms_seen = 0
        self._told: tuple[int, bool] = (0, False)
        control.consensus.on_change(self._changed)
        metrics.sample("omendb_active_collections", lambda: len(control.catalog.topology.collections))
        metrics.registry.register(self)

    def unready(self) -> str | None:
        """Why this coordinator is of no use just now; None: it is."""
        try:
            status = self._control.consensus.status
        except UnavailableError as problem:
            return problem.message
        if status.role == "rejoining":
            return "catching up after its disk was lost"
        return None if status.leader is not None else "knows no leader"

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client``."""
        try:
            status = self._control.consensus.status
        except UnavailableError:
            return
        topology, state = self._control.catalog.topology, self._control.catalog.state
        figures = {
            "omendb_raft_term": ("Term of the group", status.term),
            "omendb_raft_leads": ("1 when this coordinator leads", int(status.role == "leader")),
            "omendb_raft_commit_index": ("Last entry that a majority has", status.commit_index),
            "omendb_raft_applied_index": ("Last entry applied here", status.applied_index),
            "omendb_raft_applied_lag": (
                "Committed entries not applied here",
                status.commit_index - status.applied_index,
            ),
            "omendb_raft_last_index": ("Last entry of the log here", status.last_index),
            "omendb_catalog_revision": ("Revision of the topology", topology.revision),
            "omendb_catalog_aliases": ("Aliases", len(topology.aliases)),
            "omendb_catalog_origins": ("Origins ever leased", len(state.origins)),
            "omendb_catalog_remembered_requests": ("Requests that are recognized", self._control.catalog.remembered),
            "omendb_feature_level": ("Level that the cluster uses", topology.feature_level),
            "omendb_proposals_under_way": ("Changes that wait for the group", self._control.proposals),
        }
        for name, (told, value) in figures.items():
            yield GaugeMetricFamily(name, told, value=value)
        yield CounterMetricFamily("omendb_raft_elections_won", "Terms led", value=self._terms_led)
        yield CounterMetricFamily("omendb_raft_terms", "Terms begun", value=self._terms_seen)
        yield self._members()

    def _members(self) -> Metric:
        counted = Counter((m.role, m.state) for m in self._control.catalog.topology.members.values())
        family = GaugeMetricFamily("omendb_members", "Members of the cluster", labels=["role", "state"])
        for role in get_args(Role):
            for state in get_args(MemberState):
                family.add_metric([role, state], counted[role, state])
        return family

    def _changed(self, status: ConsensusStatus) -> None:
        term, led = self._told
        leads = status.role == "leader"
        self._terms_seen += max(0, status.term - term)
        if leads and (not led or status.term != term):
            self._terms_led += 1
        self._told = status.term, leads


__all__ = ["Figures"]

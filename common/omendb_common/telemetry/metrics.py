"""The metrics of one process, in a Prometheus registry of its own.

Names begin with ``omendb_``. Those of the specification are gauges by their exact names; beside them stand histograms
in ``_seconds`` and counters in ``_total``. Labels come from closed sets (methods, codes, reasons), never from what a
caller wrote: no name of a collection, a tenant or an id.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from omendb_common.clock import Clock
from omendb_common.errors import InvalidArgumentError
from omendb_common.telemetry.windows import CountWindow, QuantileWindow
from omendb_common.wire.frames import FrameStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LATENCY_BUCKETS_S = (
    *(0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02),
    *(0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)

SAMPLED = {
    "omendb_recall_at_10": "Share of the true ten nearest that searches find, by sampled exact searches, 0..1",
    "omendb_disk_usage_bytes": "Bytes on disk of the replicas of this process",
    "omendb_index_build_queue_size": "Segments that wait for their index",
    "omendb_total_vectors": "Points in the replicas of this process",
    "omendb_active_collections": "Collections that this process knows",
    "omendb_memory_usage_bytes": "Resident memory of this process",
}
"""Gauges of the specification that somebody must sample, by name."""


class Metrics:
    """Counts what a process does; :meth:`render` tells it to Prometheus. Used from one thread."""

    def __init__(self, role: str, node_id: str, clock: Clock, *, release: str = "") -> None:
        """An empty registry for the process ``node_id`` in ``role``."""
        self.registry = CollectorRegistry()
        self._clock = clock
        self._sampled: dict[str, Callable[[], float]] = {}
        self._inserted = CountWindow(clock, slot_s=1.0, slots=60)
        self._searches = CountWindow(clock, slot_s=900.0, slots=96)
        self._latency = QuantileWindow(clock)
        self._requests = Histogram(
            "omendb_request_seconds",
            "Time to answer, by method and by the code of the answer",
            ["method", "code"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str], Histogram] = {}
        self._points = Counter("omendb_inserted_points", "Points acknowledged", registry=self.registry)
        self._queries = Counter("omendb_search_queries", "Queries answered", registry=self.registry)
        about = Gauge("omendb_build_info", "Always 1", ["role", "node", "release"], registry=self.registry)
        about.labels(role, node_id, release).set(1)
        ProcessCollector(registry=self.registry)
        self.sample("omendb_memory_usage_bytes", resident_bytes)
        self.registry.register(_Specified(self))
        self._certificates: Gauge | None = None
        self._frames = _Frames()
        self.registry.register(self._frames)

    def observe_request(self, method: str, seconds: float, code: str = "OK") -> None:
        """A request of ``method`` was answered with ``code``, a gRPC status name or a verdict's."""
        key = (method, code)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(method, code)
        child.observe(seconds)

    def observe_search(self, seconds: float, queries: int = 1) -> None:
        """A search of that many queries was answered."""
        self._latency.add(seconds)
        self._searches.add(queries)
        self._queries.inc(queries)

    def count_inserted(self, points: int) -> None:
        """So many points were acknowledged."""
        self._inserted.add(points)
        self._points.inc(points)

    def sample(self, name: str, read: Callable[[], float]) -> None:
        """Let a gauge of :data:`SAMPLED` be read whenever it is asked for; it is not shown before.

        Raises:
            InvalidArgumentError: there is no such gauge.
        """
        if name not in SAMPLED:
            raise InvalidArgumentError(f"no gauge {name!r}", field="name", bound=f"one of {', '.join(SAMPLED)}")
        self._sampled[name] = read

    def gauge(self, name: str, told: str, read: Callable[[], float]) -> None:
        """A further gauge, read whenever it is asked for."""
        Gauge(name, told, registry=self.registry).set_function(read)

    def tally(self, name: str, told: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """A counter that is kept elsewhere: its values by those of ``label``, or the one of "" without a label."""
        self.registry.register(_Tally(name, told, label, read))

    def watch_certificate(self, name: str, left_s: Callable[[], float]) -> None:
        """Show how long a certificate is good for; ``name``: "cluster" or "face"."""
        if self._certificates is None:
            self._certificates = Gauge(
                "omendb_tls_certificate_expiry_seconds",
                "Seconds until the TLS certificate in use ends; negative: it has",
                ["certificate"],
                registry=self.registry,
            )
        self._certificates.labels(name).set_function(left_s)

    def watch_frames(self, stats: FrameStats, end: str) -> None:
        """Show what the framed connections of ``end`` ("client", "server", "face") have seen."""
        self._frames.ends[end] = stats

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def specified(self) -> Iterator[Metric]:
        """The gauges of the specification, as they are now."""
        counted = (
            ("omendb_insertion_rate_per_sec", "Points acknowledged per second, last minute", self._inserted.per_second),
            ("omendb_search_latency_p95", "95th percentile of search time in seconds, last minute", self._p95()),
            ("omendb_daily_searches", "Queries answered in the last 24 hours", self._searches.total),
        )
        for name, told, value in counted:
            yield GaugeMetricFamily(name, told, value=value)
        for name, read in self._sampled.items():
            yield GaugeMetricFamily(name, SAMPLED[name], value=read())

    def _p95(self) -> float:
        return self._latency.quantile(0.95)


class _Specified(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.specified()


class _Tally(Collector):
    def __init__(self, name: str, told: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        self._about = name, told, [label] if label else []
        self._read = read

    def collect(self) -> Iterator[Metric]:
        name, told, labels = self._about
        family = CounterMetricFamily(name, told, labels=labels)
        for value, count in sorted(self._read().items()):
            family.add_metric([value] if labels else [], count)
        yield family


class _Frames(Collector):
    """What framed connections have seen, a row per end of them."""

    def __init__(self) -> None:
        self.ends: dict[str, FrameStats] = {}

    def collect(self) -> Iterator[Metric]:
        ends, per_direction = ["end"], ["end", "direction"]
        connections = GaugeMetricFamily("omendb_frame_connections", "Framed connections that are open", labels=ends)
        frames = CounterMetricFamily("omendb_frames", "Frames", labels=per_direction)
        data = CounterMetricFamily("omendb_frame_bytes", "Bytes of frames", labels=per_direction)
        calls = CounterMetricFamily("omendb_frame_calls", "Calls by what became of them", labels=["end", "fate"])
        broken = CounterMetricFamily(
            "omendb_frame_broken", "Connections closed for what the peer sent", labels=["end", "reason"]
        )
        for end, stats in self.ends.items():
            connections.add_metric([end], stats.connections)
            frames.add_metric([end, "in"], stats.frames_in)
            frames.add_metric([end, "out"], stats.frames_out)
            data.add_metric([end, "in"], stats.bytes_in)
            data.add_metric([end, "out"], stats.bytes_out)
            calls.add_metric([end, "begun"], stats.calls)
            calls.add_metric([end, "cancelled"], stats.calls_cancelled)
            calls.add_metric([end, "refused"], stats.calls_refused)
            for reason, count in sorted(stats.broken.items()):
                broken.add_metric([end, reason], count)
        yield from (connections, frames, data, calls, broken)


def resident_bytes() -> float:
    """Resident memory of this process; 0.0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return float(pages * mmap.PAGESIZE)


__all__ = ["CONTENT_TYPE", "LATENCY_BUCKETS_S", "SAMPLED", "Metrics", "resident_bytes"]

"""Metrics as Prometheus reads them: its own text, or OpenMetrics where the scraper asks for that."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from proxy.telemetry.metrics import METRICS, Kind, Labels, Metric, Snapshot

_NOTHING: Final[dict[Labels, tuple[float, ...]]] = {}


class _Taken(Collector):
    """One snapshot, as a registry wants it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Family]:
        return []

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            yield _family(metric, self._snapshot.get(metric.name, _NOTHING))


def rendered(snapshot: Snapshot, accept: str) -> tuple[str, bytes]:
    """The content type that suits `accept`, and the text. Takes milliseconds where there are many series: not for a loop."""
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Taken(snapshot))
    return content_type, encode(registry)


def _family(metric: Metric, series: dict[Labels, tuple[float, ...]]) -> Family:
    match metric.kind:
        case Kind.COUNTER:
            counter = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            for labels, (value,) in sorted(series.items()):
                counter.add_metric(labels, value * metric.scale if metric.scale != 1.0 else value)
            return counter
        case Kind.GAUGE:
            gauge = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            for labels, (value,) in sorted(series.items()):
                gauge.add_metric(labels, value)
            return gauge
        case Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
            for labels, values in sorted(series.items()):
                counts = list(zip(bounds, map(float, accumulate(values[:-1])), strict=True))
                histogram.add_metric(labels, counts, values[-1])
            return histogram

"""The Prometheus collector: `registry.register(mesh.prometheus_collector())`.

Nothing is kept in `prometheus_client`'s own values: each scrape reads the mesh. So its multi-process mode
(`PROMETHEUS_MULTIPROC_DIR`), which adds up files of such values, sees nothing of it: with several worker processes let
each be scraped, or give each its own label (docs/telemetry.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, UnknownMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from meshlib.telemetry.metrics.catalogue import ALL
from meshlib.telemetry.metrics.metric import Distribution, Metric, Sample

__all__ = ["PrometheusCollector"]

Read = Callable[[], Iterable[Sample]]


class PrometheusCollector(Collector):
    """Metric families of what `read` gives, under the names of the catalogue."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def describe(self) -> Iterator[Family]:
        """Every name there may be, so that a registry sees a clash at once."""
        for metric in ALL:
            yield _family(metric)

    def collect(self) -> Iterator[Family]:
        """What there is now."""
        families: dict[Metric, Family] = {}
        for sample in self._read():
            family = families.get(sample.metric)
            if family is None:
                family = families[sample.metric] = _family(sample.metric)
            _add(family, sample)
        yield from families.values()


def _family(metric: Metric) -> Family:
    labels = metric.prometheus_labels
    if metric.kind == "histogram":
        return HistogramMetricFamily(metric.prometheus, metric.text, labels=labels)
    if metric.kind == "gauge":
        return GaugeMetricFamily(metric.prometheus, metric.text, labels=labels)
    if metric.prometheus.endswith("_total"):
        return CounterMetricFamily(metric.prometheus, metric.text, labels=labels)
    # Envoy's counters have no `_total`, without which the client library knows no counter.
    return UnknownMetricFamily(metric.prometheus, metric.text, labels=labels)


def _add(family: Any, sample: Sample) -> None:
    value = sample.value
    if isinstance(value, Distribution):
        family.add_metric(sample.labels, _cumulated(sample.metric.bounds, value), value.sum)
    else:
        family.add_metric(sample.labels, value)


def _cumulated(bounds: tuple[float, ...], value: Distribution) -> list[tuple[str, float]]:
    buckets, total = [], 0
    for bound, count in zip((*map(_number, bounds), "+Inf"), value.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _number(bound: float) -> str:
    return str(float(bound))

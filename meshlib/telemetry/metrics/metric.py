"""Metric: one name in the catalogue; Sample: one value of it; Distribution: the value of a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

# OpenTelemetry's attributes -> the label names Envoy's dashboards know, for metrics under Envoy's names.
_ENVOY_LABELS = {
    "meshlib.cluster": "envoy_cluster_name",
    "http.response.status_class": "envoy_response_code_class",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` is OpenTelemetry's, `prometheus` the name in Prometheus as a query writes it (of a histogram: without
    `_bucket`), `labels` the OpenTelemetry attributes. `bounds` are a histogram's, in `unit` (UCUM).
    """

    name: str
    kind: Kind
    prometheus: str
    text: str
    unit: str = "1"
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus_labels(self) -> tuple[str, ...]:
        """The label names in Prometheus: Envoy's under Envoy's names, else the attributes' with `_` for `.`."""
        envoy = _ENVOY_LABELS if self.prometheus.startswith("envoy_") else {}
        return tuple(envoy.get(label, label.replace(".", "_")) for label in self.labels)


class Distribution(NamedTuple):
    """Counts by bucket, the last without upper bound, and the sum of the values."""

    counts: Sequence[int]
    sum: float


class Sample(NamedTuple):
    """One value with its label values, in the order of the metric's labels."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Distribution

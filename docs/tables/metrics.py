"""The metrics, from `meshlib.telemetry.metrics.catalogue`."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.telemetry.metrics import catalogue
from meshlib.telemetry.metrics.metric import Metric
from tables import markdown


def measured() -> str:
    """What calls and requests are measured by."""
    return _table(catalogue.MEASURED)


def clusters() -> str:
    """Counters and gauges of clusters."""
    return _table(
        (
            catalogue.RESPONSES,
            *catalogue.CLUSTER_STATS.values(),
            catalogue.FILTER_STATS,
            catalogue.ACTIVE_FAULTS,
            *catalogue.GAUGES,
        )
    )


def control() -> str:
    """What sources say."""
    return _table(catalogue.CONTROL)


def _table(metrics: Iterable[Metric]) -> str:
    rows = [
        (
            f"`{metric.name}`",
            f"`{metric.prometheus}`",
            f"{metric.kind}{'' if metric.unit == '1' else f', {metric.unit}'}",
            markdown.code(metric.labels),
            metric.text,
        )
        for metric in metrics
    ]
    return markdown.table(("OpenTelemetry", "Prometheus", "kind", "attributes", "meaning"), rows)

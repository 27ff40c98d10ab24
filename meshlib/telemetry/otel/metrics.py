"""Metrics by OpenTelemetry: what calls measure goes into its histograms and counters, everything else is observed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from meshlib.telemetry.metrics.catalogue import ALL, MEASURED
from meshlib.telemetry.metrics.cells import Bound, Labels
from meshlib.telemetry.metrics.metric import Distribution, Metric, Sample

SCOPE = "meshlib"
_FRESH = 0.25  # seconds


class OtelMeasurements:
    """`meshlib.telemetry.metrics.cells.Measurements` by a meter. `provider` None: OpenTelemetry's global one.

    `read` gives the values that are not measured call by call. All instruments are asked one after the other, so what
    it gave the first one serves them all.
    """

    def __init__(
        self, read: Callable[[], Iterable[Sample]], provider: MeterProvider | None = None, version: str = ""
    ) -> None:
        self._read: Callable[[], Iterable[Sample]] | None = read
        self._seen: tuple[float, dict[Metric, list[Sample]]] = (float("-inf"), {})
        self._bounds = {metric.name: Bound() for metric in MEASURED}
        self._attributes: dict[tuple[str, Labels], dict[str, str | int]] = {}
        self._instruments: dict[str, Any] = {}
        meter = (provider or get_meter_provider()).get_meter(SCOPE, version)
        for metric in MEASURED:
            if metric.kind == "histogram":
                bounds = list(metric.bounds)
                self._instruments[metric.name] = meter.create_histogram(
                    metric.name, metric.unit, metric.text, explicit_bucket_boundaries_advisory=bounds
                )
            else:
                self._instruments[metric.name] = meter.create_counter(metric.name, metric.unit, metric.text)
        for metric in ALL:
            if metric not in MEASURED:
                make = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
                make(metric.name, [self._observer(metric)], metric.unit, metric.text)

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """One value: into a histogram, or onto a counter."""
        if self._read is None:
            return
        attributes = self._attributes.get((metric.name, labels))
        if attributes is None:
            kept = self._bounds[metric.name].bounded(labels)
            attributes = self._attributes.setdefault((metric.name, kept), _attributes(metric, kept))
        instrument = self._instruments[metric.name]
        if metric.bounds:
            instrument.record(value, attributes)
        else:
            instrument.add(value, attributes)

    def close(self) -> None:
        """Measure no more. (A meter's instruments cannot be taken back; they fall silent.)"""
        self._read = None

    def _samples(self) -> dict[Metric, list[Sample]]:
        read, now = self._read, time.monotonic()
        if read is None:
            return {}
        at, samples = self._seen
        if now - at > _FRESH:
            samples = {}
            for sample in read():
                samples.setdefault(sample.metric, []).append(sample)
            self._seen = (now, samples)
        return samples

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            for sample in self._samples().get(metric, ()):
                if not isinstance(sample.value, Distribution):
                    yield Observation(sample.value, _attributes(metric, sample.labels))

        return observe


def _attributes(metric: Metric, labels: Labels) -> dict[str, str | int]:
    """The attributes of label values; an empty value is an attribute that is not there, and statuses are numbers."""
    return {
        name: int(value) if name.endswith("status_code") and value.isdigit() else value
        for name, value in zip(metric.labels, labels, strict=True)
        if value
    }

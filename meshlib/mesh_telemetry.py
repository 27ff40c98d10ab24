"""A mesh's telemetry: spans and metrics, on when asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from meshlib.engine.measured import Measured
from meshlib.engine.readings import read
from meshlib.telemetry.metrics import catalogue
from meshlib.telemetry.metrics.cells import Cells
from meshlib.telemetry.metrics.metric import Sample

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from meshlib.mesh import Mesh
    from meshlib.telemetry.metrics.prometheus import PrometheusCollector
    from meshlib.telemetry.urls import QueryPolicy


class Instrumented:
    """What `Mesh` has of telemetry."""

    if TYPE_CHECKING:
        _otel: list[Callable[[], None]]
        _cells: Cells | None

    def instrument(  # type: ignore[misc]  # only Mesh is made of this class
        self: Mesh,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        spans: bool = True,
        metrics: bool = True,
        query: QueryPolicy = "sensitive",
    ) -> None:
        """Make spans and metrics by OpenTelemetry, from the next call on. The providers are the global ones unless
        given. Asked a second time, the new answer holds.

        `spans`: an INTERNAL span for each call, a CLIENT span for each attempt, a SERVER span for each request behind
        the mesh's middleware, and their trace headers on the wire. `metrics`: the catalogue in docs/telemetry.md.
        `query`: what becomes of query values in `url.full` and `url.query` (`meshlib.telemetry.urls.QueryPolicy`).
        Raises ModuleNotFoundError without `meshlib[otel]`.
        """
        from meshlib.telemetry.otel.metrics import OtelMeasurements
        from meshlib.telemetry.otel.tracing import OtelTracing

        self.uninstrument()
        if spans:
            self.runtime.tracing = OtelTracing(
                self.runtime.propagation, tracer_provider, version=_version(), query=query
            )
            self._otel.append(self._untrace)
        if metrics:
            measurements = OtelMeasurements(self._readings, meter_provider, _version())
            observer = Measured(measurements)
            self.on_event(observer)
            self._otel += [measurements.close, lambda: self._unobserve(observer)]

    def uninstrument(self: Mesh) -> None:  # type: ignore[misc]
        """Make no more spans and OpenTelemetry metrics. Prometheus collectors go on."""
        while self._otel:
            self._otel.pop()()

    def prometheus_collector(self: Mesh) -> PrometheusCollector:  # type: ignore[misc]
        """`prometheus_client.REGISTRY.register(mesh.prometheus_collector())`: the mesh's metrics at each scrape.

        Calls are measured from here on. Raises ModuleNotFoundError without `meshlib[prometheus]`.
        """
        from meshlib.telemetry.metrics.prometheus import PrometheusCollector

        if self._cells is None:
            self._cells = Cells()
            self.on_event(Measured(self._cells))
        return PrometheusCollector(self._samples)

    # ------------------------------------------------------------------ inside

    def _samples(self: Mesh) -> Iterator[Sample]:  # type: ignore[misc]
        if self._cells is not None:
            yield from self._cells.samples()
        yield from self._readings()

    def _readings(self: Mesh) -> Iterator[Sample]:  # type: ignore[misc]
        now = time.monotonic()
        yield from read(self.runtime)
        yield Sample(catalogue.READY, (), int(self.ready))
        if self.ready:
            yield Sample(catalogue.PLAN_AGE, (), now - self._published)
        for severity, count in Counter(issue.severity for issue in self.issues).items():
            yield Sample(catalogue.ISSUES, (severity,), count)
        stats = getattr(self.source, "stats", None)
        if stats is not None:
            yield from _of_source(stats(), now)

    def _untrace(self: Mesh) -> None:  # type: ignore[misc]
        self.runtime.tracing = None

    def _unobserve(self: Mesh, observer: Measured) -> None:  # type: ignore[misc]
        self.runtime.observers = tuple(other for other in self.runtime.observers if other is not observer)

    def _measure_anew(self: Mesh) -> None:  # type: ignore[misc]
        """In a forked child: what the parent measured is the parent's."""
        if self._cells is not None:
            self._cells.clear()


def _version() -> str:
    """Meshlib's own; empty where it runs from a tree that was never installed."""
    try:
        return version("meshlib")
    except PackageNotFoundError:
        return ""


def _of_source(stats: Any, now: float) -> Iterator[Sample]:
    """What a source says of its control plane. Sources are told apart by what they say."""
    if hasattr(stats, "types"):
        yield Sample(catalogue.XDS_RECONNECTS, (), stats.reconnects)
        for server in stats.servers:
            yield Sample(catalogue.XDS_CONNECTED, (server.server,), int(server.connected))
        for type_url, kind in stats.types.items():
            labels = (type_url.rpartition(".")[2],)
            yield Sample(catalogue.XDS_RESOURCES, labels, kind.resources)
            yield Sample(catalogue.XDS_VALID, labels, kind.updates_valid)
            yield Sample(catalogue.XDS_INVALID, labels, kind.updates_invalid)
            if kind.last_update is not None:
                yield Sample(catalogue.XDS_UPDATE_AGE, labels, max(0.0, now - kind.last_update))
    elif hasattr(stats, "stale_seconds"):
        yield Sample(catalogue.CONSUL_FAILING, (), stats.failing)
        yield Sample(catalogue.CONSUL_STALE, (), stats.stale_seconds)
        yield Sample(catalogue.CONSUL_QUERIES, (), stats.queries)

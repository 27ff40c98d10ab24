"""What spans and metrics cost a call: the whole call flow as in `decisions`, in the one run with OpenTelemetry's own
instrumentation of httpx.

CPU of the calling thread, microseconds a call, the best of several rounds. Spans go to a BatchSpanProcessor whose
exporter throws them away; `all threads` is the CPU of the process, so with that processor's thread. Encoding and
sending is the exporter's, and costs the same whoever made the spans.
"""

from __future__ import annotations

import gc
import logging
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.decisions import call
from benchmarks.topology import bootstrap, write
from benchmarks.worker import run
from meshlib import Mesh

UNTRACED, TRACED, UNSAMPLED = "untraced", "traced, sampled", "traced, not sampled"
MEASURED, BOTH = "Prometheus metrics", "traced and Prometheus metrics"
OTEL_METRICS = "traced and OpenTelemetry metrics"
CONTRIB, MESH_CLIENT = (
    "contrib's httpx instrumentation (one span)",
    "meshlib (a span for the call, one for its attempt)",
)


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    if find_spec("opentelemetry.sdk") is None or find_spec("prometheus_client") is None:
        return {"call": {}, "added": {}}
    quick = options["quick"]
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name) / "mesh.json", bootstrap([("10.0.0.1", 80)], routes=1))
        costs = {way: _with(way, path, quick) for way in (UNTRACED, TRACED, UNSAMPLED, MEASURED, BOTH, OTEL_METRICS)}
    untraced, traced = costs[UNTRACED]["thread"], costs[TRACED]["thread"]
    return {"call": costs, "added": {MESH_CLIENT: traced - untraced, CONTRIB: _contrib(quick)}}


def _with(way: str, path: Path, quick: bool) -> dict[str, float]:
    with Mesh.from_file(path, seed=1) as mesh:
        mesh.wait_ready()
        if way in {TRACED, UNSAMPLED, BOTH, OTEL_METRICS}:
            providers = {"tracer_provider": _provider(sampled=way != UNSAMPLED)}
            if way == OTEL_METRICS:
                from opentelemetry.sdk.metrics import MeterProvider

                providers["meter_provider"] = MeterProvider(shutdown_on_exit=False)
            mesh.instrument(**providers, metrics=way == OTEL_METRICS)  # type: ignore[arg-type]
        if way in {MEASURED, BOTH}:
            mesh.prometheus_collector()
        return _cost(call(mesh, time.monotonic()), quick)


def _contrib(quick: bool) -> float:
    """What contrib's span adds to a call of httpx, over a transport that answers at once; it makes one, not two."""
    import httpx
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    class AtOnce(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, request=request)

    with httpx.Client(transport=AtOnce(), base_url="http://payments") as client:
        bare = _cost(lambda: client.get("/charge"), quick)["thread"]
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=_provider(sampled=True))
        return _cost(lambda: client.get("/charge"), quick)["thread"] - bare


def _provider(*, sampled: bool) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

    class Nowhere(SpanExporter):
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON if sampled else ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=65_536))
    return provider


def _cost(one: Callable[[], object], quick: bool) -> dict[str, float]:
    number, repeat = (200, 15) if quick else (200, 150)
    before = time.process_time()
    rounds = timeit.repeat(one, gc.enable, time.thread_time, number=number, repeat=repeat)
    everything = time.process_time() - before
    return {"thread": min(rounds) / number * 1e6, "all threads": everything / (number * repeat) * 1e6}


if __name__ == "__main__":
    run(measure)

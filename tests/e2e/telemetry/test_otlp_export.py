"""Spans and metrics on the wire: an unchanged program under `opentelemetry-instrument`, and what a collector gets.

No collector binary is to be had here, so the receiver is ours; what it decodes is OTLP/HTTP as the exporter sends it,
with the protocol's own messages.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parts.fast_backend import FastBackend
from parts.otlp import OtlpReceiver, attributes

APP = """
import sys
from meshlib import Mesh

with Mesh.static({"payments": [sys.argv[1]]}, retries=1) as mesh, mesh.http.client("payments") as client:
    client.get("/charge?token=secret")
"""
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def collector() -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver()
    yield receiver
    receiver.stop()


def run(collector: OtlpReceiver, backend: FastBackend, folder: Path, **environment: str) -> None:
    """The program, as somebody would start it."""
    program = folder / "app.py"
    program.write_text(APP)
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    exported = {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    argv = [str(command), sys.executable, str(program), backend.address]
    done = subprocess.run(argv, env={**os.environ, **exported}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_program_under_opentelemetry_instrument(
    collector: OtlpReceiver, fast_backend: Callable[..., FastBackend], tmp_path: Path
) -> None:
    backend = fast_backend("a")
    backend.behave(status=503)
    run(collector, backend, tmp_path)
    assert {(resource["service.name"], scope) for resource, scope, _ in collector.spans} == {("shop", "meshlib")}
    call = next(span for _, _, span in collector.spans if span.kind == span.SPAN_KIND_INTERNAL)
    attempts = [span for _, _, span in collector.spans if span.kind == span.SPAN_KIND_CLIENT]
    assert call.name == "GET payments/0"
    assert [span.parent_span_id for span in attempts] == [call.span_id] * 2
    assert [attributes(span).get("http.request.resend_count") for span in attempts] == [None, 1]
    said = attributes(call)
    assert said["url.full"] == "http://payments/charge?token=REDACTED"
    assert (said["meshlib.response_flags"], said["meshlib.endpoint"]) == ("URX", backend.address)
    assert [event.name for event in call.events] == ["meshlib.retry"]
    ids = [span.span_id.hex() for span in attempts]
    assert [request.header("traceparent") for request in backend.requests] == [
        f"00-{call.trace_id.hex()}-{span_id}-03" for span_id in ids
    ]
    metrics: dict[str, Any] = {metric.name: metric for _, scope, metric in collector.metrics if scope == "meshlib"}
    (point,) = metrics["http.client.request.duration"].histogram.data_points
    assert (point.count, attributes(point)["http.response.status_code"]) == (1, 503)
    (retries,) = metrics["meshlib.cluster.upstream_rq_retry"].sum.data_points
    assert (retries.as_int, attributes(retries)) == (1, {"meshlib.cluster": "payments"})


def test_it_can_be_kept_out(collector: OtlpReceiver, fast_backend: Callable[..., FastBackend], tmp_path: Path) -> None:
    run(collector, fast_backend("a"), tmp_path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="meshlib")
    assert collector.spans == []


def test_a_collector_that_is_away_costs_no_call(fast_backend: Callable[..., FastBackend], tmp_path: Path) -> None:
    receiver = OtlpReceiver()
    receiver.stop()
    backend = fast_backend("a")
    run(receiver, backend, tmp_path, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert backend.count == 1

"""The spans of a call, played by hand: one for the call, one for each attempt, and the headers that name them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from opentelemetry import baggage, context
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NoOpTracerProvider

from meshlib.engine.commands import Commit, Fail, PassThrough, Start, abandon
from meshlib.engine.runtime import Runtime
from meshlib.engine.stand_in import STAND_IN
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead
from meshlib.telemetry.logs import TraceFields
from meshlib.telemetry.otel.tracing import OtelTracing
from meshlib.telemetry.propagators import Propagation
from parts.flow import Player, get, runtime_of
from parts.spans import Spans, header, id_of, parent_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
THEIRS = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())


def traced(spans: Spans, policy: Propagation | None = None, **options) -> Runtime:
    runtime = runtime_of(**options)
    runtime.tracing = OtelTracing(policy or Propagation(), spans.provider)
    return runtime


def sent(player: Player) -> dict[str, str]:
    """The headers of the attempt that was begun last."""
    start = next(command for command in reversed(player.commands) if isinstance(command, Start))
    return {name.decode(): value.decode() for name, value in start.head.headers}


def test_a_call_is_one_internal_span_and_a_client_span_for_its_attempt() -> None:
    spans = Spans()
    player = Player(traced(spans), get(path="/charge?token=abc"), now=100.0)
    start = player.last
    assert player.responds(200, at=100.5)
    player.body_ends(101.0)
    attempt, call = spans.ended
    assert (call.kind.name, attempt.kind.name) == ("INTERNAL", "CLIENT")
    assert (call.name, attempt.name) == ("GET payments/0", "GET")
    assert parent_of(call) is None
    assert parent_of(attempt) == id_of(call)
    assert sent(player)["traceparent"] == header(attempt)
    assert dict(call.attributes) == {
        "http.request.method": "GET",
        "server.address": "payments",
        "server.port": 80,
        "url.full": "http://payments/charge?token=REDACTED",
        "http.response.status_code": 200,
        "meshlib.route": "payments/0",
        "meshlib.cluster": "payments",
        "meshlib.endpoint": start.host.address,
        "meshlib.attempts": 1,
    }
    assert attempt.attributes["meshlib.endpoint"] == start.host.address
    assert attempt.attributes["network.peer.address"] == start.host.address.removesuffix(":80")
    assert attempt.attributes["network.peer.port"] == 80
    assert "http.request.resend_count" not in attempt.attributes
    assert call.end_time - call.start_time == attempt.end_time - attempt.start_time == pytest.approx(1e9, abs=1000)
    assert call.status.is_unset


def test_each_attempt_is_numbered_and_its_own_span_is_in_its_headers() -> None:
    spans = Spans()
    player = Player(traced(spans, retries=2))
    headers = [sent(player)["traceparent"]]
    player.responds(503, at=0.1)  # Discard
    player.send(0.1)  # Wait
    player.send(0.2)  # Start
    headers.append(sent(player)["traceparent"])
    player.fails(Failure.CONNECT, at=0.3)
    player.send(0.4)
    headers.append(sent(player)["traceparent"])
    player.responds(200, at=0.5)
    player.body_ends(0.6)
    attempts, call = spans.of_kind("CLIENT"), spans.only("INTERNAL")
    assert [span.attributes.get("http.request.resend_count") for span in attempts] == [None, 1, 2]
    assert [span.attributes.get("error.type") for span in attempts] == ["503", "connect-failure", None]
    assert [header(span) for span in attempts] == headers
    assert [event.name for event in call.events] == ["meshlib.retry", "meshlib.retry"]
    assert call.attributes["meshlib.attempts"] == 3
    assert call.status.is_unset  # it went well in the end
    assert "meshlib.response_flags" not in call.attributes


def test_the_reason_why_nothing_more_was_tried_is_said() -> None:
    spans = Spans()
    player = Player(traced(spans, retries=1))
    player.fails(Failure.CONNECT, at=0.1)
    player.send(0.2)
    assert isinstance(player.fails(Failure.CONNECT, at=0.3), Fail)
    player.close()
    call = spans.only("INTERNAL")
    assert call.attributes["meshlib.why_not_retried"] == "retry-limit"
    assert call.attributes["meshlib.response_flags"] == "UF"
    assert call.attributes["error.type"] == "UF"
    assert "retry limit" in call.status.description


@pytest.mark.parametrize(
    "head, options, flag",
    [
        (get("nobody"), {}, "NR"),
        (get(), {"snapshot": {"payments": []}}, "UH"),
    ],
)
def test_a_call_that_is_refused_is_a_span_with_its_flag(head: RequestHead, options, flag: str) -> None:
    spans = Spans()
    player = Player(traced(spans, **options), head)
    fail = player.last
    assert isinstance(fail, Fail)
    player.close()
    call = spans.only("INTERNAL")
    assert call.attributes["meshlib.response_flags"] == flag
    assert call.status.description == fail.failure.reason
    assert not spans.of_kind("CLIENT")


def test_a_caller_who_goes_away_leaves_spans_that_say_so() -> None:
    spans = Spans()
    player = Player(traced(spans), now=1.0)
    abandon(player.flow, 3.0)
    attempt, call = spans.ended
    assert attempt.attributes["error.type"] == "cancelled"
    assert call.attributes["meshlib.response_flags"] == "DC"
    assert call.end_time - call.start_time == pytest.approx(2e9, abs=1000)


def test_a_body_that_breaks_is_an_error_of_the_attempt_and_the_call() -> None:
    spans = Spans()
    player = Player(traced(spans))
    assert isinstance(player.responds(200, at=0.1), Commit)
    player.body_ends(0.2, Failure.RESET)
    attempt, call = spans.ended
    assert attempt.attributes["error.type"] == call.attributes["error.type"] == "UC"
    assert call.attributes["http.response.status_code"] == 200


def test_a_host_that_is_not_in_the_mesh_is_left_to_others() -> None:
    spans = Spans()
    player = Player(traced(spans, unknown_hosts="pass_through"), get("elsewhere"))
    assert isinstance(player.last, PassThrough)
    player.close()
    assert spans.ended == []


def test_an_attempt_of_a_guarded_function_is_no_request_on_the_wire() -> None:
    spans = Spans()
    player = Player(traced(spans), stand_in=STAND_IN)
    player.responds(200, at=0.1)
    player.body_ends(0.1)
    assert [span.kind.name for span in spans.ended] == ["INTERNAL", "INTERNAL"]
    assert "network.peer.address" not in spans.ended[0].attributes


@pytest.mark.parametrize("headers", [(), (THEIRS,)])
def test_without_an_sdk_there_are_no_spans_and_headers_go_on(headers) -> None:
    runtime = runtime_of()
    runtime.tracing = OtelTracing(Propagation(), NoOpTracerProvider())
    player = Player(runtime, get("payments", "/", *headers))
    assert sent(player).get("traceparent") == (THEIRS[1].decode() if headers else None)
    player.responds(200, at=0.1)
    player.body_ends(0.1)


def test_a_provider_that_is_set_later_is_found() -> None:
    """In a process of its own: the global provider can be set once."""
    code = """
from opentelemetry import trace
from meshlib import Mesh
mesh = Mesh.static({"payments": ["10.0.0.1:80"]})
mesh.instrument(metrics=False)
from parts.flow import Player, get
from parts.spans import Spans
mesh.start().wait_ready()
before = Player(mesh.runtime, get())
spans = Spans()
trace.set_tracer_provider(spans.provider)
player = Player(mesh.runtime, get())
player.responds(200, at=0.1)
player.body_ends(0.1)
print([span.kind.name for span in spans.ended])
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "['CLIENT', 'INTERNAL']\n", done.stderr


# ------------------------------------------------------------------ whose child a call is


def test_a_call_is_a_child_of_the_current_span() -> None:
    spans = Spans()
    tracer = spans.provider.get_tracer("app")
    with tracer.start_as_current_span("work") as work:
        player = Player(traced(spans), get("payments", "/", THEIRS))
        player.responds(200, at=0.1)
        player.body_ends(0.1)
    call = next(span for span in spans.ended if span.name == "GET payments/0")
    assert parent_of(call) == work.get_span_context().span_id
    names = [name for name, _ in player.commands[0].head.headers]
    assert names.count(b"traceparent") == 1  # the caller's made room


@pytest.mark.parametrize(
    "formats, given",
    [
        (["tracecontext"], THEIRS),
        (["b3"], (b"b3", f"{TRACE}-{SPAN}-1".encode())),
    ],
)
def test_without_one_it_is_a_child_of_the_span_in_its_headers(formats: list[str], given) -> None:
    spans = Spans()
    player = Player(traced(spans, Propagation(formats)), get("payments", "/", given))
    player.responds(200, at=0.1)
    player.body_ends(0.1)
    call = spans.only("INTERNAL")
    assert call.parent is not None
    assert call.parent.is_remote
    assert (call.parent.trace_id, call.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert player.commands[0].head.headers[-1][0].decode() in {"traceparent", "b3"}
    assert TRACE.encode() in player.commands[0].head.headers[-1][1]


def test_a_malformed_parent_begins_a_new_trace() -> None:
    spans = Spans()
    player = Player(traced(spans), get("payments", "/", (b"traceparent", b"00-zz-zz-01"), (b"tracestate", b"a=b")))
    player.responds(200, at=0.1)
    player.body_ends(0.1)
    assert spans.only("INTERNAL").parent is None
    assert "tracestate" not in sent(player)


def test_the_tracestate_of_the_caller_goes_on() -> None:
    spans = Spans()
    player = Player(traced(spans), get("payments", "/", THEIRS, (b"tracestate", b"vendor=1")))
    assert sent(player)["tracestate"] == "vendor=1"


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF)])
def test_an_unsampled_call_leaves_no_span_but_carries_its_trace_on(sampler) -> None:
    spans = Spans(sampler=sampler)
    player = Player(traced(spans), get("payments", "/", (b"traceparent", THEIRS[1].replace(b"-01", b"-00"))))
    assert sent(player)["traceparent"].startswith(f"00-{TRACE}-")
    assert sent(player)["traceparent"].endswith("-00")
    player.responds(503, at=0.1)
    player.body_ends(0.1)
    assert spans.ended == []


@pytest.mark.parametrize("suppressed", [suppress_instrumentation, suppress_http_instrumentation])
def test_suppressed_instrumentation_makes_no_spans(suppressed) -> None:
    spans = Spans()
    with suppressed():
        player = Player(traced(spans), get("payments", "/", THEIRS))
    assert sent(player)["traceparent"] == THEIRS[1].decode()
    player.responds(200, at=0.1)
    player.body_ends(0.1)
    assert spans.ended == []


def test_current_baggage_goes_out_by_policy() -> None:
    spans = Spans()
    token = context.attach(baggage.set_baggage("tenant", "a b", baggage.set_baggage("secret", "x")))
    try:
        allowed = Player(traced(spans, Propagation(baggage=["tenant"])))
        own = Player(traced(spans, Propagation(baggage=["tenant"])), get("payments", "/", (b"Baggage", b"mine=1")))
        default = Player(traced(spans))
    finally:
        context.detach(token)
    assert sent(allowed)["baggage"] == "tenant=a%20b"
    assert sent(own)["Baggage"] == "mine=1"
    assert "baggage" not in sent(own)
    assert "baggage" not in sent(default)


# ------------------------------------------------------------------ gRPC


def test_a_grpc_call_is_named_and_described_as_one() -> None:
    spans = Spans()
    head = RequestHead("POST", "http", "payments", "/pkg.Pay/Charge", [(b"content-type", b"application/grpc")])
    player = Player(traced(spans), head)
    player.responds(200, at=0.1)
    player.body_ends(0.1)
    attempt, call = spans.ended
    assert call.name == attempt.name == "pkg.Pay/Charge"
    wanted = {"rpc.system": "grpc", "rpc.service": "pkg.Pay", "rpc.method": "Charge", "server.address": "payments"}
    assert wanted.items() <= dict(call.attributes).items()
    assert wanted.items() <= dict(attempt.attributes).items()
    assert "http.request.method" not in call.attributes


# ------------------------------------------------------------------ logs


def test_log_records_written_meanwhile_carry_the_attempts_ids(caplog) -> None:
    spans = Spans()
    log = logging.getLogger("somebody")
    caplog.handler.addFilter(fields := TraceFields())
    try:
        player = Player(traced(spans))
        log.warning("during")
        player.responds(200, at=0.1)
        player.body_ends(0.1)
        log.warning("after")
    finally:
        caplog.handler.removeFilter(fields)
    attempt = spans.only("CLIENT")
    during, after = caplog.records
    assert (during.trace_id, during.span_id) == (f"{attempt.context.trace_id:032x}", f"{id_of(attempt):016x}")
    assert (during.mesh_cluster, during.mesh_endpoint) == ("payments", attempt.attributes["meshlib.endpoint"])
    assert (after.trace_id, after.mesh_cluster) == ("", "")

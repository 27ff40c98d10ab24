"""TraceParent: where in a trace a request stands, whatever format said so, and the W3C format itself."""

from __future__ import annotations

from typing import NamedTuple

from meshlib.telemetry.propagation import valid_traceparent, valid_tracestate


class TraceParent(NamedTuple):
    """The caller's span. `sampled` is None where the format left the decision open; `state` is W3C's `tracestate`."""

    trace_id: int
    span_id: int
    sampled: bool | None = None
    state: str = ""


def parse(traceparent: str | None, tracestate: str | None) -> TraceParent | None:
    """W3C trace context; None when there is none or it is malformed. A malformed `tracestate` counts as none."""
    if traceparent is None or not valid_traceparent(traceparent):
        return None
    _, trace_id, span_id, flags = traceparent.split("-")[:4]
    state = tracestate if tracestate is not None and valid_tracestate(tracestate) else ""
    return TraceParent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1), state)


def render(parent: TraceParent) -> list[tuple[bytes, bytes]]:
    """The W3C headers of a span."""
    trace_id, span_id, sampled, state = parent
    headers = [(b"traceparent", b"00-%032x-%016x-%02x" % (trace_id, span_id, 1 if sampled else 0))]
    if state:
        headers.append((b"tracestate", state.encode("ascii")))
    return headers

"""TraceParent: where in a trace a request stands, whatever format said so, and the W3C format itself."""

from __future__ import annotations

from typing import NamedTuple

from meshlib.telemetry.propagation import valid_traceparent, valid_tracestate

_RANDOM = 2


class TraceParent(NamedTuple):
    """The caller's span. `sampled` is None where the format left the decision open; `state` is W3C's `tracestate`,
    `flags` what of its trace flags is handed on beside that: 2, "the trace id is random".
    """

    trace_id: int
    span_id: int
    sampled: bool | None = None
    state: str = ""
    flags: int = 0


def parse(traceparent: str | None, tracestate: str | None) -> TraceParent | None:
    """W3C trace context; None when there is none or it is malformed. A malformed `tracestate` counts as none."""
    if traceparent is None or not valid_traceparent(traceparent):
        return None
    _, trace_id, span_id, flags = traceparent.split("-")[:4]
    state = tracestate if tracestate is not None and valid_tracestate(tracestate) else ""
    bits = int(flags, 16)
    return TraceParent(int(trace_id, 16), int(span_id, 16), bool(bits & 1), state, bits & _RANDOM)


Ids = tuple[int, int, bool | None, str, int]
"""A `TraceParent` as the plain tuple it is, for where one is made for each attempt."""


def render(parent: Ids) -> list[tuple[bytes, bytes]]:
    """The W3C headers of a span."""
    trace_id, span_id, sampled, state, flags = parent
    bits = flags & _RANDOM | (sampled is True)
    headers = [(b"traceparent", b"00-%032x-%016x-%02x" % (trace_id, span_id, bits))]
    if state:
        headers.append((b"tracestate", state.encode("ascii")))
    return headers

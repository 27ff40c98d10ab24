"""B3, Zipkin's trace headers: one (`b3`) or several (`x-b3-traceid`, ...). Malformed ones count as none.

Source: https://github.com/openzipkin/b3-propagation. Trace ids have 16 or 32 hex digits, span ids 16; the
sampling state is `1`, `0`, `d` (debug: sampled) or missing (not decided yet).
"""

from __future__ import annotations

from meshlib.telemetry.trace_parent import Ids, TraceParent

_HEX = frozenset("0123456789abcdef")
_STATES: dict[str, bool] = {"1": True, "0": False, "d": True, "true": True, "false": False}
_SINGLE_MAX = 32 + 1 + 16 + 1 + 1 + 1 + 16


def parse_single(value: str | None) -> TraceParent | None:
    """`b3: {trace id}-{span id}[-{state}[-{parent span id}]]`. A state alone names no span, so it is no parent."""
    if value is None or len(value) > _SINGLE_MAX:
        return None
    parts = value.split("-")
    if not 2 <= len(parts) <= 4 or (len(parts) == 4 and not _is_hex(parts[3], 16)):
        return None
    if len(parts) > 2 and parts[2] not in {"0", "1", "d"}:
        return None
    return _parent(parts[0], parts[1], _STATES[parts[2]] if len(parts) > 2 else None)


def parse_multi(
    trace_id: str | None, span_id: str | None, sampled: str | None, flags: str | None
) -> TraceParent | None:
    """`x-b3-traceid`, `x-b3-spanid`, `x-b3-sampled` (also the old `true`, `false`), `x-b3-flags` (`1`: debug)."""
    if trace_id is None or span_id is None:
        return None
    return _parent(trace_id, span_id, True if flags == "1" else _STATES.get(sampled or ""))


def render_single(parent: Ids) -> list[tuple[bytes, bytes]]:
    """The `b3` header of a span."""
    trace_id, span_id, sampled = parent[:3]
    state = b"" if sampled is None else b"-1" if sampled else b"-0"
    return [(b"b3", b"%032x-%016x%b" % (trace_id, span_id, state))]


def render_multi(parent: Ids) -> list[tuple[bytes, bytes]]:
    """The `x-b3-*` headers of a span."""
    trace_id, span_id, sampled = parent[:3]
    headers = [(b"x-b3-traceid", b"%032x" % trace_id), (b"x-b3-spanid", b"%016x" % span_id)]
    if sampled is not None:
        headers.append((b"x-b3-sampled", b"1" if sampled else b"0"))
    return headers


def _parent(trace_id: str, span_id: str, sampled: bool | None) -> TraceParent | None:
    trace_id, span_id = trace_id.lower(), span_id.lower()  # some senders write capitals
    if not (_is_hex(trace_id, 32) or _is_hex(trace_id, 16)) or not _is_hex(span_id, 16):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    return TraceParent(trace, span, sampled) if trace and span else None


def _is_hex(text: str, size: int) -> bool:
    return len(text) == size and _HEX.issuperset(text)

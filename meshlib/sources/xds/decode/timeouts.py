"""The timeouts of a RouteAction: its own, `max_stream_duration`, and what bounds a gRPC caller's."""

from __future__ import annotations

from typing import Any

from meshlib.model.retry import GrpcTimeout
from meshlib.model.route import DEFAULT_ROUTE_TIMEOUT
from meshlib.sources.xds.decode.common import duration, duration_or_off
from meshlib.sources.xds.decode.context import Context, fields, join

TIMEOUT_FIELDS = (
    "timeout",
    "idle_timeout",
    "max_stream_duration",
    "max_grpc_timeout",
    "grpc_timeout_offset",
)
FLUSH_TIMEOUT = {"flush_timeout": "a response is read as fast as its caller likes; nothing is flushed to him"}
_MAX_STREAM_DURATION = fields("max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset")


def timeouts(ctx: Context, message: Any, path: str) -> dict[str, Any]:
    """The model's fields. A route with any `max_stream_duration` has no other timeout, as in Envoy: without a duration
    of its own the connection manager's counts.
    """
    found: dict[str, Any] = {
        "timeout": duration_or_off(message, "timeout", DEFAULT_ROUTE_TIMEOUT),
        "idle_timeout": duration(message, "idle_timeout"),
    }
    if message.HasField("max_stream_duration"):
        limits = message.max_stream_duration
        ctx.check_fields(limits, join(path, "max_stream_duration"), _MAX_STREAM_DURATION)
        limit = duration(limits, "max_stream_duration")
        found["max_stream_duration"] = limit
        if limit is None:
            found["timeout"] = None
        found["grpc_timeout"] = _header_bounds(ctx, limits, limit, join(path, "max_stream_duration"))
    elif message.HasField("max_grpc_timeout"):
        maximum, offset = duration(message, "max_grpc_timeout") or 0.0, duration(message, "grpc_timeout_offset") or 0.0
        if offset or maximum != (found["timeout"] or 0.0):
            found["grpc_timeout"] = GrpcTimeout(maximum, offset, instead_of_route=True)
    elif message.HasField("grpc_timeout_offset"):
        ctx.degraded(join(path, "grpc_timeout_offset"), "means nothing without max_grpc_timeout, as in Envoy")
    return found


def _header_bounds(ctx: Context, limits: Any, limit: float | None, path: str) -> GrpcTimeout | None:
    """None where the bound of the caller's timeout is the bound of the whole call: the sooner of the two counts."""
    maximum = duration(limits, "grpc_timeout_header_max")
    if maximum is None:
        if limits.HasField("grpc_timeout_header_offset"):
            where = join(path, "grpc_timeout_header_offset")
            ctx.degraded(where, "means nothing without grpc_timeout_header_max, as in Envoy")
        return None
    offset = duration(limits, "grpc_timeout_header_offset") or 0.0
    return None if not offset and maximum == limit else GrpcTimeout(maximum, offset)

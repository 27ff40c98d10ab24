"""`typed_extension_protocol_options`: HttpProtocolOptions of a cluster, and the deprecated fields it replaces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from meshlib.model.cluster import ErrorMatcher, UpstreamTls
from meshlib.sources.xds.decode.common import duration, unpack, wrapped
from meshlib.sources.xds.decode.context import NOTHING, Context, fields, join
from meshlib.sources.xds.decode.outlier import error_matcher

_TYPE = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MODULES = {_TYPE: "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2"}
_OPTIONS = fields(
    "common_http_protocol_options",
    "explicit_http_config",
    "auto_config",
    "upstream_http_protocol_options",
    "outlier_detection",
    harmless={"use_downstream_protocol_config": "every door speaks its own protocol: HTTP/1.1 for httpx, 2 for gRPC"},
    instead={"http_filters": "upstream filters are not run"},
)
_COMMON = fields("idle_timeout", "max_requests_per_connection", "max_connection_duration", "max_stream_duration")
_UPSTREAM = fields("auto_sni", "auto_san_validation")
_DEFAULT_IDLE = 3600.0


@dataclass(frozen=True, slots=True)
class UpstreamHttp:
    """How connections to the cluster are used."""

    http2: bool = False
    idle_timeout: float | None = _DEFAULT_IDLE
    max_requests_per_connection: int | None = None
    max_connection_duration: float | None = None
    max_stream_duration: float | None = None
    auto_sni: bool = False
    auto_san_validation: bool = False
    error_matcher: ErrorMatcher | None = None

    def apply(self, tls: UpstreamTls | None) -> UpstreamTls | None:
        """The TLS of the same cluster, with what these options say of names."""
        if tls is None or not (self.auto_sni or self.auto_san_validation):
            return tls
        return replace(tls, auto_sni=self.auto_sni and not tls.sni, auto_san_validation=self.auto_san_validation)


def _common(ctx: Context, message: Any, path: str, *, http2: bool) -> UpstreamHttp:
    ctx.check_fields(message, path, _COMMON)
    idle = duration(message, "idle_timeout")
    return UpstreamHttp(
        http2=http2,
        idle_timeout=_DEFAULT_IDLE if idle is None else idle or None,
        max_requests_per_connection=wrapped(message, "max_requests_per_connection", 0) or None,
        max_connection_duration=duration(message, "max_connection_duration") or None,
        max_stream_duration=duration(message, "max_stream_duration") or None,
    )


def _uses_http2(ctx: Context, message: Any, path: str) -> bool:
    if message.HasField("auto_config"):
        ctx.degraded(join(path, "auto_config"), "the protocol is not negotiated; HTTP/1.1 is spoken")
        return False
    where = join(path, "explicit_http_config")
    explicit = message.explicit_http_config
    chosen = explicit.WhichOneof("protocol_config")
    if chosen == "http3_protocol_options":
        ctx.degraded(join(where, chosen), "HTTP/3 is not supported; HTTP/1.1 is spoken")
    elif chosen is not None:
        ctx.check_fields(getattr(explicit, chosen), join(where, chosen), NOTHING)
    return bool(chosen == "http2_protocol_options")


def _extension(ctx: Context, cluster: Any) -> UpstreamHttp | None:
    options = cluster.typed_extension_protocol_options
    found = None
    for key in sorted(options):
        path = f'typed_extension_protocol_options["{key}"]'
        name, message = unpack(options[key], _MODULES, path)
        if message is None:
            ctx.degraded(path, f"{name or 'options without a type'}: not supported; left out")
            continue
        ctx.check_fields(message, path, _OPTIONS)
        common = join(path, "common_http_protocol_options")
        http2 = _uses_http2(ctx, message, path)
        found = _common(ctx, message.common_http_protocol_options, common, http2=http2)
        names = message.upstream_http_protocol_options
        ctx.check_fields(names, join(path, "upstream_http_protocol_options"), _UPSTREAM)
        errors = error_matcher(ctx, message.outlier_detection, join(path, "outlier_detection"))
        found = replace(
            found, auto_sni=names.auto_sni, auto_san_validation=names.auto_san_validation, error_matcher=errors
        )
    return found


def upstream_http(ctx: Context, cluster: Any) -> UpstreamHttp:
    """The options of a Cluster message; the extension replaces the deprecated fields, as in Envoy."""
    found = _extension(ctx, cluster)
    if found is not None:
        return found
    http2 = cluster.HasField("http2_protocol_options")
    found = _common(ctx, cluster.common_http_protocol_options, "common_http_protocol_options", http2=http2)
    limit = wrapped(cluster, "max_requests_per_connection", 0) or found.max_requests_per_connection
    return replace(found, max_requests_per_connection=limit)

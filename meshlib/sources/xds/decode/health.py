"""Active health checks of a cluster (`envoy.config.core.v3.HealthCheck`), and where an endpoint is checked."""

from __future__ import annotations

from binascii import unhexlify
from typing import Any

from meshlib.model.headers import NO_MUTATIONS, HeaderMutations
from meshlib.model.health import GrpcHealthCheck, HealthCheck, HttpHealthCheck, StatusRange, TcpHealthCheck, When
from meshlib.model.metadata import Metadata
from meshlib.model.report import ResourceError
from meshlib.model.strings import StringMatcher
from meshlib.sources.xds.decode.common import duration, enum_name, header_options, mutations, struct, type_name, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.string_matcher import string_matcher

NAMESPACE = "meshlib.health_check"
_TOLD = "results go to the observers (EndpointHealthChanged) and to the log"
_HEALTH_CHECK = fields(
    "timeout",
    "interval",
    "initial_jitter",
    "interval_jitter",
    "interval_jitter_percent",
    "unhealthy_threshold",
    "healthy_threshold",
    "reuse_connection",
    "http_health_check",
    "tcp_health_check",
    "grpc_health_check",
    "custom_health_check",
    "no_traffic_interval",
    "no_traffic_healthy_interval",
    "unhealthy_interval",
    "unhealthy_edge_interval",
    "healthy_edge_interval",
    "always_log_health_check_failures",
    "always_log_health_check_success",
    "tls_options",
    "transport_socket_match_criteria",
    instead={
        "alt_port": "checks go to health_check_config of the endpoint, else to its own port; so do Envoy's",
        "event_log_path": _TOLD,
        "event_logger": _TOLD,
        "event_service": _TOLD,
    },
)
_HTTP = fields(
    "host",
    "path",
    "method",
    "send",
    "receive",
    "response_buffer_size",
    "request_headers_to_add",
    "request_headers_to_remove",
    "expected_statuses",
    "retriable_statuses",
    "service_name_matcher",
    "codec_client_type",
)
_TCP = fields("send", "receive", "proxy_protocol_config")
_PROXY = fields("version", instead={"pass_through_tlvs": "there is no downstream connection to pass anything from"})
_GRPC = fields("service_name", "authority", "initial_metadata")
_TLS = fields("alpn_protocols")
_BODILESS = frozenset(("GET", "HEAD", "DELETE", "TRACE"))
_DEFAULT_STATUSES: tuple[StatusRange, ...] = ((200, 201),)


def health_checks(ctx: Context, messages: Any, path: str) -> tuple[HealthCheck, ...]:
    """Those that can be made; an endpoint is not held out of balancing by one that cannot."""
    found = (_health_check(ctx, message, f"{path}[{index}]") for index, message in enumerate(messages))
    return tuple(check for check in found if check is not None)


def health_checks_when(ctx: Context, metadata: Metadata) -> When:
    """When endpoints are checked: ours, from the cluster's metadata, because xDS has no such field."""
    when = metadata.namespace(NAMESPACE).get("when")
    if when in (None, "always", "ejected"):
        return "ejected" if when == "ejected" else "always"
    ctx.degraded(f'metadata.filter_metadata["{NAMESPACE}"].when', f'must be "always" or "ejected", is {when!r}')
    return "always"


def _health_check(ctx: Context, message: Any, path: str) -> HealthCheck | None:
    ctx.check_fields(message, path, _HEALTH_CHECK)
    ctx.check_fields(message.tls_options, join(path, "tls_options"), _TLS)
    try:
        check = _checker(ctx, message, path)
    except UnsupportedError as error:
        ctx.degraded(error.path, f"{error.reason}; endpoints are not checked so")
        return None
    if isinstance(check, GrpcHealthCheck) and message.tls_options.alpn_protocols:
        ctx.degraded(join(path, "tls_options.alpn_protocols"), "gRPC offers h2")
    criteria = message.transport_socket_match_criteria
    return HealthCheck(
        check,
        duration(message, "timeout") or 0.0,
        duration(message, "interval") or 0.0,
        wrapped(message, "unhealthy_threshold", 1),
        wrapped(message, "healthy_threshold", 1),
        initial_jitter=duration(message, "initial_jitter") or 0.0,
        interval_jitter=duration(message, "interval_jitter") or 0.0,
        interval_jitter_percent=message.interval_jitter_percent,
        no_traffic_interval=_seconds(message, "no_traffic_interval", 60.0),
        no_traffic_healthy_interval=duration(message, "no_traffic_healthy_interval"),
        unhealthy_interval=duration(message, "unhealthy_interval"),
        unhealthy_edge_interval=duration(message, "unhealthy_edge_interval"),
        healthy_edge_interval=duration(message, "healthy_edge_interval"),
        reuse_connection=wrapped(message, "reuse_connection", True),
        always_log_health_check_failures=message.always_log_health_check_failures,
        always_log_health_check_success=message.always_log_health_check_success,
        alpn_protocols=tuple(message.tls_options.alpn_protocols),
        transport_socket_match_criteria=(
            struct(criteria) if message.HasField("transport_socket_match_criteria") else None
        ),
    )


def _checker(ctx: Context, message: Any, path: str) -> HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck:
    """Raises `UnsupportedError` for a check that cannot be made as it is meant."""
    match message.WhichOneof("health_checker"):
        case "http_health_check":
            return _http(ctx, message.http_health_check, join(path, "http_health_check"))
        case "tcp_health_check":
            return _tcp(ctx, message.tcp_health_check, join(path, "tcp_health_check"))
        case "grpc_health_check":
            return _grpc(ctx, message.grpc_health_check, join(path, "grpc_health_check"))
    custom = message.custom_health_check
    what = type_name(custom.typed_config.type_url) or custom.name
    raise UnsupportedError(join(path, "custom_health_check"), f"health checker {what} is not supported")


def _http(ctx: Context, message: Any, path: str) -> HttpHealthCheck:
    ctx.check_fields(message, path, _HTTP)
    codec = enum_name(message, "codec_client_type", path)
    if codec != "HTTP1":
        raise UnsupportedError(join(path, "codec_client_type"), f"checks over {codec} are not made, only over HTTP/1.1")
    method = enum_name(message, "method", path)
    method = "GET" if method == "METHOD_UNSPECIFIED" else method
    send = _payload(message.send, join(path, "send")) if message.HasField("send") else b""
    if message.HasField("send") and method in _BODILESS:
        raise ResourceError(join(path, "send"), f"cannot go with method {method}, which has no body")
    receive, size = _receive(message, path), wrapped(message, "response_buffer_size", 1024)
    if size and sum(map(len, receive)) > size:
        raise ResourceError(join(path, "receive"), f"is longer than response_buffer_size, {size} bytes")
    expected = _statuses(message, "expected_statuses", path)
    return HttpHealthCheck(
        message.path,
        message.host,
        method,
        send,
        receive,
        size,
        mutations(ctx, message, "request", path),
        expected or _DEFAULT_STATUSES,
        _statuses(message, "retriable_statuses", path),
        _service_name(ctx, message, path),
    )


def _tcp(ctx: Context, message: Any, path: str) -> TcpHealthCheck:
    ctx.check_fields(message, path, _TCP)
    send = _payload(message.send, join(path, "send")) if message.HasField("send") else b""
    version: Any = ""
    if message.HasField("proxy_protocol_config"):
        where = join(path, "proxy_protocol_config")
        ctx.check_fields(message.proxy_protocol_config, where, _PROXY)
        version = enum_name(message.proxy_protocol_config, "version", where)
    return TcpHealthCheck(send, _receive(message, path), version)


def _grpc(ctx: Context, message: Any, path: str) -> GrpcHealthCheck:
    ctx.check_fields(message, path, _GRPC)
    added = header_options(ctx, message.initial_metadata, join(path, "initial_metadata"))
    return GrpcHealthCheck(message.service_name, message.authority, HeaderMutations(added) if added else NO_MUTATIONS)


def _receive(message: Any, path: str) -> tuple[bytes, ...]:
    where = join(path, "receive")
    parts = (_payload(item, f"{where}[{index}]") for index, item in enumerate(message.receive))
    return tuple(part for part in parts if part)


def _payload(message: Any, path: str) -> bytes:
    if message.WhichOneof("payload") != "text":
        return bytes(message.binary)
    try:
        return unhexlify(message.text)
    except ValueError:
        raise ResourceError(join(path, "text"), f"must be bytes in hexadecimal, is {message.text[:80]!r}") from None


def _statuses(message: Any, name: str, path: str) -> tuple[StatusRange, ...]:
    ranges = [(item.start, item.end) for item in getattr(message, name)]
    for index, (start, end) in enumerate(ranges):
        if not 100 <= start < end <= 600:
            reason = f"must be a range of statuses from 100 to below 600, is from {start} to below {end}"
            raise ResourceError(f"{join(path, name)}[{index}]", reason)
    return tuple(ranges)


def _service_name(ctx: Context, message: Any, path: str) -> StringMatcher | None:
    if not message.HasField("service_name_matcher"):
        return None
    return string_matcher(ctx, message.service_name_matcher, join(path, "service_name_matcher"))


def _seconds(message: Any, name: str, default: float) -> float:
    found = duration(message, name)
    return default if found is None else found

"""HTTP filters, and `typed_per_filter_config`. What is not known becomes `UnsupportedFilter`, and is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib.model.filters import (
    FilterConfig,
    HttpFilter,
    PerFilterConfig,
    RouterFilter,
    UnsupportedFilter,
)
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import type_name, unpack
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.cors import CORS_MODULES, CORS_POLICY_TYPE, CORS_TYPE, cors_filter, cors_policy
from meshlib.sources.xds.decode.fault import FAULT_MODULES, FAULT_TYPE, fault_filter
from meshlib.sources.xds.decode.global_rate_limit import (
    GLOBAL_RATE_LIMIT_MODULES,
    GLOBAL_RATE_LIMIT_TYPE,
    global_rate_limit,
    global_rate_limit_per_route,
)
from meshlib.sources.xds.decode.global_rate_limit import PER_ROUTE_TYPE as GLOBAL_PER_ROUTE_TYPE
from meshlib.sources.xds.decode.header_mutation import (
    HEADER_MUTATION_MODULES,
    HEADER_MUTATION_TYPE,
    PER_ROUTE_TYPE,
    header_mutation,
    header_mutation_per_route,
)
from meshlib.sources.xds.decode.local_rate_limit import (
    LOCAL_RATE_LIMIT_MODULE,
    LOCAL_RATE_LIMIT_TYPE,
    check_per_route,
    local_rate_limit,
)
from meshlib.sources.xds.decode.rate_limit_quota import QUOTA_DECODERS, QUOTA_MODULES
from meshlib.sources.xds.decode.request_limit import REQUEST_LIMIT_TYPE, request_limit
from meshlib.sources.xds.decode.session import (
    SESSION_MODULE,
    SESSION_PER_ROUTE_TYPE,
    SESSION_TYPE,
    session_per_route,
    stateful_session,
)
from meshlib.sources.xds.decode.shedding import (
    ADAPTIVE_CONCURRENCY_TYPE,
    ADMISSION_CONTROL_TYPE,
    SHEDDING_MODULES,
    adaptive_concurrency,
    admission_control,
)

_ROUTER_TYPE = "envoy.extensions.filters.http.router.v3.Router"
_MODULES = {
    **CORS_MODULES,
    **FAULT_MODULES,
    **GLOBAL_RATE_LIMIT_MODULES,
    **HEADER_MUTATION_MODULES,
    **QUOTA_MODULES,
    **SHEDDING_MODULES,
    SESSION_TYPE: SESSION_MODULE,
    _ROUTER_TYPE: "envoy.extensions.filters.http.router.v3.router_pb2",
    LOCAL_RATE_LIMIT_TYPE: LOCAL_RATE_LIMIT_MODULE,
}
_PER_ROUTE_MODULES = {
    **_MODULES,
    SESSION_PER_ROUTE_TYPE: SESSION_MODULE,
    "envoy.config.route.v3.FilterConfig": "envoy.config.route.v3.route_components_pb2",
}

_NO_STATS = "about a proxy's own statistics and logs"
_ROUTER = fields(
    "suppress_envoy_headers",
    "respect_expected_rq_timeout",
    "strict_check_headers",
    harmless=dict.fromkeys(
        (
            "dynamic_stats",
            "start_child_span",
            "upstream_log",
            "upstream_log_options",
            "suppress_grpc_request_failure_code_stats",
        ),
        _NO_STATS,
    ),
    instead={"upstream_http_filters": "upstream filters are not run"},
)
_NOTHING_TO_DO = frozenset({"envoy.extensions.filters.http.on_demand.v3.OnDemand"})
"""Filters that say nothing where they are empty: virtual hosts come on demand with this filter or without."""
_HTTP_FILTER = fields("name", "typed_config", "is_optional", "disabled")


def _router(ctx: Context, message: Any, path: str) -> FilterConfig:
    ctx.check_fields(message, path, _ROUTER)
    return RouterFilter(
        suppress_envoy_headers=message.suppress_envoy_headers,
        respect_expected_rq_timeout=message.respect_expected_rq_timeout,
        strict_check_headers=tuple(name.lower() for name in message.strict_check_headers),
    )


_DECODERS: dict[str, Callable[[Context, Any, str], FilterConfig]] = {
    _ROUTER_TYPE: _router,
    LOCAL_RATE_LIMIT_TYPE: local_rate_limit,
    ADAPTIVE_CONCURRENCY_TYPE: adaptive_concurrency,
    ADMISSION_CONTROL_TYPE: admission_control,
    SESSION_TYPE: stateful_session,
    FAULT_TYPE: fault_filter,
    CORS_TYPE: cors_filter,
    CORS_POLICY_TYPE: cors_policy,
    HEADER_MUTATION_TYPE: header_mutation,
    PER_ROUTE_TYPE: header_mutation_per_route,
    GLOBAL_RATE_LIMIT_TYPE: global_rate_limit,
    GLOBAL_PER_ROUTE_TYPE: global_rate_limit_per_route,
    **QUOTA_DECODERS,
}


def _config(ctx: Context, typed_config: Any, path: str) -> FilterConfig:
    name, message = unpack(typed_config, _MODULES, path)
    if name == REQUEST_LIMIT_TYPE:
        return request_limit(ctx, typed_config, path)
    if message is not None:
        return _DECODERS[name](ctx, message, path)
    ctx.degraded(path, f"filter {name or 'without a type'} is not supported; requests skip it")
    return UnsupportedFilter(typed_config.type_url)


def _http_filter(ctx: Context, message: Any, path: str) -> HttpFilter:
    ctx.check_fields(message, path, _HTTP_FILTER)
    if not message.HasField("typed_config"):
        if not message.HasField("config_discovery"):
            raise ResourceError(join(path, "typed_config"), f"filter {message.name!r} needs a typed_config")
        return HttpFilter(message.name, UnsupportedFilter(""), message.disabled)
    if not message.typed_config.value and type_name(message.typed_config.type_url) in _NOTHING_TO_DO:
        return HttpFilter(message.name, UnsupportedFilter(message.typed_config.type_url), message.disabled)
    return HttpFilter(message.name, _config(ctx, message.typed_config, join(path, "typed_config")), message.disabled)


def http_filters(ctx: Context, messages: Any, path: str) -> tuple[HttpFilter, ...]:
    """`http_filters`: at least one, and the router last, once (gRFC A39; Envoy's terminal filter)."""
    filters = tuple(_http_filter(ctx, message, f"{path}[{index}]") for index, message in enumerate(messages))
    if not filters:
        raise ResourceError(path, "needs at least the router filter (envoy.filters.http.router)")
    for index, found in enumerate(filters[:-1]):
        if isinstance(found.config, RouterFilter):
            raise ResourceError(f"{path}[{index}]", "the router is a terminal filter: it must be the last one")
    last = filters[-1]
    if last.disabled or not isinstance(last.config, RouterFilter | UnsupportedFilter):
        raise ResourceError(f"{path}[{len(filters) - 1}]", f"the last filter must be the router, is {last.name!r}")
    return filters


_FILTER_CONFIG = fields("config", "is_optional", "disabled")


def _per_filter(ctx: Context, name: str, typed_config: Any, path: str) -> PerFilterConfig:
    kind, message = unpack(typed_config, _PER_ROUTE_MODULES, path)
    if kind == SESSION_PER_ROUTE_TYPE and message is not None:
        session, disabled = session_per_route(ctx, message, path)
        return PerFilterConfig(name, session, disabled)
    if kind != "envoy.config.route.v3.FilterConfig":
        return PerFilterConfig(name, check_per_route(_config(ctx, typed_config, path), path))
    ctx.check_fields(message, path, _FILTER_CONFIG)
    if message is None or not message.HasField("config"):
        return PerFilterConfig(name, None, disabled=bool(message and message.disabled))
    inner = _per_filter(ctx, name, message.config, join(path, "config"))
    return PerFilterConfig(name, inner.config, message.disabled or inner.disabled)


def per_filter_configs(ctx: Context, message: Any, path: str, but: str = "") -> tuple[PerFilterConfig, ...]:
    """`typed_per_filter_config` of a route configuration, virtual host, route or weighted cluster, by filter name; not
    that of the name `but`, which is no filter.
    """
    configs = message.typed_per_filter_config
    where = join(path, "typed_per_filter_config")
    return tuple(_per_filter(ctx, name, configs[name], f'{where}["{name}"]') for name in sorted(configs) if name != but)

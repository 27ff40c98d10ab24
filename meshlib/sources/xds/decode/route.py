"""RouteConfiguration, VirtualHost, Route (`envoy.config.route.v3`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from meshlib.model.matcher_tree import Matcher, MatcherList
from meshlib.model.matchers import PathMatcher
from meshlib.model.metadata import EMPTY_METADATA, Metadata
from meshlib.model.report import ResourceError
from meshlib.model.route import (
    Action,
    NonForwardingAction,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualCluster,
    VirtualHost,
)
from meshlib.model.uri_template import parse_template, rewrite_parts
from meshlib.sources.xds.decode.circuit_breaker import BREAKER_NAMESPACE, route_circuit_breaker
from meshlib.sources.xds.decode.cluster_specifier import named_plugins
from meshlib.sources.xds.decode.common import MUTATION_FIELDS, enum_name, metadata, mutations, unpack, wrapped
from meshlib.sources.xds.decode.config_source import check_config_source
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.cors import legacy_cors
from meshlib.sources.xds.decode.filters import per_filter_configs
from meshlib.sources.xds.decode.matcher_tree import ROUTE_INPUTS, matcher
from meshlib.sources.xds.decode.matchers import header_matcher, route_match
from meshlib.sources.xds.decode.mirror import mirror_policies
from meshlib.sources.xds.decode.rate_limits import rate_limits
from meshlib.sources.xds.decode.retry import BODY_LIMIT_FIELDS, body_buffer_limit, hedges, retry_policy
from meshlib.sources.xds.decode.route_action import route_action
from meshlib.sources.xds.decode.route_answers import direct_response, redirect

_DEFAULT_MAX_BODY = 4096
_ROUTE_LIST = "envoy.config.route.v3.RouteList"
_ROUTES_MODULE = "envoy.config.route.v3.route_components_pb2"
_ROUTE_ACTIONS = {"envoy.config.route.v3.Route": _ROUTES_MODULE, _ROUTE_LIST: _ROUTES_MODULE}
_ORIGIN = "says where the configuration came from"

_ROUTE = fields(
    "name",
    "match",
    "route",
    "redirect",
    "direct_response",
    "non_forwarding_action",
    "filter_action",
    "typed_per_filter_config",
    "metadata",
    *BODY_LIMIT_FIELDS,
    *MUTATION_FIELDS,
    harmless={
        "decorator": "names the spans of a proxy; a call's span is named by its method and route",
        "stat_prefix": "a name for metrics only",
    },
)
_VIRTUAL_HOST = fields(
    "name",
    "domains",
    "routes",
    "matcher",
    "require_tls",
    "retry_policy",
    "hedge_policy",
    "include_request_attempt_count",
    "include_attempt_count_in_response",
    "include_is_timeout_retry_header",
    *BODY_LIMIT_FIELDS,
    "typed_per_filter_config",
    "cors",
    "request_mirror_policies",
    "rate_limits",
    "metadata",
    *MUTATION_FIELDS,
    instead={
        "retry_policy_typed_config": "there are no retries by a policy of this kind",
        "virtual_clusters": "named by explain and in route tests; no statistics are counted by them",
    },
)
_VIRTUAL_CLUSTER = fields("name", "headers")
_ROUTE_CONFIGURATION = fields(
    "name",
    "virtual_hosts",
    "most_specific_header_mutations_wins",
    "max_direct_response_body_size_bytes",
    "ignore_port_in_host_matching",
    "cluster_specifier_plugins",
    "vhds",
    "typed_per_filter_config",
    "request_mirror_policies",
    *MUTATION_FIELDS,
    harmless={
        "metadata": _ORIGIN,
        "validate_clusters": "a route to a missing cluster answers with cluster_not_found_response_code, as when unset",
    },
)


def _action(ctx: Context, message: Any, path: str, max_body: int) -> Action:
    match message.WhichOneof("action"):
        case "route":
            return route_action(ctx, message.route, join(path, "route"))
        case "redirect":
            return redirect(ctx, message.redirect, join(path, "redirect"))
        case "direct_response":
            return direct_response(ctx, message.direct_response, join(path, "direct_response"), max_body)
        case "non_forwarding_action" | "filter_action":  # Envoy has no filter for the latter, and forwards neither
            return NonForwardingAction()
        case other:
            raise UnsupportedError(join(path, str(other)), "this action is not supported")


def _check_rewrite(matcher: PathMatcher, action: Action, path: str) -> None:
    """A rewrite by template is of what a template captured; of a template there is no prefix to rewrite."""
    where = join(path, "route.path_rewrite_policy")
    rewrite = action.path_template_rewrite if isinstance(action, RouteAction) else ""
    if matcher.kind == "uri_template":
        if isinstance(action, RouteAction | RedirectAction) and action.prefix_rewrite:
            raise ResourceError(path, "prefix_rewrite has no place beside path_match_policy")
        if rewrite:
            try:
                rewrite_parts(parse_template(matcher.value), rewrite)
            except ResourceError as error:
                raise ResourceError(where, error.reason) from None
    elif rewrite:
        raise ResourceError(where, "is only for routes with a path_match_policy of uri_template")


def _route(ctx: Context, message: Any, path: str, max_body: int) -> Route:
    ctx.check_fields(message, path, _ROUTE)
    match = route_match(ctx, message.match, join(path, "match"))
    action = _action(ctx, message, path, max_body)
    _check_rewrite(match.path, action, path)
    found = _metadata(message)
    return Route(
        match=match,
        action=action,
        name=message.name,
        request_headers=mutations(ctx, message, "request", path),
        response_headers=mutations(ctx, message, "response", path),
        typed_per_filter_config=(
            *(legacy_cors(ctx, message.route, join(path, "route")) if message.HasField("route") else ()),
            *per_filter_configs(ctx, message, path, BREAKER_NAMESPACE),
        ),
        metadata=found,
        request_body_buffer_limit=body_buffer_limit(message),
        circuit_breaker=route_circuit_breaker(ctx, message, path, found),
    )


def _metadata(message: Any) -> Metadata:
    """Metadata for `%METADATA(...)%`, but for what istiod says of where the configuration came from."""
    found = metadata(message.metadata)
    kept = tuple(entry for entry in found.namespaces if entry[0] != "istio")
    return Metadata(kept) if kept else EMPTY_METADATA


def _routes(ctx: Context, messages: Iterable[tuple[Any, str]], max_body: int) -> Iterator[Route]:
    """The routes of messages, each with its path, but for those that are not supported."""
    for message, where in messages:
        try:
            yield _route(ctx, message, where, max_body)
        except UnsupportedError as error:
            ctx.degraded(error.path, f"{error.reason}; the route is dropped and never matches")


def _each(messages: Any, path: str, name: str = "routes") -> Iterator[tuple[Any, str]]:
    where = join(path, name)
    return ((message, f"{where}[{index}]") for index, message in enumerate(messages))


def _routes_and_matcher(
    ctx: Context, message: Any, path: str, max_body: int
) -> tuple[tuple[Route, ...], Matcher[tuple[int, ...]] | None]:
    """The routes of a virtual host; where it has a matcher, those of its actions and the matcher that leads to them."""
    if not message.HasField("matcher"):
        return tuple(_routes(ctx, _each(message.routes, path), max_body)), None
    if message.routes:
        raise ResourceError(path, "only one of routes, matcher may be set")
    routes: list[Route] = []

    def action(config: Any, where: str) -> tuple[int, ...]:
        name, found = unpack(config, _ROUTE_ACTIONS, where)
        if found is None:
            raise UnsupportedError(where, f"the action {name!r} is not supported")
        before = len(routes)
        routes.extend(_routes(ctx, _each(found.routes, where) if name == _ROUTE_LIST else [(found, where)], max_body))
        return tuple(range(before, len(routes)))

    try:
        tree = matcher(ctx, message.matcher, join(path, "matcher"), action, ROUTE_INPUTS)
    except UnsupportedError as error:
        ctx.degraded(error.path, f"{error.reason}; no route of this virtual host matches")
        return (), MatcherList(())
    return tuple(routes), tree


def _virtual_host(ctx: Context, message: Any, path: str, max_body: int) -> VirtualHost:
    ctx.check_fields(message, path, _VIRTUAL_HOST)
    routes, tree = _routes_and_matcher(ctx, message, path, max_body)
    require_tls: Any = enum_name(message, "require_tls", path)
    policy = None
    if message.HasField("retry_policy"):
        policy = retry_policy(ctx, message.retry_policy, join(path, "retry_policy"))
    return VirtualHost(
        name=message.name,
        domains=tuple(message.domains),
        routes=routes,
        retry_policy=policy,
        require_tls=require_tls,
        matcher=tree,
        metadata=_metadata(message),
        include_request_attempt_count=message.include_request_attempt_count,
        include_attempt_count_in_response=message.include_attempt_count_in_response,
        include_is_timeout_retry_header=message.include_is_timeout_retry_header,
        hedge_on_per_try_timeout=bool(hedges(ctx, message, path)),
        request_body_buffer_limit=body_buffer_limit(message),
        request_headers=mutations(ctx, message, "request", path),
        response_headers=mutations(ctx, message, "response", path),
        typed_per_filter_config=(*legacy_cors(ctx, message, path), *per_filter_configs(ctx, message, path)),
        request_mirror_policies=mirror_policies(ctx, message, path),
        rate_limits=rate_limits(ctx, message.rate_limits, join(path, "rate_limits")),
        virtual_clusters=tuple(
            _virtual_cluster(ctx, each, where)
            for each, where in _each(message.virtual_clusters, path, "virtual_clusters")
        ),
    )


def _virtual_cluster(ctx: Context, message: Any, path: str) -> VirtualCluster:
    ctx.check_fields(message, path, _VIRTUAL_CLUSTER)
    headers = (header_matcher(ctx, each, where) for each, where in _each(message.headers, path, "headers"))
    return VirtualCluster(message.name, tuple(headers))


def _check_domains(messages: Any, path: str) -> None:
    domains: dict[str, int] = {}
    for index, message in enumerate(messages):
        for position, domain in enumerate(message.domains):
            first = domains.setdefault(domain.lower(), index)
            if first != index or domain.lower() in {d.lower() for d in message.domains[:position]}:
                raise ResourceError(
                    f"{path}[{index}].domains[{position}]",
                    f"{domain!r} is also in virtual_hosts[{first}]; a domain may stand once",
                )


def _vhds(ctx: Context, message: Any, path: str) -> bool:
    if not message.HasField("vhds"):
        return False
    if path:
        ctx.degraded(join(path, "vhds"), "virtual hosts come on demand only for routes that come by RDS")
        return False
    check_config_source(ctx, message.vhds.config_source, "vhds.config_source")
    return True


def virtual_host(ctx: Context, message: Any) -> VirtualHost:
    """A validated VirtualHost message that comes by itself (VHDS)."""
    _check_domains([message], "")
    return _virtual_host(ctx, message, "", _DEFAULT_MAX_BODY)


def route_configuration(ctx: Context, message: Any, path: str = "") -> RouteConfiguration:
    """A validated RouteConfiguration message; `path` is where it stands when it is inline in a listener."""
    ctx.check_fields(message, path, _ROUTE_CONFIGURATION)
    ctx.plugins = named_plugins(ctx, message.cluster_specifier_plugins, join(path, "cluster_specifier_plugins"))
    hosts = join(path, "virtual_hosts")
    _check_domains(message.virtual_hosts, hosts)
    max_body = wrapped(message, "max_direct_response_body_size_bytes", _DEFAULT_MAX_BODY)
    return RouteConfiguration(
        name=message.name,
        virtual_hosts=tuple(
            _virtual_host(ctx, host, f"{hosts}[{index}]", max_body) for index, host in enumerate(message.virtual_hosts)
        ),
        request_headers=mutations(ctx, message, "request", path),
        response_headers=mutations(ctx, message, "response", path),
        most_specific_header_mutations_wins=message.most_specific_header_mutations_wins,
        ignore_port_in_host_matching=message.ignore_port_in_host_matching,
        vhds=_vhds(ctx, message, path),
        typed_per_filter_config=per_filter_configs(ctx, message, path),
        request_mirror_policies=mirror_policies(ctx, message, path),
    )

"""RouteAction: which cluster, how long, how the request is rewritten and hashed."""

from __future__ import annotations

from typing import Any

from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.report import ResourceError
from meshlib.model.route import (
    DEFAULT_ROUTE_TIMEOUT,
    ClusterHeader,
    ClusterSpecifier,
    HashPolicy,
    HostRewrite,
    RouteAction,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.sources.xds.decode.common import (
    MUTATION_FIELDS,
    duration,
    duration_or_off,
    enum_name,
    mutations,
    struct,
    wrapped,
)
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.filters import per_filter_configs
from meshlib.sources.xds.decode.internal_redirect import INTERNAL_REDIRECT_FIELDS, internal_redirect
from meshlib.sources.xds.decode.mirror import mirror_policies
from meshlib.sources.xds.decode.regex import regex_rewrite
from meshlib.sources.xds.decode.retry import retry_policy

_ROUTE_ACTION = fields(
    "cluster",
    "cluster_header",
    "weighted_clusters",
    "cluster_not_found_response_code",
    "metadata_match",
    "prefix_rewrite",
    "regex_rewrite",
    "host_rewrite_literal",
    "auto_host_rewrite",
    "host_rewrite_header",
    "host_rewrite_path_regex",
    "append_x_forwarded_host",
    "timeout",
    "idle_timeout",
    "retry_policy",
    "priority",
    "hash_policy",
    "max_stream_duration",
    "max_grpc_timeout",
    "request_mirror_policies",
    *INTERNAL_REDIRECT_FIELDS,
    instead={
        "grpc_timeout_offset": "a gRPC call ends when its caller's deadline says",
        "hedge_policy": "requests are not hedged",
        "path_rewrite_policy": "the path is not rewritten",
        "path_rewrite": "the path is not rewritten",
        "host_rewrite": "the authority is not rewritten",
        "upgrade_configs": "upgrades are not proxied",
    },
)
_MAX_STREAM_DURATION = fields("max_stream_duration", "grpc_timeout_header_max")
_WEIGHTED_CLUSTERS = fields("clusters", "total_weight", harmless={"runtime_key_prefix": "there is no runtime"})
_CLUSTER_WEIGHT = fields(
    "name", "weight", "metadata_match", "typed_per_filter_config", "host_rewrite_literal", *MUTATION_FIELDS
)
_METADATA_MATCH = fields("filter_metadata")
_MAX_WEIGHT = 2**32 - 1
_NOT_FOUND_CODES = (503, 404, 500)


def _metadata_match(ctx: Context, message: Any, path: str) -> Struct:
    if not message.HasField("metadata_match"):
        return EMPTY_STRUCT
    where = join(path, "metadata_match")
    ctx.check_fields(message.metadata_match, where, _METADATA_MATCH)
    namespaces = message.metadata_match.filter_metadata
    return struct(namespaces["envoy.lb"]) if "envoy.lb" in namespaces else EMPTY_STRUCT


def _weighted_cluster(ctx: Context, message: Any, path: str) -> WeightedCluster:
    if bool(message.name) == bool(message.cluster_header):
        raise ResourceError(path, "exactly one of name, cluster_header is required")
    if message.cluster_header:
        raise UnsupportedError(join(path, "cluster_header"), "a share named by a header is not supported")
    ctx.check_fields(message, path, _CLUSTER_WEIGHT)
    return WeightedCluster(
        name=message.name,
        weight=wrapped(message, "weight", 0),
        metadata_match=_metadata_match(ctx, message, path),
        request_headers=mutations(ctx, message, "request", path),
        response_headers=mutations(ctx, message, "response", path),
        host_rewrite_literal=message.host_rewrite_literal,
        typed_per_filter_config=per_filter_configs(ctx, message, path),
    )


def _weighted_clusters(ctx: Context, message: Any, path: str) -> WeightedClusters:
    ctx.check_fields(message, path, _WEIGHTED_CLUSTERS)
    total = sum(wrapped(item, "weight", 0) for item in message.clusters)
    if not 1 <= total <= _MAX_WEIGHT:
        raise ResourceError(path, f"the sum of the weights must be between 1 and {_MAX_WEIGHT}, is {total}")
    if wrapped(message, "total_weight", total) != total:
        ctx.degraded(
            join(path, "total_weight"), f"deprecated; the shares are of the weights' sum, {total}, as in Envoy"
        )
    where = join(path, "clusters")
    return WeightedClusters(
        tuple(_weighted_cluster(ctx, item, f"{where}[{index}]") for index, item in enumerate(message.clusters))
    )


def _cluster(ctx: Context, message: Any, path: str) -> ClusterSpecifier:
    match message.WhichOneof("cluster_specifier"):
        case "cluster":
            return str(message.cluster)
        case "cluster_header":
            return ClusterHeader(message.cluster_header.lower())
        case "weighted_clusters":
            return _weighted_clusters(ctx, message.weighted_clusters, join(path, "weighted_clusters"))
        case other:
            raise UnsupportedError(join(path, str(other)), "cluster specifier plugins are not supported")


def _host_rewrite(ctx: Context, message: Any, path: str) -> HostRewrite | None:
    match message.WhichOneof("host_rewrite_specifier"):
        case "host_rewrite_literal":
            return HostRewrite("literal", message.host_rewrite_literal)
        case "host_rewrite_header":
            return HostRewrite("header", message.host_rewrite_header.lower())
        case "auto_host_rewrite":
            return HostRewrite("auto") if message.auto_host_rewrite.value else None
        case "host_rewrite_path_regex":
            found = regex_rewrite(ctx, message.host_rewrite_path_regex, join(path, "host_rewrite_path_regex"))
            return HostRewrite("path_regex", regex=found) if found is not None else None
    return None


def _hash_policy(ctx: Context, message: Any, path: str) -> HashPolicy | None:
    kind = message.WhichOneof("policy_specifier")
    found = getattr(message, kind)
    where = join(path, kind)
    match kind:
        case "header":
            rewrite = None
            if found.HasField("regex_rewrite"):
                rewrite = regex_rewrite(ctx, found.regex_rewrite, join(where, "regex_rewrite"))
            return HashPolicy("header", found.header_name.lower(), message.terminal, rewrite)
        case "cookie":
            ctx.check_fields(found, where, fields("name", "ttl", "path"))
            ttl = duration(found, "ttl")
            return HashPolicy("cookie", found.name, message.terminal, ttl=ttl, path=found.path)
        case "connection_properties":
            ctx.degraded(where, "a caller has no downstream connection: the policy never yields a hash")
            return HashPolicy("source_ip", terminal=message.terminal) if found.source_ip else None
        case "query_parameter":
            return HashPolicy("query_parameter", found.name, message.terminal)
    ctx.degraded(where, "a client library has no filter state: the policy never yields a hash")
    return None


def hash_policies(ctx: Context, message: Any, path: str) -> tuple[HashPolicy, ...]:
    """The field `hash_policy` of a route, or of a balancer by hash."""
    where = join(path, "hash_policy")
    found = (_hash_policy(ctx, item, f"{where}[{index}]") for index, item in enumerate(message.hash_policy))
    return tuple(policy for policy in found if policy is not None)


def _max_stream_duration(ctx: Context, message: Any, path: str) -> float | None:
    if not message.HasField("max_stream_duration"):
        return None
    limits = message.max_stream_duration
    where = join(path, "max_stream_duration")
    ctx.check_fields(limits, where, _MAX_STREAM_DURATION)
    limit = duration(limits, "max_stream_duration")
    _check_grpc_limit(ctx, limits, "grpc_timeout_header_max", limit, where)
    return limit


def _check_grpc_limit(ctx: Context, message: Any, name: str, limit: float | None, path: str) -> None:
    """A bound of the caller's gRPC deadline says nothing new where it is the bound of the whole call: the sooner of the
    deadline and that counts anyway.
    """
    if message.HasField(name) and (duration(message, name) or None) != (limit or None):
        ctx.degraded(join(path, name), "the sooner of the caller's deadline and the route's timeout counts")


def _not_found_code(ctx: Context, message: Any, path: str) -> int:
    if message.cluster_not_found_response_code:
        where = join(path, "cluster_not_found_response_code")
        ctx.degraded(where, "a missing cluster is an error of the call (NC), not a response")
    return _NOT_FOUND_CODES[message.cluster_not_found_response_code]


def route_action(ctx: Context, message: Any, path: str) -> RouteAction:
    """A RouteAction; raises `UnsupportedError` where its cluster cannot be told."""
    if message.prefix_rewrite and message.HasField("regex_rewrite"):
        raise ResourceError(path, "only one of prefix_rewrite, regex_rewrite may be set")
    cluster = _cluster(ctx, message, path)
    ctx.check_fields(message, path, _ROUTE_ACTION)
    priority: Any = enum_name(message, "priority", path)
    timeout = duration_or_off(message, "timeout", DEFAULT_ROUTE_TIMEOUT)
    _check_grpc_limit(ctx, message, "max_grpc_timeout", timeout, path)
    policy, rewrite = None, None
    if message.HasField("retry_policy"):
        policy = retry_policy(ctx, message.retry_policy, join(path, "retry_policy"))
    if message.HasField("regex_rewrite"):
        rewrite = regex_rewrite(ctx, message.regex_rewrite, join(path, "regex_rewrite"))
    return RouteAction(
        cluster=cluster,
        timeout=timeout,
        idle_timeout=duration(message, "idle_timeout"),
        max_stream_duration=_max_stream_duration(ctx, message, path),
        retry_policy=policy,
        hash_policies=hash_policies(ctx, message, path),
        metadata_match=_metadata_match(ctx, message, path),
        prefix_rewrite=message.prefix_rewrite,
        regex_rewrite=rewrite,
        host_rewrite=_host_rewrite(ctx, message, path),
        append_x_forwarded_host=message.append_x_forwarded_host,
        priority=priority,
        cluster_not_found_response_code=_not_found_code(ctx, message, path),
        request_mirror_policies=mirror_policies(ctx, message, path),
        internal_redirect=internal_redirect(ctx, message, path),
    )

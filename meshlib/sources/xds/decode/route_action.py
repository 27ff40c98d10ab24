"""RouteAction: which cluster, how long, how the request is rewritten and hashed."""

from __future__ import annotations

from typing import Any

from meshlib.model.route import DEFAULT_ROUTE_TIMEOUT, RouteAction
from meshlib.sources.xds.decode.cluster_specifier import cluster_specifier, metadata_match
from meshlib.sources.xds.decode.common import duration, duration_or_off, enum_name
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.hash_policy import hash_policies
from meshlib.sources.xds.decode.internal_redirect import INTERNAL_REDIRECT_FIELDS, internal_redirect
from meshlib.sources.xds.decode.mirror import mirror_policies
from meshlib.sources.xds.decode.retry import retry_policy
from meshlib.sources.xds.decode.rewrites import HOST_REWRITE_FIELDS, PATH_REWRITE_FIELDS, host_rewrite, path_rewrites

_ROUTE_ACTION = fields(
    "cluster",
    "cluster_header",
    "weighted_clusters",
    "cluster_specifier_plugin",
    "inline_cluster_specifier_plugin",
    "cluster_not_found_response_code",
    "cors",
    "metadata_match",
    *PATH_REWRITE_FIELDS,
    *HOST_REWRITE_FIELDS,
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
        "upgrade_configs": "upgrades are not proxied",
    },
)
_MAX_STREAM_DURATION = fields("max_stream_duration", "grpc_timeout_header_max")
_NOT_FOUND_CODES = (503, 404, 500)


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


def route_action(ctx: Context, message: Any, path: str) -> RouteAction:
    """A RouteAction; raises `UnsupportedError` where its cluster cannot be told."""
    cluster = cluster_specifier(ctx, message, path, ctx.plugins)
    ctx.check_fields(message, path, _ROUTE_ACTION)
    priority: Any = enum_name(message, "priority", path)
    timeout = duration_or_off(message, "timeout", DEFAULT_ROUTE_TIMEOUT)
    _check_grpc_limit(ctx, message, "max_grpc_timeout", timeout, path)
    policy = None
    if message.HasField("retry_policy"):
        policy = retry_policy(ctx, message.retry_policy, join(path, "retry_policy"))
    regex, template, formatted = path_rewrites(ctx, message, path)
    return RouteAction(
        cluster=cluster,
        timeout=timeout,
        idle_timeout=duration(message, "idle_timeout"),
        max_stream_duration=_max_stream_duration(ctx, message, path),
        retry_policy=policy,
        hash_policies=hash_policies(ctx, message, path),
        metadata_match=metadata_match(ctx, message, path),
        prefix_rewrite=message.prefix_rewrite,
        regex_rewrite=regex,
        path_template_rewrite=template,
        path_rewrite=formatted,
        host_rewrite=host_rewrite(ctx, message, path),
        append_x_forwarded_host=message.append_x_forwarded_host,
        priority=priority,
        cluster_not_found_response_code=_NOT_FOUND_CODES[message.cluster_not_found_response_code],
        request_mirror_policies=mirror_policies(ctx, message, path),
        internal_redirect=internal_redirect(ctx, message, path),
    )

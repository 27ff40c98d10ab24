"""RouteAction: which cluster, how long, how the request is rewritten and hashed."""

from __future__ import annotations

from typing import Any

from meshlib.model.route import RouteAction
from meshlib.sources.xds.decode.cluster_specifier import cluster_specifier, metadata_match
from meshlib.sources.xds.decode.common import enum_name, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.hash_policy import hash_policies
from meshlib.sources.xds.decode.internal_redirect import INTERNAL_REDIRECT_FIELDS, internal_redirect
from meshlib.sources.xds.decode.mirror import mirror_policies
from meshlib.sources.xds.decode.rate_limits import rate_limits
from meshlib.sources.xds.decode.retry import hedges, retry_policy
from meshlib.sources.xds.decode.rewrites import HOST_REWRITE_FIELDS, PATH_REWRITE_FIELDS, host_rewrite, path_rewrites
from meshlib.sources.xds.decode.timeouts import FLUSH_TIMEOUT, TIMEOUT_FIELDS, timeouts

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
    *TIMEOUT_FIELDS,
    "retry_policy",
    "hedge_policy",
    "priority",
    "hash_policy",
    "request_mirror_policies",
    "rate_limits",
    "include_vh_rate_limits",
    *INTERNAL_REDIRECT_FIELDS,
    instead={"upgrade_configs": "upgrades are not proxied", **FLUSH_TIMEOUT},
)
_NOT_FOUND_CODES = (503, 404, 500)


def route_action(ctx: Context, message: Any, path: str) -> RouteAction:
    """A RouteAction; raises `UnsupportedError` where its cluster cannot be told."""
    cluster = cluster_specifier(ctx, message, path, ctx.plugins)
    ctx.check_fields(message, path, _ROUTE_ACTION)
    priority: Any = enum_name(message, "priority", path)
    policy = None
    if message.HasField("retry_policy"):
        policy = retry_policy(ctx, message.retry_policy, join(path, "retry_policy"))
    regex, template, formatted = path_rewrites(ctx, message, path)
    return RouteAction(
        cluster=cluster,
        retry_policy=policy,
        hedge_on_per_try_timeout=hedges(ctx, message, path),
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
        rate_limits=rate_limits(ctx, message.rate_limits, join(path, "rate_limits")),
        include_vh_rate_limits=wrapped(message, "include_vh_rate_limits", default=False),
        **timeouts(ctx, message, path),
    )

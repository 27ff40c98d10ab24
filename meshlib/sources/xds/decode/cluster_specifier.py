"""Which cluster a route sends to: by name, by a header, by weight, or by a plugin that matches the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.report import ResourceError
from meshlib.model.route import ClusterHeader, ClusterSpecifier, MatchedCluster, WeightedCluster, WeightedClusters
from meshlib.sources.xds.decode.common import MUTATION_FIELDS, mutations, struct, type_name, unpack, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.filters import per_filter_configs
from meshlib.sources.xds.decode.matcher_tree import matcher

_WEIGHTED_CLUSTERS = fields(
    "clusters",
    "total_weight",
    "header_name",
    "use_hash_policy",
    harmless={"runtime_key_prefix": "there is no runtime; the weights count"},
)
_CLUSTER_WEIGHT = fields(
    "name",
    "cluster_header",
    "weight",
    "metadata_match",
    "typed_per_filter_config",
    "host_rewrite_literal",
    *MUTATION_FIELDS,
)
_METADATA_MATCH = fields("filter_metadata")
_MAX_WEIGHT = 2**32 - 1
_PLUGIN = fields("extension", "is_optional")
_MATCHER = "envoy.extensions.router.cluster_specifiers.matcher.v3.MatcherClusterSpecifier"
_CLUSTER_ACTION = "envoy.extensions.router.cluster_specifiers.matcher.v3.ClusterAction"
_MODULE = "envoy.extensions.router.cluster_specifiers.matcher.v3.matcher_pb2"
_MATCHER_MODULES = {_MATCHER: _MODULE}
_ACTION_MODULES = {_CLUSTER_ACTION: _MODULE}

Plugins = Mapping[str, tuple[Any, str]]
"""`cluster_specifier_plugins` of a route configuration by name: the message and its path."""


def named_plugins(ctx: Context, messages: Any, path: str) -> Plugins:
    """The plugins that routes may name; those that are not supported are told. Raises `ResourceError` for a name that
    stands twice.
    """
    plugins: dict[str, tuple[Any, str]] = {}
    for index, message in enumerate(messages):
        where = f"{path}[{index}]"
        name = message.extension.name
        if name in plugins:
            raise ResourceError(where, f"the plugin {name!r} stands twice")
        plugins[name] = (message, where)
        kind = type_name(message.extension.typed_config.type_url)
        if kind not in _MATCHER_MODULES:
            ctx.degraded(where, f"the plugin {kind!r} is not supported; routes that name it are dropped")
    return plugins


def metadata_match(ctx: Context, message: Any, path: str) -> Struct:
    """The endpoints' metadata that is asked for, in the namespace of balancing."""
    if not message.HasField("metadata_match"):
        return EMPTY_STRUCT
    where = join(path, "metadata_match")
    ctx.check_fields(message.metadata_match, where, _METADATA_MATCH)
    namespaces = message.metadata_match.filter_metadata
    return struct(namespaces["envoy.lb"]) if "envoy.lb" in namespaces else EMPTY_STRUCT


def cluster_specifier(ctx: Context, message: Any, path: str, plugins: Plugins) -> ClusterSpecifier:
    """The `cluster_specifier` of a RouteAction. Raises `UnsupportedError` where the cluster cannot be told."""
    kind = message.WhichOneof("cluster_specifier")
    where = join(path, str(kind))
    match kind:
        case "cluster":
            return str(message.cluster)
        case "cluster_header":
            return ClusterHeader(message.cluster_header.lower())
        case "weighted_clusters":
            return _weighted_clusters(ctx, message.weighted_clusters, where)
        case "inline_cluster_specifier_plugin":
            return _plugin(ctx, message.inline_cluster_specifier_plugin, where)
        case "cluster_specifier_plugin":
            name = message.cluster_specifier_plugin
            if name not in plugins:
                raise ResourceError(where, f"no plugin of the route configuration is named {name!r}")
            return _plugin(ctx, *plugins[name])
    raise UnsupportedError(where, "this cluster specifier is not supported")


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
        tuple(_weighted_cluster(ctx, item, f"{where}[{index}]") for index, item in enumerate(message.clusters)),
        header_name=message.header_name.lower(),
        use_hash_policy=wrapped(message, "use_hash_policy", default=False),
    )


def _weighted_cluster(ctx: Context, message: Any, path: str) -> WeightedCluster:
    if bool(message.name) == bool(message.cluster_header):
        raise ResourceError(path, "exactly one of name, cluster_header is required")
    ctx.check_fields(message, path, _CLUSTER_WEIGHT)
    return WeightedCluster(
        name=message.name,
        weight=wrapped(message, "weight", 0),
        metadata_match=metadata_match(ctx, message, path),
        request_headers=mutations(ctx, message, "request", path),
        response_headers=mutations(ctx, message, "response", path),
        host_rewrite_literal=message.host_rewrite_literal,
        typed_per_filter_config=per_filter_configs(ctx, message, path),
        cluster_header=message.cluster_header.lower(),
    )


def _plugin(ctx: Context, message: Any, path: str) -> MatchedCluster:
    """A plugin: the one that matches. Envoy refuses one it does not have, and leaves the route out where `is_optional`;
    here the route is left out in both cases, and told.
    """
    ctx.check_fields(message, path, _PLUGIN)
    where = join(path, "extension.typed_config")
    name, found = unpack(message.extension.typed_config, _MATCHER_MODULES, where)
    if found is None:
        known = "the plugin that matches requests (MatcherClusterSpecifier) is"
        raise UnsupportedError(where, f"the cluster specifier plugin {name!r} is not supported; {known}")
    return MatchedCluster(matcher(ctx, found.cluster_matcher, join(where, "cluster_matcher"), _cluster_action))


def _cluster_action(config: Any, path: str) -> str:
    name, found = unpack(config, _ACTION_MODULES, path)
    if found is None:
        raise UnsupportedError(path, f"the action {name or type_name(config.type_url)!r} names no cluster")
    return str(found.cluster)

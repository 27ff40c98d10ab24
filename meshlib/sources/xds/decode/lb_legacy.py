"""`Cluster.lb_policy` with its `*_lb_config`, `common_lb_config` and `lb_subset_config`."""

from __future__ import annotations

from typing import Any

from meshlib.model.lb import LbPolicy, LbSubsetConfig, Random
from meshlib.model.report import ResourceError
from meshlib.model.zones import ZONE_AWARE, ZoneAware
from meshlib.sources.xds.decode.common import enum_name
from meshlib.sources.xds.decode.context import Context
from meshlib.sources.xds.decode.lb import NO_HASHING, consistent_hashing, maglev, ring_hash, unsupported
from meshlib.sources.xds.decode.lb_extension import BY_CLUSTER, Balancing
from meshlib.sources.xds.decode.lb_load import least_request, round_robin
from meshlib.sources.xds.decode.lb_locality import zone_aware
from meshlib.sources.xds.decode.lb_subset import subset_config

CONFIG_OF = {
    "ROUND_ROBIN": "round_robin_lb_config",
    "LEAST_REQUEST": "least_request_lb_config",
    "RING_HASH": "ring_hash_lb_config",
    "MAGLEV": "maglev_lb_config",
    "CLUSTER_PROVIDED": "original_dst_lb_config",
}
"""The `lb_config` member that belongs to each `lb_policy`."""


def legacy_balancing(ctx: Context, cluster: Any) -> Balancing:
    """How a cluster without `load_balancing_policy` balances."""
    common = cluster.common_lb_config
    weighted = bool(common.HasField("locality_weighted_lb_config"))
    subsets = _subsets(ctx, cluster, weighted)
    by_cluster = enum_name(cluster, "lb_policy", "") == "CLUSTER_PROVIDED"
    if by_cluster and subsets is not None:
        raise ResourceError("lb_subset_config", "cannot be combined with lb_policy CLUSTER_PROVIDED")
    zones = _zone_aware(ctx, common)
    return Balancing(_policy(ctx, cluster), weighted, zone_aware=zones, subsets=subsets, by_cluster=by_cluster)


def _subsets(ctx: Context, cluster: Any, weighted: bool) -> LbSubsetConfig | None:
    if not cluster.HasField("lb_subset_config"):
        return None
    found = subset_config(ctx, cluster.lb_subset_config, "lb_subset_config")
    if found.locality_weight_aware and not weighted:
        where = "lb_subset_config.locality_weight_aware"
        raise ResourceError(where, "needs common_lb_config.locality_weighted_lb_config")
    return found


def _zone_aware(ctx: Context, common: Any) -> ZoneAware:
    if not common.HasField("zone_aware_lb_config"):
        return ZONE_AWARE
    return zone_aware(ctx, common.zone_aware_lb_config, "common_lb_config.zone_aware_lb_config")


def _policy(ctx: Context, cluster: Any) -> LbPolicy:
    """`lb_policy` with the `lb_config` that belongs to it; one that does not is reported."""
    name = enum_name(cluster, "lb_policy", "")
    config = cluster.WhichOneof("lb_config")
    if config is not None and config != CONFIG_OF.get(name):
        ctx.degraded(config, f"does not apply to lb_policy {name}; left out")
    hashing = consistent_hashing(ctx, cluster.common_lb_config, "common_lb_config") or NO_HASHING
    match name:
        case "ROUND_ROBIN":
            return round_robin(ctx, cluster.round_robin_lb_config, "round_robin_lb_config")
        case "LEAST_REQUEST":
            return least_request(ctx, cluster.least_request_lb_config, "least_request_lb_config")
        case "RANDOM":
            return Random()
        case "RING_HASH":
            return ring_hash(ctx, cluster.ring_hash_lb_config, "ring_hash_lb_config", hashing)
        case "MAGLEV":
            return maglev(ctx, cluster.maglev_lb_config, "maglev_lb_config", hashing)
        case "CLUSTER_PROVIDED":
            return BY_CLUSTER.policy
        case "LOAD_BALANCING_POLICY_CONFIG":
            raise ResourceError("load_balancing_policy", "is required by lb_policy LOAD_BALANCING_POLICY_CONFIG")
    return unsupported(ctx, name, "lb_policy")

"""Load balancing of a cluster: `lb_policy` with its `*_lb_config`, subsets, and what they have in common."""

from __future__ import annotations

from typing import Any

from meshlib.model.lb import (
    LbPolicy,
    LbSubsetConfig,
    Random,
    RingHash,
    RoundRobin,
    SubsetSelector,
    UnsupportedLbPolicy,
)
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import enum_name, struct, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.lb_load import least_request, round_robin

_INSTEAD = "not supported; requests are balanced round robin instead"

_RING_HASH = fields(
    "minimum_ring_size",
    "maximum_ring_size",
    "hash_function",
    "use_hostname_for_hashing",
    "consistent_hashing_lb_config",
    "locality_weighted_lb_config",
)
_CONSISTENT_HASHING = fields("use_hostname_for_hashing")
_SUBSET = fields(
    "subset_selectors",
    "fallback_policy",
    "default_subset",
    "subset_lb_policy",
    harmless={"allow_redundant_keys": "only relaxes a check of the configuration"},
)
_SELECTOR = fields("keys", instead={"fallback_policy": "the fallback_policy of the whole configuration applies"})
_MAX_RING = 8_388_608

CONFIG_OF = {
    "ROUND_ROBIN": "round_robin_lb_config",
    "LEAST_REQUEST": "least_request_lb_config",
    "RING_HASH": "ring_hash_lb_config",
}
"""The `lb_config` member that belongs to each `lb_policy`."""


def ring_hash(ctx: Context, message: Any, path: str, hash_function: str, *, use_hostname: bool) -> RingHash:
    """`RingHashLbConfig`, or the extension of that name, whose hash function is given."""
    ctx.check_fields(message, path, _RING_HASH)
    smallest = wrapped(message, "minimum_ring_size", 1024)
    largest = wrapped(message, "maximum_ring_size", _MAX_RING)
    if smallest > largest:
        raise ResourceError(
            join(path, "minimum_ring_size"), f"must be at most maximum_ring_size ({largest}), is {smallest}"
        )
    name: Any = "MURMUR_HASH_2" if hash_function == "MURMUR_HASH_2" else "XX_HASH"
    return RingHash(smallest, largest, name, use_hostname)


def unsupported(ctx: Context, name: str, path: str) -> UnsupportedLbPolicy:
    """A policy that is not here: reported, and balanced round robin."""
    ctx.degraded(path, f"{name}: {_INSTEAD}")
    return UnsupportedLbPolicy(name)


def uses_hostname(ctx: Context, message: Any, path: str) -> bool:
    """`ConsistentHashingLbConfig.use_hostname_for_hashing` of a common or extension config."""
    if not message.HasField("consistent_hashing_lb_config"):
        return False
    found = message.consistent_hashing_lb_config
    ctx.check_fields(found, join(path, "consistent_hashing_lb_config"), _CONSISTENT_HASHING)
    return bool(found.use_hostname_for_hashing)


def legacy_policy(ctx: Context, cluster: Any) -> LbPolicy:
    """`Cluster.lb_policy` with the `lb_config` that belongs to it; one that does not is reported."""
    name = enum_name(cluster, "lb_policy", "")
    config = cluster.WhichOneof("lb_config")
    if config is not None and config != CONFIG_OF.get(name):
        ctx.degraded(config, f"does not apply to lb_policy {name}; left out")
    match name:
        case "ROUND_ROBIN":
            return round_robin(ctx, cluster.round_robin_lb_config, "round_robin_lb_config")
        case "LEAST_REQUEST":
            return least_request(ctx, cluster.least_request_lb_config, "least_request_lb_config")
        case "RANDOM":
            return Random()
        case "RING_HASH":
            found = cluster.ring_hash_lb_config
            hash_function = enum_name(found, "hash_function", "ring_hash_lb_config")
            use_hostname = uses_hostname(ctx, cluster.common_lb_config, "common_lb_config")
            return ring_hash(ctx, found, "ring_hash_lb_config", hash_function, use_hostname=use_hostname)
        case "CLUSTER_PROVIDED":
            return RoundRobin()  # ORIGINAL_DST and AGGREGATE have nothing to balance of their own
        case "LOAD_BALANCING_POLICY_CONFIG":
            raise ResourceError("load_balancing_policy", "is required by lb_policy LOAD_BALANCING_POLICY_CONFIG")
    return unsupported(ctx, name, "lb_policy")


def subset_config(ctx: Context, message: Any, path: str) -> LbSubsetConfig:
    """`LbSubsetConfig`, or the subset extension."""
    ctx.check_fields(message, path, _SUBSET)
    selectors = []
    for index, selector in enumerate(message.subset_selectors):
        ctx.check_fields(selector, f"{join(path, 'subset_selectors')}[{index}]", _SELECTOR)
        selectors.append(SubsetSelector(tuple(sorted(set(selector.keys)))))
    fallback: Any = enum_name(message, "fallback_policy", path)
    return LbSubsetConfig(tuple(selectors), fallback, struct(message.default_subset))

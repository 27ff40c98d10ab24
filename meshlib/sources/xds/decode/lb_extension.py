"""`Cluster.load_balancing_policy`: a list of which the first supported policy counts (gRFC A52).

A policy is one line of `POLICIES`: the message's name and what reads it. A name that none has, in a TypedStruct, is
gRPC's name for a policy, or that of a balancer of the application's (`meshlib.plugins`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from meshlib.model.lb import (
    LbPolicy,
    LbSubsetConfig,
    OverrideHost,
    OverrideHostSource,
    PickFirst,
    Random,
    RandomSubsetting,
    RoundRobin,
    UserLbPolicy,
)
from meshlib.model.report import ResourceError
from meshlib.model.zones import ZONE_AWARE, LoadAware, ZoneAware
from meshlib.plugins import BalancerImportError, find_balancer
from meshlib.sources.xds.decode.common import struct, typed_struct, unpack, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.lb import NO_HASHING, Hashing, consistent_hashing, maglev, ring_hash, unsupported
from meshlib.sources.xds.decode.lb_grpc import grpc_policy
from meshlib.sources.xds.decode.lb_load import (
    client_side_weighted_round_robin,
    least_request,
    peak_ewma,
    round_robin,
)
from meshlib.sources.xds.decode.lb_locality import NO_LOCALITIES, Localities, load_aware_locality, locality_lb
from meshlib.sources.xds.decode.lb_subset import subset_config

_RANDOM = fields("locality_lb_config")
_PICK_FIRST = fields("shuffle_address_list")
_WRR_LOCALITY = fields("endpoint_picking_policy")
_OVERRIDE_HOST = fields("override_host_sources", "fallback_policy")
_SUBSETTING = fields("subset_size", "child_policy")
_ADDED = "meshlib.sources.xds.decode.added_protos"
_PREFIX = "envoy.extensions.load_balancing_policies."
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Balancing:
    """A policy, with what the extensions nest around it."""

    policy: LbPolicy
    locality_weighted: bool = False
    zone_aware: ZoneAware = ZONE_AWARE
    subsets: LbSubsetConfig | None = None
    override_host: OverrideHost | None = None
    subsetting: RandomSubsetting | None = None
    load_aware: LoadAware | None = None
    by_cluster: bool = False
    """CLUSTER_PROVIDED: only clusters of some types say themselves where a request goes."""


BY_CLUSTER = Balancing(RoundRobin(), by_cluster=True)  # ORIGINAL_DST and AGGREGATE have nothing to balance of their own

Decode = Callable[[Context, Any, str, int], Balancing]
"""Message, its path, and how deep it is nested."""


def load_balancing_policy(ctx: Context, message: Any, path: str, depth: int = 0) -> Balancing:
    """The first supported policy of the list; without any, `UnsupportedLbPolicy` of the first one."""
    if depth >= _MAX_DEPTH:
        raise ResourceError(path, f"policies are nested more than {_MAX_DEPTH} deep")
    if not message.policies:
        raise ResourceError(join(path, "policies"), "must not be empty")
    skipped: list[tuple[str, str, str]] = []
    for index, item in enumerate(message.policies):
        extension = item.typed_extension_config
        where = f"{join(path, 'policies')}[{index}].typed_extension_config"
        name, found = unpack(extension.typed_config, _MODULES, join(where, "typed_config"))
        balancing, why = None, ""
        if found is not None:
            balancing = POLICIES[name](ctx, found, join(where, "typed_config"), depth)
        else:
            balancing, why = _by_name(ctx, extension.typed_config, name, join(where, "typed_config"))
        if balancing is not None:
            for first, reason, place in skipped:
                ctx.degraded(place, f"{first} is not supported{reason}; {extension.name or name} is used")
            return balancing
        skipped.append((name or extension.name, why, where))
    name, why, where = skipped[0]
    return Balancing(unsupported(ctx, f"{name}{why}", where))


def _by_name(ctx: Context, message: Any, name: str, path: str) -> tuple[Balancing | None, str]:
    """A policy by gRPC's name for it, or a balancer registered by that name; or why there is none."""
    value = typed_struct(message, path)
    if value is None:
        return None, ""
    config = struct(value)
    found = grpc_policy(ctx, name, config, join(path, "value"))
    if found is not None:
        policy, subsetting = found
        return Balancing(policy, subsetting=subsetting), ""
    try:
        factory = find_balancer(name)
    except BalancerImportError as error:
        return None, f" ({error})"
    return (None, "") if factory is None else (Balancing(UserLbPolicy(name, config)), "")


def _leaf(
    read: Callable[[Context, Any, str], LbPolicy], localities: Callable[[Context, Any, str], Localities] = locality_lb
) -> Decode:
    def decode(ctx: Context, message: Any, path: str, depth: int) -> Balancing:
        found = localities(ctx, message, path)
        return Balancing(read(ctx, message, path), found.weighted, found.zone_aware)

    return decode


def _no_localities(ctx: Context, message: Any, path: str) -> Localities:
    return NO_LOCALITIES


def _by_hash(ctx: Context, message: Any, path: str) -> Localities:
    return Localities(bool(message.HasField("locality_weighted_lb_config")))


def _random(ctx: Context, message: Any, path: str) -> Random:
    ctx.check_fields(message, path, _RANDOM)
    return Random()


def _pick_first(ctx: Context, message: Any, path: str) -> PickFirst:
    ctx.check_fields(message, path, _PICK_FIRST)
    return PickFirst(message.shuffle_address_list)


def _ring_hash(ctx: Context, message: Any, path: str) -> LbPolicy:
    own: Hashing = (message.use_hostname_for_hashing, wrapped(message, "hash_balance_factor", 0), ())
    return ring_hash(ctx, message, path, consistent_hashing(ctx, message, path) or own)


def _maglev(ctx: Context, message: Any, path: str) -> LbPolicy:
    return maglev(ctx, message, path, consistent_hashing(ctx, message, path) or NO_HASHING)


def _cluster_provided(ctx: Context, message: Any, path: str, depth: int) -> Balancing:
    if depth:
        raise ResourceError(path, "CLUSTER_PROVIDED cannot be the child of another policy")
    return BY_CLUSTER


def _wrr_locality(ctx: Context, message: Any, path: str, depth: int) -> Balancing:
    ctx.check_fields(message, path, _WRR_LOCALITY)
    where = join(path, "endpoint_picking_policy")
    child = load_balancing_policy(ctx, message.endpoint_picking_policy, where, depth + 1)
    subsetting = child.subsetting and replace(child.subsetting, per_locality=True)
    return replace(child, locality_weighted=True, subsetting=subsetting)


def _load_aware(ctx: Context, message: Any, path: str, depth: int) -> Balancing:
    where = join(path, "endpoint_picking_policy")
    child = load_balancing_policy(ctx, message.endpoint_picking_policy, where, depth + 1)
    return replace(child, load_aware=load_aware_locality(ctx, message, path), locality_weighted=False)


def _subset(ctx: Context, message: Any, path: str, depth: int) -> Balancing:
    where = join(path, "subset_lb_policy")
    child = load_balancing_policy(ctx, message.subset_lb_policy, where, depth + 1)
    if child.override_host is not None:
        ctx.degraded(where, "endpoints that a request asks for are looked for in the cluster, not in the subset")
    if child.subsets is not None:
        ctx.degraded(where, "subsets of subsets are not made: only the outer ones are")
    return replace(child, subsets=subset_config(ctx, message, path))


def _override_host(ctx: Context, message: Any, path: str, depth: int) -> Balancing:
    ctx.check_fields(message, path, _OVERRIDE_HOST)
    where = join(path, "fallback_policy")
    child = load_balancing_policy(ctx, message.fallback_policy, where, depth + 1)
    sources = [
        _override_source(source, f"{join(path, 'override_host_sources')}[{index}]")
        for index, source in enumerate(message.override_host_sources)
    ]
    return replace(child, override_host=OverrideHost(tuple(sources)))


def _override_source(message: Any, path: str) -> OverrideHostSource:
    if bool(message.header) == message.HasField("metadata"):
        raise ResourceError(path, "needs a header or a metadata key, and not both")
    if message.header:
        return OverrideHostSource(message.header.lower())
    return OverrideHostSource("", message.metadata.key, tuple(segment.key for segment in message.metadata.path))


def _random_subsetting(ctx: Context, message: Any, path: str, depth: int) -> Balancing:
    ctx.check_fields(message, path, _SUBSETTING)
    size = wrapped(message, "subset_size", 0)
    if size < 1:
        raise ResourceError(join(path, "subset_size"), "must be at least 1")
    child = load_balancing_policy(ctx, message.child_policy, join(path, "child_policy"), depth + 1)
    return replace(child, subsetting=RandomSubsetting(size))


POLICIES: dict[str, Decode] = {
    f"{_PREFIX}{name}": decode
    for name, decode in {
        "round_robin.v3.RoundRobin": _leaf(round_robin),
        "least_request.v3.LeastRequest": _leaf(least_request),
        "random.v3.Random": _leaf(_random),
        "pick_first.v3.PickFirst": _leaf(_pick_first, _no_localities),
        "ring_hash.v3.RingHash": _leaf(_ring_hash, _by_hash),
        "maglev.v3.Maglev": _leaf(_maglev, _by_hash),
        "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin": _leaf(
            client_side_weighted_round_robin, _no_localities
        ),
        "peak_ewma.v3.PeakEwma": _leaf(peak_ewma, _no_localities),
        "peak_ewma.v3alpha.PeakEwma": _leaf(peak_ewma, _no_localities),
        "cluster_provided.v3.ClusterProvided": _cluster_provided,
        "wrr_locality.v3.WrrLocality": _wrr_locality,
        "load_aware_locality.v3.LoadAwareLocality": _load_aware,
        "subset.v3.Subset": _subset,
        "override_host.v3.OverrideHost": _override_host,
        "random_subsetting.v3.RandomSubsetting": _random_subsetting,
    }.items()
}
_NOT_IN_XDS_PROTOS = ("peak_ewma", "random_subsetting", "load_aware_locality")
_MODULES = {
    name: _ADDED if (folder := name.split(".")[3]) in _NOT_IN_XDS_PROTOS else f"{name.rpartition('.')[0]}.{folder}_pb2"
    for name in POLICIES
}

"""`Cluster.load_balancing_policy`: a list of which the first supported policy counts (gRFC A52)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from meshlib.model.lb import LbPolicy, LbSubsetConfig, Random
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import enum_name, unpack
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.lb import (
    ring_hash,
    subset_config,
    unsupported,
    uses_hostname,
)
from meshlib.sources.xds.decode.lb_load import client_side_weighted_round_robin, least_request, round_robin

_PREFIX = "envoy.extensions.load_balancing_policies."
_NAMES = {
    "RoundRobin": "round_robin",
    "LeastRequest": "least_request",
    "ClientSideWeightedRoundRobin": "client_side_weighted_round_robin",
    "Random": "random",
    "RingHash": "ring_hash",
    "WrrLocality": "wrr_locality",
    "Subset": "subset",
}
_MODULES = {f"{_PREFIX}{name}.v3.{kind}": f"{_PREFIX}{name}.v3.{name}_pb2" for kind, name in _NAMES.items()}
_LOCALITY_LB = fields("locality_weighted_lb_config")
_RANDOM = fields("locality_lb_config")
_WRR_LOCALITY = fields("endpoint_picking_policy")
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Balancing:
    """A policy, with what the extensions nest around it."""

    policy: LbPolicy
    locality_weighted: bool = False
    subsets: LbSubsetConfig | None = None


def _is_locality_weighted(ctx: Context, message: Any, path: str) -> bool:
    if not message.HasField("locality_lb_config"):
        return False
    ctx.check_fields(message.locality_lb_config, join(path, "locality_lb_config"), _LOCALITY_LB)
    return bool(message.locality_lb_config.HasField("locality_weighted_lb_config"))


def _ring_hash(ctx: Context, message: Any, path: str) -> Balancing:
    hostname = uses_hostname(ctx, message, path) or message.use_hostname_for_hashing
    function = enum_name(message, "hash_function", path)
    policy = ring_hash(ctx, message, path, function, use_hostname=hostname)
    return Balancing(policy, bool(message.HasField("locality_weighted_lb_config")))


def _balancing(ctx: Context, kind: str, message: Any, path: str, depth: int) -> Balancing:
    match kind:
        case "WrrLocality":
            ctx.check_fields(message, path, _WRR_LOCALITY)
            where = join(path, "endpoint_picking_policy")
            child = load_balancing_policy(ctx, message.endpoint_picking_policy, where, depth + 1)
            return replace(child, locality_weighted=True)
        case "Subset":
            where = join(path, "subset_lb_policy")
            child = load_balancing_policy(ctx, message.subset_lb_policy, where, depth + 1)
            return replace(child, subsets=subset_config(ctx, message, path))
        case "RingHash":
            return _ring_hash(ctx, message, path)
        case "ClientSideWeightedRoundRobin":
            return Balancing(client_side_weighted_round_robin(ctx, message, path))
        case "LeastRequest":
            return Balancing(least_request(ctx, message, path), _is_locality_weighted(ctx, message, path))
        case "Random":
            ctx.check_fields(message, path, _RANDOM)
            return Balancing(Random(), _is_locality_weighted(ctx, message, path))
    return Balancing(round_robin(ctx, message, path), _is_locality_weighted(ctx, message, path))


def load_balancing_policy(ctx: Context, message: Any, path: str, depth: int = 0) -> Balancing:
    """The first supported policy of the list; without any, `UnsupportedLbPolicy` of the first one."""
    if depth >= _MAX_DEPTH:
        raise ResourceError(path, f"policies are nested more than {_MAX_DEPTH} deep")
    if not message.policies:
        raise ResourceError(join(path, "policies"), "must not be empty")
    skipped: list[tuple[str, str]] = []
    for index, item in enumerate(message.policies):
        extension = item.typed_extension_config
        where = f"{join(path, 'policies')}[{index}].typed_extension_config"
        name, found = unpack(extension.typed_config, _MODULES, join(where, "typed_config"))
        if found is not None:
            for first, place in skipped:
                ctx.degraded(place, f"{first} is not supported; {extension.name or name} is used")
            return _balancing(ctx, name.rpartition(".")[2], found, join(where, "typed_config"), depth)
        skipped.append((name or extension.name, where))
    name, where = skipped[0]
    return Balancing(unsupported(ctx, name, where))

"""How localities are chosen before endpoints: by weight, by zone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshlib.model.zones import ZONE_AWARE, ZoneAware
from meshlib.sources.xds.decode.common import enum_name, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join

_LOCALITY_LB = fields("locality_weighted_lb_config", "zone_aware_lb_config")
_ZONE_AWARE = fields(
    "routing_enabled",
    "min_cluster_size",
    "fail_traffic_on_panic",
    "force_local_zone",
    "force_locality_direct_routing",
    "locality_basis",
)


@dataclass(frozen=True, slots=True)
class Localities:
    """How a policy chooses localities."""

    weighted: bool = False
    zone_aware: ZoneAware = ZONE_AWARE


NO_LOCALITIES = Localities()


def locality_lb(ctx: Context, message: Any, path: str) -> Localities:
    """`locality_lb_config` of a policy's extension."""
    if not message.HasField("locality_lb_config"):
        return NO_LOCALITIES
    found, where = message.locality_lb_config, join(path, "locality_lb_config")
    ctx.check_fields(found, where, _LOCALITY_LB)
    weighted = bool(found.HasField("locality_weighted_lb_config"))
    if not found.HasField("zone_aware_lb_config"):
        return Localities(weighted)
    return Localities(weighted, zone_aware(ctx, found.zone_aware_lb_config, join(where, "zone_aware_lb_config")))


def zone_aware(ctx: Context, message: Any, path: str) -> ZoneAware:
    """`ZoneAwareLbConfig` of `common_lb_config` or of an extension, which has more fields."""
    ctx.check_fields(message, path, _ZONE_AWARE)
    known = message.DESCRIPTOR.fields_by_name
    force, basis = None, ZONE_AWARE.locality_basis
    if "force_local_zone" in known:
        if message.HasField("force_local_zone"):
            force = wrapped(message.force_local_zone, "min_size", 1)
        elif message.force_locality_direct_routing:
            force = 1
        found: Any = enum_name(message, "locality_basis", path)
        basis = found
    enabled = message.routing_enabled.value if message.HasField("routing_enabled") else 100.0
    size = wrapped(message, "min_cluster_size", 6)
    return ZoneAware(enabled, size, message.fail_traffic_on_panic, force, basis)

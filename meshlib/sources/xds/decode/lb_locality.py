"""How localities are chosen before endpoints: by weight, by zone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshlib.model.report import ResourceError
from meshlib.model.zones import ZONE_AWARE, LoadAware, ZoneAware
from meshlib.sources.xds.decode.common import duration, enum_name, wrapped
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


_LOAD_AWARE = fields(
    "endpoint_picking_policy",
    "weight_update_period",
    "metric_names_for_computing_utilization",
    "utilization_variance_threshold",
    "smoothing_time_constant",
    "remote_probe_fraction",
    "weight_expiration_period",
    harmless={
        "oob_reporting_period": "Envoy takes it and does nothing with it either",
        "enable_oob_load_report": "Envoy takes it and does nothing with it either",
    },
)
_LEAST_PERIOD = 0.1


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


def load_aware_locality(ctx: Context, message: Any, path: str) -> LoadAware:
    """`LoadAwareLocality`, but for the policy within a locality."""
    ctx.check_fields(message, path, _LOAD_AWARE)
    usual = LoadAware()

    def seconds(name: str, default: float) -> float:
        found = duration(message, name)
        return default if found is None else found

    found = LoadAware(
        seconds("weight_update_period", usual.weight_update_period),
        tuple(message.metric_names_for_computing_utilization),
        wrapped(message, "utilization_variance_threshold", usual.utilization_variance_threshold),
        seconds("smoothing_time_constant", usual.smoothing_time_constant),
        wrapped(message, "remote_probe_fraction", usual.remote_probe_fraction),
        seconds("weight_expiration_period", usual.weight_expiration_period),
    )
    for name, fits, wanted in (
        ("weight_update_period", found.weight_update_period >= _LEAST_PERIOD, "must be at least 0.1 s"),
        ("smoothing_time_constant", found.smoothing_time_constant > 0, "must be greater than 0"),
        ("utilization_variance_threshold", 0 <= found.utilization_variance_threshold <= 1, "must be from 0 to 1"),
        ("remote_probe_fraction", 0 <= found.remote_probe_fraction < 1, "must be in [0, 1)"),
    ):
        if not fits:
            raise ResourceError(join(path, name), wanted)
    return found

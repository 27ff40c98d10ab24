"""Where this process runs, and how a cluster keeps requests in its zone (Envoy: zone aware routing)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.endpoint import Locality

__all__ = ["NOWHERE", "ZONE_AWARE", "LoadAware", "Local", "ZoneAware"]

_NO_LOCALITY = Locality()


@dataclass(frozen=True, slots=True)
class Local:
    """`locality` of this process (Envoy: `node.locality`), and the `cluster` it is an endpoint of itself (Envoy:
    `local_cluster_name`), whose endpoints say how the callers are spread over the localities. Empty: not known.
    `service` is what the process is called (Envoy: `node.cluster`), for descriptors of rate limits.
    """

    locality: Locality = _NO_LOCALITY
    cluster: str = ""
    service: str = ""


NOWHERE = Local()


@dataclass(frozen=True, slots=True)
class ZoneAware:
    """`zone_aware_lb_config`. `routing_enabled` in percent of the requests; clusters with fewer healthy endpoints than
    `min_cluster_size` are balanced as a whole. `fail_traffic_on_panic`: a priority in panic has no endpoint for a
    request, instead of all. `force_local_zone`: the least number of healthy endpoints in the local locality from which
    on all requests stay there (None: it is not forced). `locality_basis`: what makes a locality's share of the load.
    """

    routing_enabled: float = 100.0
    min_cluster_size: int = 6
    fail_traffic_on_panic: bool = False
    force_local_zone: int | None = None
    locality_basis: Literal["HEALTHY_HOSTS_NUM", "HEALTHY_HOSTS_WEIGHT"] = "HEALTHY_HOSTS_NUM"


ZONE_AWARE = ZoneAware()


@dataclass(frozen=True, slots=True)
class LoadAware:
    """`LoadAwareLocality`: localities take requests by the headroom that their endpoints report (ORCA). Seconds.

    `utilization_variance_threshold`: by how much this process's locality may be busier than the others before requests
    leave it. `remote_probe_fraction`: the share that leaves it in any case, to hear of the others.
    `weight_expiration_period` 0: reports do not get old.
    """

    weight_update_period: float = 1.0
    metric_names_for_computing_utilization: tuple[str, ...] = ()
    utilization_variance_threshold: float = 0.1
    smoothing_time_constant: float = 5.0
    remote_probe_fraction: float = 0.03
    weight_expiration_period: float = 180.0

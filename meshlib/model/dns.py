"""How the names of a STRICT_DNS or LOGICAL_DNS cluster are resolved (`envoy.extensions.clusters.dns.v3.DnsCluster`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.endpoint import Address

__all__ = ["DEFAULT_DNS", "Dns", "DnsLookupFamily", "RefreshRate"]

DnsLookupFamily = Literal["AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL"]


@dataclass(frozen=True, slots=True)
class RefreshRate:
    """`dns_failure_refresh_rate`: seconds after a first failure, and the most after many."""

    base_interval: float
    max_interval: float


@dataclass(frozen=True, slots=True)
class Dns:
    """Times in seconds, defaults Envoy's. After a failure a name is asked for again by `failure_refresh_rate` where it
    is given, else after `refresh_rate`. `jitter`: up to so much is added to every wait. `respect_ttl`: an answer's time
    to live counts in place of `refresh_rate`. `resolvers`: the servers to ask in place of the system's, over TCP with
    `use_tcp`.
    `lookup_family` AUTO is IPv6 where there is any, else IPv4; V4_PREFERRED the other way round.
    """

    refresh_rate: float = 5.0
    failure_refresh_rate: RefreshRate | None = None
    jitter: float = 0.0
    respect_ttl: bool = False
    lookup_family: DnsLookupFamily = "AUTO"
    resolvers: tuple[Address, ...] = ()
    use_tcp: bool = False


DEFAULT_DNS = Dns()

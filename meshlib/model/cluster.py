"""Cluster (`envoy.config.cluster.v3`): how to reach a service, how to balance to it, how to protect it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from meshlib.model.circuit_breaker import CircuitBreaker
from meshlib.model.dns import DEFAULT_DNS, Dns
from meshlib.model.endpoint import ClusterLoadAssignment, HealthStatus, LbEndpoint
from meshlib.model.health import HealthCheck, When
from meshlib.model.lanes import LaneGroup, Nearby
from meshlib.model.lb import ROUND_ROBIN, LbPolicy, LbSubsetConfig, OverrideHost, RandomSubsetting
from meshlib.model.matchers import HeaderMatcher
from meshlib.model.metadata import EMPTY_METADATA, Metadata, Struct
from meshlib.model.zones import ZONE_AWARE, LoadAware, ZoneAware

__all__ = [
    "CircuitBreaker",
    "CircuitBreakers",
    "Cluster",
    "ClusterType",
    "ErrorMatcher",
    "OutlierDetection",
    "RetryBudget",
    "Thresholds",
    "TlsMatch",
    "UpstreamTls",
]

ClusterType = Literal["STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST", "AGGREGATE"]


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Share of active requests that may be retries, with a floor (Envoy: 20 %, 3)."""

    budget_percent: float = 20.0
    min_retry_concurrency: int = 3


@dataclass(frozen=True, slots=True)
class Thresholds:
    """`envoy.config.cluster.v3.CircuitBreakers.Thresholds` for one priority; `retry_budget` replaces `max_retries`.
    `max_connections_per_host` is that of `per_host_thresholds`, None: as many as the cluster may have. With
    `track_remaining` there are gauges of the room that is left.
    """

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    retry_budget: RetryBudget | None = None
    max_connections_per_host: int | None = None
    track_remaining: bool = False


@dataclass(frozen=True, slots=True)
class CircuitBreakers:
    """Thresholds for the two routing priorities."""

    default: Thresholds = Thresholds()
    high: Thresholds = Thresholds()


@dataclass(frozen=True, slots=True)
class ErrorMatcher:
    """`envoy.config.common.matcher.v3.MatchPredicate` over a response's headers: an `and` or `or` of `rules`, the `not`
    of the one rule, `headers` of which all must match, or `any`.
    """

    kind: Literal["any", "headers", "and", "or", "not"]
    rules: tuple[ErrorMatcher, ...] = ()
    headers: tuple[HeaderMatcher, ...] = ()


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """`envoy.config.cluster.v3.OutlierDetection`. Times in seconds, `enforcing_*` and thresholds in percent, the
    `success_rate_stdev_factor` in thousandths. Defaults are Envoy's. A `consecutive_*` of 0 detects nothing.

    `error_matcher` is that of the cluster's HttpProtocolOptions: the responses it matches are errors, all others are
    not, whatever their status.
    """

    consecutive_5xx: int = 5
    enforcing_consecutive_5xx: int = 100
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 10
    always_eject_one_host: bool = False
    max_ejection_time_jitter: float = 0.0
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_gateway_failure: int = 0
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int = 5
    enforcing_consecutive_local_origin_failure: int = 100
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1900
    enforcing_success_rate: int = 100
    enforcing_local_origin_success_rate: int = 100
    failure_percentage_threshold: int = 85
    failure_percentage_minimum_hosts: int = 5
    failure_percentage_request_volume: int = 50
    enforcing_failure_percentage: int = 0
    enforcing_failure_percentage_local_origin: int = 0
    successful_active_health_check_uneject_host: bool = True
    error_matcher: ErrorMatcher | None = None


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """Client side TLS of a cluster. Without `trusted_ca` or `system_root_certs` a server is not verified, as in Envoy.

    Inline PEM (`*_pem`), file names, or certificate provider instances (`*_provider`, gRFC A29), which win; files and
    providers are followed when they rotate. `subject_alt_names` are (type, matcher kind, value) rules, of which one
    must hold. `auto_sni`: the request's host is sent as SNI where `sni` is empty; `auto_san_validation`: the
    certificate must be for the request's host (Envoy's UpstreamHttpProtocolOptions). `istio_alpn`: Istio's names of the
    protocols are offered first; by them a sidecar tells mutual TLS of the mesh from an application's own TLS.
    `minimum_version` of the protocol.
    `unusable` says which part of the wanted protection this version lacks (certificates by SDS, pinned keys, ...):
    unless it is empty, connecting must fail (UF) with that reason, never go on with less protection.
    """

    sni: str = ""
    trusted_ca: str = ""
    trusted_ca_pem: bytes = b""
    system_root_certs: bool = False
    certificate_chain: str = ""
    certificate_chain_pem: bytes = b""
    private_key: str = ""
    private_key_pem: bytes = field(default=b"", repr=False)
    certificate_provider: str = ""
    ca_provider: str = ""
    subject_alt_names: tuple[tuple[str, str, str], ...] = ()
    auto_sni: bool = False
    auto_san_validation: bool = False
    istio_alpn: bool = False
    minimum_version: Literal["TLSv1_2", "TLSv1_3"] = "TLSv1_2"
    unusable: str = ""

    @property
    def by_host(self) -> bool:
        """Whether connections for one host are not good for another."""
        return self.auto_sni or self.auto_san_validation


@dataclass(frozen=True, slots=True)
class TlsMatch:
    """One of `transport_socket_matches`: the TLS (None: plain text) of endpoints whose metadata has the `criteria`."""

    criteria: Struct
    tls: UpstreamTls | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """One upstream service. `load_assignment` is inline, or comes by EDS under `eds_service_name` (or the name).

    `healthy_panic_threshold` in percent (Envoy 50; 0 switches panic off). `clusters` are the children of an AGGREGATE.
    `zone_aware` counts where this process knows its own cluster (`meshlib.model.zones.Local`) and `locality_weighted`
    is not set. `dns` says how the names of a DNS cluster are resolved.
    `tls` is that of endpoints which none of `tls_matches` is for.
    `idle_timeout` of upstream connections (Envoy 1 h, None = never); `max_requests_per_connection` None = unlimited.
    `max_connection_duration` (seconds, None = no limit): a connection takes no new request when it is that old.
    `max_stream_duration` (seconds, None = no limit) ends an attempt, its response's body included.
    `health_checks`: an endpoint must pass all of them (docs/health.md). `health_checks_when` "ejected": only those that
    outlier detection has ejected, or that are out of reach, are checked. `ignore_new_hosts_until_first_hc`: endpoints
    that join later are not missed until they have been checked. `ignore_health_on_host_removal`: those that leave (EDS,
    STRICT_DNS) are let go even if their checks find them well.
    `override_host_statuses`: of an endpoint that a session asks for; UNHEALTHY is one that is ejected, too.
    """

    name: str
    type: ClusterType = "STATIC"
    eds_service_name: str = ""
    load_assignment: ClusterLoadAssignment | None = None
    lb_policy: LbPolicy = ROUND_ROBIN
    subsets: LbSubsetConfig | None = None
    override_host: OverrideHost | None = None
    subsetting: RandomSubsetting | None = None
    clusters: tuple[str, ...] = ()
    connect_timeout: float = 5.0
    healthy_panic_threshold: float = 50.0
    locality_weighted: bool = False
    zone_aware: ZoneAware = ZONE_AWARE
    load_aware: LoadAware | None = None
    dns: Dns = DEFAULT_DNS
    circuit_breakers: CircuitBreakers = CircuitBreakers()
    circuit_breaker: CircuitBreaker | None = None
    outlier_detection: OutlierDetection | None = None
    tls: UpstreamTls | None = None
    tls_matches: tuple[TlsMatch, ...] = ()
    http2: bool = False
    idle_timeout: float | None = 3600.0
    max_requests_per_connection: int | None = None
    max_connection_duration: float | None = None
    max_stream_duration: float | None = None
    metadata: Metadata = EMPTY_METADATA
    lanes: LaneGroup | None = None
    nearby: Nearby | None = None
    health_checks: tuple[HealthCheck, ...] = ()
    health_checks_when: When = "always"
    ignore_new_hosts_until_first_hc: bool = False
    ignore_health_on_host_removal: bool = False
    override_host_statuses: frozenset[HealthStatus] = frozenset(("UNKNOWN", "HEALTHY", "DEGRADED"))

    def tls_of(self, endpoint: LbEndpoint) -> UpstreamTls | None:
        """The TLS of connections to an endpoint (Envoy: `transport_socket_matches`, the first match counts)."""
        if not self.tls_matches:
            return self.tls
        known = endpoint.metadata.namespace("envoy.transport_socket_match").items
        found = (match.tls for match in self.tls_matches if all(item in known for item in match.criteria.items))
        return next(found, self.tls)

    @property
    def by_dns(self) -> bool:
        """Whether its endpoints may have names, to be resolved."""
        return self.type in ("STRICT_DNS", "LOGICAL_DNS")

    @property
    def endpoints_name(self) -> str:
        """The EDS resource to read when the type is EDS."""
        return self.eds_service_name or self.name

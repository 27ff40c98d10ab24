"""Configuration from code: a few lines instead of a control plane. Builds the model directly (no protobuf, no YAML)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from meshlib.model.cluster import CircuitBreaker, Cluster, OutlierDetection
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.health import HealthCheck
from meshlib.model.lb import LbPolicy, RoundRobin
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.report import ResourceError
from meshlib.model.route import (
    DEFAULT_ROUTE_TIMEOUT,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.model.snapshot import Snapshot
from meshlib.sources.base import Sink

__all__ = [
    "ClusterSpec",
    "EndpointSpec",
    "RouteSpec",
    "StaticSource",
    "retry_policy",
    "static_cluster",
    "static_snapshot",
]

EndpointSpec = str | Address | LbEndpoint
"""`"127.0.0.1:8001"`, `"[::1]:8001"`, `"payments.internal:80"` (DNS), `"unix:/run/app.sock"`, or the model's own."""

ClusterSpec = Cluster | Sequence[EndpointSpec]
RouteSpec = str | Mapping[str, int] | Sequence[Route]
"""A cluster's name, weights by cluster (`{"stable": 90, "canary": 10}`), or the model's routes in matching order."""

ROUTE_CONFIGURATION = "static"
_EVERYTHING = RouteMatch(PathMatcher("prefix", "/"))
_ROUND_ROBIN = RoundRobin()
_MAX_WEIGHT = 2**32 - 1


def static_snapshot(
    clusters: Mapping[str, ClusterSpec],
    *,
    routes: Mapping[str, RouteSpec] | None = None,
    timeout: float | timedelta | None = DEFAULT_ROUTE_TIMEOUT,
    retries: RetryPolicy | int | None = None,
    lb_policy: LbPolicy = _ROUND_ROBIN,
    version: str = "static",
) -> Snapshot:
    """A snapshot in which every cluster answers to its own name as host, whatever the port.

    `routes` maps a domain (host, `*.suffix`, `prefix.*` or `*`) to where its requests go; it may add domains and may
    redefine a cluster's own. `timeout` (seconds; None = off) is for the routes made here; `retries` is the virtual
    hosts' policy, which a `Route` may override; a number takes Istio's conditions (see `retry_policy`). `lb_policy`
    is for clusters given as endpoints. Raises `ResourceError` naming the argument when something cannot hold.

        static_snapshot({"payments": ["127.0.0.1:8001", "127.0.0.1:8002"]}, retries=2)
        static_snapshot({"stable": [...], "canary": [...]}, routes={"payments": {"stable": 90, "canary": 10}})
    """
    built = {name: _cluster(name, spec, lb_policy) for name, spec in clusters.items()}
    tables: dict[str, RouteSpec] = {name: name for name in built} | dict(routes or {})
    policy = retry_policy(retries) if isinstance(retries, int) else retries
    hosts = tuple(_virtual_host(domain, spec, built, _seconds(timeout), policy) for domain, spec in tables.items())
    table = RouteConfiguration(ROUTE_CONFIGURATION, hosts, ignore_port_in_host_matching=True)
    return Snapshot(
        clusters=MappingProxyType(built), routes=MappingProxyType({ROUTE_CONFIGURATION: table}), version=version
    )


def static_cluster(
    name: str,
    endpoints: Sequence[EndpointSpec],
    *,
    lb_policy: LbPolicy = _ROUND_ROBIN,
    connect_timeout: float | timedelta = 5.0,
    outlier_detection: OutlierDetection | None = None,
    circuit_breaker: CircuitBreaker | None = None,
    health_checks: Sequence[HealthCheck] = (),
) -> Cluster:
    """A cluster of the given endpoints: STATIC when all are IP addresses or unix sockets, STRICT_DNS otherwise.

    For fields beyond these use `dataclasses.replace`. Raises `ResourceError` for an address that is none.
    """
    hosts = tuple(_endpoint(name, index, spec) for index, spec in enumerate(endpoints))
    return Cluster(
        name,
        type="STATIC" if all(host.address.is_literal for host in hosts) else "STRICT_DNS",
        load_assignment=ClusterLoadAssignment(name, (LocalityLbEndpoints(hosts),) if hosts else ()),
        lb_policy=lb_policy,
        connect_timeout=_seconds(connect_timeout) or 0.0,
        outlier_detection=outlier_detection,
        circuit_breaker=circuit_breaker,
        health_checks=tuple(health_checks),
    )


def retry_policy(num_retries: int) -> RetryPolicy | None:
    """Istio's default conditions with a chosen number of retries: failures before the request was taken up, gRPC
    UNAVAILABLE and CANCELLED, and status 503; another host each time. 0 is None.
    """
    if num_retries < 0:
        raise ResourceError("retries", f"{num_retries} is negative; give 0 or more, or a RetryPolicy")
    if num_retries == 0:
        return None
    return RetryPolicy(
        ("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"),
        num_retries=num_retries,
        retriable_status_codes=(503,),
        previous_hosts=True,
        host_selection_retry_max_attempts=5,
    )


def parse_address(text: str) -> Address:
    """`host:port`, `[v6]:port` or `unix:/path`; raises `ValueError` that says which part is wrong."""
    if text.startswith("unix:"):
        return Address("", 0, text.removeprefix("unix:").removeprefix("//"))
    if "://" in text:
        raise ValueError(f"{text!r} is a URL; endpoints are 'host:port'")
    host, colon, port = text.rpartition(":")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} has no port; endpoints are 'host:port' ('[::1]:8080' for IPv6)")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: port {port!r} is not a number from 1 to 65535")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


class StaticSource:
    """A source that knows everything from the start; `replace` puts another snapshot into force at once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._sink: Sink | None = None
        self._publishing = threading.Lock()  # control side only: keeps two replacements in their order

    def start(self, sink: Sink) -> None:
        """Deliver the snapshot before returning. Raises `ResourceError` when it cannot be compiled: configuration in
        code has no older version to fall back to.
        """
        with self._publishing:
            sink.publish(self._snapshot)
            self._sink = sink

    def replace(self, snapshot: Snapshot) -> None:
        """Deliver another snapshot; raises `ResourceError`, and keeps the present one, when it cannot be compiled."""
        with self._publishing:
            if self._sink is not None:
                self._sink.publish(snapshot)
            self._snapshot = snapshot

    def request(self, authority: str) -> None:
        """Nothing to ask: what is not in the snapshot does not exist."""

    def close(self) -> None:
        """Stop delivering."""
        with self._publishing:
            self._sink = None

    def forget(self) -> None:
        """In a forked child: a lock the parent may have held is not ours."""
        self._publishing = threading.Lock()
        self._sink = None


def _cluster(name: str, spec: ClusterSpec, lb_policy: LbPolicy) -> Cluster:
    if not name:
        raise ResourceError("clusters", "a cluster needs a name")
    if isinstance(spec, str):
        raise ResourceError(
            f"clusters[{name!r}]", f"{spec!r} is one string; give a list: [{spec!r}]", f"Cluster {name}"
        )
    if not isinstance(spec, Cluster):
        return static_cluster(name, spec, lb_policy=lb_policy)
    if spec.name != name:
        raise ResourceError(f"clusters[{name!r}]", f"the Cluster calls itself {spec.name!r}; the two must be equal")
    return spec


def _endpoint(cluster: str, index: int, spec: EndpointSpec) -> LbEndpoint:
    if isinstance(spec, LbEndpoint):
        return spec
    try:
        return LbEndpoint(spec if isinstance(spec, Address) else parse_address(spec))
    except ValueError as error:
        raise ResourceError(f"clusters[{cluster!r}][{index}]", str(error), f"Cluster {cluster}") from None


def _virtual_host(
    domain: str, spec: RouteSpec, clusters: Mapping[str, Cluster], timeout: float | None, retries: RetryPolicy | None
) -> VirtualHost:
    if isinstance(spec, str):
        _known(domain, spec, clusters)
        routes: tuple[Route, ...] = (Route(_EVERYTHING, RouteAction(spec, timeout=timeout)),)
    elif isinstance(spec, Mapping):
        routes = (Route(_EVERYTHING, RouteAction(_weighted(domain, spec, clusters), timeout=timeout)),)
    else:
        routes = tuple(spec)
    return VirtualHost(domain, (domain,), routes, retry_policy=retries)


def _weighted(domain: str, weights: Mapping[str, int], clusters: Mapping[str, Cluster]) -> WeightedClusters:
    for name, weight in weights.items():
        _known(domain, name, clusters)
        if weight < 0:
            raise ResourceError(f"routes[{domain!r}][{name!r}]", f"weight {weight} is negative")
    if not 1 <= sum(weights.values()) <= _MAX_WEIGHT:
        raise ResourceError(
            f"routes[{domain!r}]", f"the weights add up to {sum(weights.values())}; give 1 to 2**32 - 1"
        )
    return WeightedClusters(tuple(WeightedCluster(name, weight) for name, weight in weights.items()))


def _known(domain: str, name: str, clusters: Mapping[str, Cluster]) -> None:
    if name not in clusters:
        known = ", ".join(sorted(clusters)) or "none"
        raise ResourceError(f"routes[{domain!r}]", f"unknown cluster {name!r}; known: {known}")


def _seconds(duration: float | timedelta | None) -> float | None:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds is not None and not 0 <= seconds < float("inf"):
        raise ResourceError("timeout", f"{seconds} is not a duration in seconds; None switches it off")
    return seconds or None

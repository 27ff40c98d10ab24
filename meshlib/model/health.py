"""Active health checks of a cluster's endpoints (`envoy.config.core.v3.HealthCheck`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.headers import NO_MUTATIONS, HeaderMutations
from meshlib.model.metadata import Struct
from meshlib.model.strings import StringMatcher

__all__ = [
    "GrpcHealthCheck",
    "HealthCheck",
    "HttpHealthCheck",
    "StatusRange",
    "TcpHealthCheck",
    "When",
]

StatusRange = tuple[int, int]
"""From the first to below the second, as Envoy's `Int64Range`."""
When = Literal["always", "ejected"]


@dataclass(frozen=True, slots=True)
class HttpHealthCheck:
    """A request over HTTP/1.1 and what its response must be.

    `host` empty: the cluster's name, as in Envoy. `send` is the request's body. The parts of `receive` must be in the
    first `response_buffer_size` bytes (0: all) of the body, one behind the other. Statuses in `retriable_statuses`
    count towards the unhealthy threshold; any other that is not expected makes the endpoint unhealthy at once.
    `service_name_matcher` is for the response's `x-envoy-upstream-healthchecked-cluster`.
    """

    path: str = "/"
    host: str = ""
    method: str = "GET"
    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    response_buffer_size: int = 1024
    request_headers: HeaderMutations = NO_MUTATIONS
    expected_statuses: tuple[StatusRange, ...] = ((200, 201),)
    retriable_statuses: tuple[StatusRange, ...] = ()
    service_name_matcher: StringMatcher | None = None


@dataclass(frozen=True, slots=True)
class TcpHealthCheck:
    """A connection; with `receive`, also what comes over it after `send`. Without `receive` connecting is enough.
    `proxy_protocol`: it begins with the header of the PROXY protocol, which in version 2 says that it is local.
    """

    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    proxy_protocol: Literal["", "V1", "V2"] = ""


@dataclass(frozen=True, slots=True)
class GrpcHealthCheck:
    """`grpc.health.v1.Health/Check`, which must say SERVING. `authority` empty: the cluster's name."""

    service_name: str = ""
    authority: str = ""
    initial_metadata: HeaderMutations = NO_MUTATIONS


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One check, and when it is made. Times in seconds; those that are None are as Envoy has it: the edge intervals and
    `unhealthy_interval` are `interval`, `no_traffic_healthy_interval` is `no_traffic_interval`.

    Envoy requires `timeout`, `interval` and both thresholds; the defaults here are for checks from code.
    `no_traffic_interval` holds until the first call to the cluster. `reuse_connection`: the next check goes over the
    same connection. `alpn_protocols` are offered in TLS in place of the cluster's, `transport_socket_match_criteria`
    choose among the cluster's `transport_socket_matches`.
    """

    check: HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck
    timeout: float = 1.0
    interval: float = 5.0
    unhealthy_threshold: int = 3
    healthy_threshold: int = 2
    initial_jitter: float = 0.0
    interval_jitter: float = 0.0
    interval_jitter_percent: int = 0
    no_traffic_interval: float = 60.0
    no_traffic_healthy_interval: float | None = None
    unhealthy_interval: float | None = None
    unhealthy_edge_interval: float | None = None
    healthy_edge_interval: float | None = None
    reuse_connection: bool = True
    always_log_health_check_failures: bool = False
    always_log_health_check_success: bool = False
    alpn_protocols: tuple[str, ...] = ()
    transport_socket_match_criteria: Struct | None = None

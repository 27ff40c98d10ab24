"""Checks by gRPC's health service, of a real Envoy and of a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from differential.calls_twin import EXTENSIONS, Twin, cluster, virtual_host
from differential.health_gate import flags_of_envoy, flags_of_mesh
from e2e.health.grpc_servers import Server
from parts.xds import eventually

ALL: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}
FAILED = {"failed_active_hc"}
STATUSES = health_pb2.HealthCheckResponse.ServingStatus
# Of grpcio's own, beside what every call has.
_OWN = {"user-agent", "grpc-accept-encoding", "accept-encoding", "grpc-timeout"}


def checked(make_twin: Callable[..., Twin], port: int, **grpc: Any) -> Twin:
    check = {
        "timeout": "2s",
        "interval": "0.05s",
        "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 3,
        "healthy_threshold": 1,
        "grpc_health_check": grpc,
    }
    return make_twin([virtual_host([ALL])], [cluster("up", [port], health_checks=[check], **HTTP2)])


def both(twin: Twin, port: int, expected: set[str]) -> None:
    eventually(lambda: flags_of_envoy(twin)[port] == expected, f"Envoy says {flags_of_envoy(twin)}, not {expected}")
    eventually(lambda: flags_of_mesh(twin)[port] == expected, f"the mesh says {flags_of_mesh(twin)}, not {expected}")


@pytest.mark.parametrize("service", ["", "shop.Cart"])
def test_what_a_server_says_of_its_service(make_twin: Callable[..., Twin], service: str) -> None:
    server = Server()
    try:
        twin = checked(make_twin, server.port, service_name=service)
        both(twin, server.port, FAILED if service else set())  # NOT_FOUND
        for status in (STATUSES.SERVING, STATUSES.NOT_SERVING, STATUSES.SERVING, STATUSES.UNKNOWN):
            server.servicer.set(service, status)
            both(twin, server.port, set() if status == STATUSES.SERVING else FAILED)
    finally:
        server.stop()


def test_a_server_without_the_service(make_twin: Callable[..., Twin]) -> None:
    server = Server(healthy=False)
    try:
        both(checked(make_twin, server.port), server.port, FAILED)
    finally:
        server.stop()


def test_a_server_that_goes_away(make_twin: Callable[..., Twin]) -> None:
    server = Server()
    try:
        twin = checked(make_twin, server.port)
        both(twin, server.port, set())
    finally:
        server.stop()
    both(twin, server.port, FAILED)
    network = "cluster.up.health_check.network_failure"
    eventually(lambda: twin.envoy.stats(network)[network] >= 3, "Envoy counts failures of the network")
    eventually(lambda: twin.mesh.stats()[network] >= 3, "so does the mesh")


def test_the_metadata(make_twin: Callable[..., Twin]) -> None:
    server = Server()
    try:
        added = [{"header": {"key": "x-a", "value": "1"}}]
        twin = checked(make_twin, server.port, authority="cart.test", initial_metadata=added)
        both(twin, server.port, set())
        eventually(lambda: len(server.asked) > 8, "both have asked")
        asked = {frozenset(pair for pair in each.items() if pair[0] not in _OWN) for each in server.asked}
        agents = {each["user-agent"].split(" ")[0].split("/")[0] for each in server.asked}
        assert len(agents) == 2
        assert asked == {frozenset({("x-a", "1")})}
    finally:
        server.stop()

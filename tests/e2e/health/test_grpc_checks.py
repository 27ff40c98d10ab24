"""Checks by gRPC's health service, of real servers of grpcio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from e2e.health.checked import attempts, becomes, health, often
from e2e.health.grpc_servers import Server
from e2e.wire.raw_server import RawServer
from meshlib import Mesh
from meshlib.model.endpoint import EndpointHealthCheck, LbEndpoint
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.health import GrpcHealthCheck
from meshlib.sources.static import parse_address, static_cluster
from parts.xds import eventually

Static = Callable[..., Mesh]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(**options: Any) -> Server:
        made.append(Server(**options))
        return made[-1]

    yield start
    for each in made:
        each.stop()


def up(port: int, check: GrpcHealthCheck = GrpcHealthCheck(), **more: Any) -> dict[str, Any]:  # noqa: B008
    return {"up": static_cluster("up", [f"127.0.0.1:{port}"], health_checks=[often(check, **more)])}


def test_it_must_be_serving(static: Static, server: Callable[..., Server]) -> None:
    backend = server()
    mesh = static(up(backend.port))
    assert health(mesh) == {backend.port: "healthy"}
    backend.servicer.set("", NOT_SERVING)
    becomes(mesh, {backend.port: "unhealthy"})
    backend.servicer.set("", SERVING)
    becomes(mesh, {backend.port: "healthy"})


def test_one_service_of_it_with_metadata(static: Static, server: Callable[..., Server]) -> None:
    backend = server()
    check = GrpcHealthCheck("shop.Cart", "cart.test", HeaderMutations((HeaderValueOption("x-key", "1"),)))
    mesh = static(up(backend.port, check))
    assert health(mesh) == {backend.port: "unhealthy"}, "NOT_FOUND"
    backend.servicer.set("shop.Cart", SERVING)
    becomes(mesh, {backend.port: "healthy"})
    assert {asked.get("x-key") for asked in backend.asked} == {"1"}


def test_a_server_without_the_service_or_none_at_all(static: Static, server: Callable[..., Server]) -> None:
    backend = server(healthy=False)
    mesh = static(up(backend.port, unhealthy_threshold=9))
    assert health(mesh) == {backend.port: "unhealthy"}
    assert mesh.stats()["cluster.up.health_check.network_failure"] == 0
    backend.stop()
    eventually(lambda: mesh.stats()["cluster.up.health_check.network_failure"] > 0, "nobody is there any more")


def test_a_server_that_comes_back_is_found(static: Static, server: Callable[..., Server]) -> None:
    backend = server()
    mesh = static(up(backend.port))
    backend.stop()
    becomes(mesh, {backend.port: "unhealthy"})
    again = grpc.server(ThreadPoolExecutor(4))
    health_pb2_grpc.add_HealthServicer_to_server(grpc_health.HealthServicer(), again)
    assert again.add_insecure_port(f"127.0.0.1:{backend.port}") == backend.port
    again.start()
    try:
        becomes(mesh, {backend.port: "healthy"})
    finally:
        again.stop(None).wait()


def test_a_server_that_says_nothing(static: Static, raw: Callable[..., RawServer]) -> None:
    backend = raw(lambda peer: peer.wait())
    mesh = static(up(backend.port, timeout=0.3))
    assert health(mesh) == {backend.port: "unhealthy"}
    eventually(lambda: mesh.stats()["cluster.up.health_check.network_failure"] > 0, "a failure of the network")


def test_checked_elsewhere_and_each_time_anew(static: Static, server: Callable[..., Server]) -> None:
    backend = server()
    place = LbEndpoint(parse_address("127.0.0.1:1"), health_check=EndpointHealthCheck(backend.port))
    cluster = static_cluster("up", [place], health_checks=[often(GrpcHealthCheck(), reuse_connection=False)])
    mesh = static({"up": cluster})
    assert health(mesh) == {1: "healthy"}
    eventually(lambda: attempts(mesh) > 4, "several checks")
    assert health(mesh) == {1: "healthy"}
    assert mesh.stats()["cluster.up.health_check.failure"] == 0

"""An Envoy whose route configuration a test replaces, and an Envoy with a mesh that follows the same bootstrap."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from differential import balancing_envoy
from differential.balancing_envoy import EnvoyClient
from differential.calls_twin import Twin, bootstrap
from differential.grpc_xds_twin import Plane, World
from differential.routing_envoy import RoutingEnvoy
from meshlib.model.cluster import Cluster
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply
from parts.fixtures import Servers
from parts.grpc_calls import XdsCaller
from parts.grpc_stubs import Stubs


@pytest.fixture
def routing_envoy(
    envoy: Callable[..., EnvoyServer], fast_backend: Callable[..., FastBackend], servers: Servers
) -> Iterator[RoutingEnvoy]:
    oracle = RoutingEnvoy(envoy, fast_backend, servers.folder("routes"))
    yield oracle
    oracle.close()


@pytest.fixture
def make_twin(envoy: Callable[..., EnvoyServer], servers: Servers) -> Iterator[Callable[..., Twin]]:
    """``make_twin(virtual_hosts, clusters, ...)``: the arguments of ``calls_twin.bootstrap``."""
    twins: list[Twin] = []

    def make(*given: Any, **more: Any) -> Twin:
        twins.append(Twin(envoy, servers.folder("twin"), bootstrap(*given, **more)))
        return twins[-1]

    yield make
    for twin in twins:
        twin.close()


@pytest.fixture(scope="module")  # not longer: a gRPC server in this process is in the way of tests that fork
def _xds_plane(grpc_stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plane, XdsCaller]]:
    plane = Plane()
    caller = XdsCaller(plane.address, grpc_stubs, tmp_path_factory.mktemp("xds") / "grpcio.log")
    yield plane, caller
    caller.stop()
    plane.stop()


@pytest.fixture
def xds_world(_xds_plane: tuple[Plane, XdsCaller], grpc_stubs: Stubs) -> Iterator[Callable[..., World]]:
    """``xds_world()``: a listener followed by grpcio and by a mesh with these options; see ``World.put``."""
    worlds: list[World] = []

    def make(**options: Any) -> World:
        worlds.append(World(*_xds_plane, grpc_stubs, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def ports(fast_backend: Callable[..., FastBackend]) -> list[int]:
    """The ports of ten backends; each is named by its address, which Envoy's `EnvoyClient` tells."""
    backends = [fast_backend("?", Reply(body=b"")) for _ in range(10)]
    for backend in backends:
        backend.name = backend.address
    return [backend.port for backend in backends]


@pytest.fixture
def start(envoy: Callable[..., EnvoyServer]) -> Iterator[Callable[..., EnvoyClient]]:
    """`start(clusters, ...)`: a client of one Envoy with the bootstrap of `balancing_envoy`."""
    clients: list[EnvoyClient] = []

    def begin(clusters: Sequence[Cluster], **fields: Any) -> EnvoyClient:
        clients.append(EnvoyClient(envoy(balancing_envoy.bootstrap(clusters, **fields)).port))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()

"""One Envoy a test, with echoing upstreams and a route configuration the test replaces."""

from collections.abc import Callable, Iterator

import pytest

from differential.routing_envoy import RoutingEnvoy
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend
from parts.fixtures import Servers


@pytest.fixture
def routing_envoy(
    envoy: Callable[..., EnvoyServer], fast_backend: Callable[..., FastBackend], servers: Servers
) -> Iterator[RoutingEnvoy]:
    oracle = RoutingEnvoy(envoy, fast_backend, servers.folder("routes"))
    yield oracle
    oracle.close()

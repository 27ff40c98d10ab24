"""The same generated route configurations and requests in Envoy and in meshlib: same route, status, path, headers."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from differential.routing_differences import comparable
from differential.routing_envoy import RoutingEnvoy
from differential.routing_generate import asks, configurations
from differential.routing_ours import OurRouting
from differential.routing_render import route_configuration
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend
from parts.fixtures import Servers

REQUESTS_PER_CONFIGURATION = 15


@pytest.fixture
def routing_envoy(
    envoy: Callable[..., EnvoyServer], fast_backend: Callable[..., FastBackend], servers: Servers
) -> Iterator[RoutingEnvoy]:
    oracle = RoutingEnvoy(envoy, fast_backend, servers.folder("routes"))
    yield oracle
    oracle.close()


@pytest.mark.timeout(300)
def test_generated_configurations_route_as_in_envoy(routing_envoy: RoutingEnvoy) -> None:
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
    @given(st.data())
    def same(data: st.DataObject) -> None:
        config = data.draw(configurations())
        ours = OurRouting(config)
        routing_envoy.push(route_configuration(config))
        for _ in range(REQUESTS_PER_CONFIGURATION):
            ask = data.draw(asks(config))
            theirs = routing_envoy.ask(ask)
            note(f"Envoy: {theirs}")
            assert comparable(ask, ours.ask(ask)) == comparable(ask, theirs)

    same()

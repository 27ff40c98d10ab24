"""The same generated route configurations and requests in Envoy and in meshlib: same route, status, path, headers."""

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from differential.routing_differences import comparable
from differential.routing_envoy import RoutingEnvoy
from differential.routing_generate import AUTHORITIES, DOMAINS, asks, configurations, named
from differential.routing_observed import Ask
from differential.routing_ours import OurRouting
from differential.routing_render import route_configuration
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import DirectResponseAction, Route, RouteConfiguration, VirtualHost

REQUESTS_PER_CONFIGURATION = 15
# Real servers have no fixed pace, and drawing a whole configuration is slow by hypothesis's measure. On failure it
# prints the smallest configuration and request it found, and a line to run just those again.
AGAINST_ENVOY = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("examples", [120, pytest.param(600, marks=pytest.mark.slow)])
def test_generated_configurations_route_as_in_envoy(examples: int, routing_envoy: RoutingEnvoy) -> None:
    @settings(AGAINST_ENVOY, max_examples=examples)
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


@pytest.mark.timeout(600)
def test_virtual_hosts_are_chosen_as_in_envoy(routing_envoy: RoutingEnvoy) -> None:
    @settings(AGAINST_ENVOY, max_examples=60)
    @given(st.lists(st.sampled_from(DOMAINS), min_size=1, unique_by=str.lower), st.booleans())
    def same(domains: list[str], ignore_port: bool) -> None:
        hosts = tuple(VirtualHost(domain, (domain,), (named(domain, CATCH_ALL),)) for domain in domains)
        config = RouteConfiguration("generated", hosts, ignore_port_in_host_matching=ignore_port)
        ours = OurRouting(config)
        routing_envoy.push(route_configuration(config))
        for authority in AUTHORITIES:
            ask = Ask("GET", authority, "/")
            assert ours.ask(ask).route == routing_envoy.ask(ask).route, f"{authority} in {domains}"

    same()


CATCH_ALL = Route(RouteMatch(PathMatcher("prefix", "/")), DirectResponseAction(200))

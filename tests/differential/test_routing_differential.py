"""The same generated route configurations and requests in Envoy and in meshlib: same route, status, path, headers."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from differential import draws
from differential.routing_differences import comparable
from differential.routing_envoy import RoutingEnvoy
from differential.routing_generate import AUTHORITIES, DOMAINS, asks, configurations, named
from differential.routing_many import batches
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
@pytest.mark.parametrize(("seed", "hosts"), [(1, 1_500), pytest.param(2, 20_000, marks=pytest.mark.slow)])
def test_thousands_of_virtual_hosts_route_as_in_envoy(seed: int, hosts: int, routing_envoy: RoutingEnvoy) -> None:
    differences: list[str] = []
    routes: set[str] = set()
    asked = forwarded = 0
    for number, batch in enumerate(batches(seed, hosts)):
        ours = OurRouting(batch.config)
        routing_envoy.push(route_configuration(batch.config))
        for drawn_for, ask in batch.asked:
            theirs = routing_envoy.ask(ask)
            asked += 1
            forwarded += theirs.arrived is not None
            routes.add(f"{number}/{theirs.route}")
            if comparable(ask, seen := ours.ask(ask)) != comparable(ask, theirs):
                told = json.dumps(route_configuration(replace(batch.config, virtual_hosts=drawn_for)))
                differences.append(f"{ask}\n  Envoy {theirs}\n  mesh  {seen}\n  {told}")
    assert not differences, f"{len(differences)} of {asked} differ\n" + "\n".join(differences[:5])
    assert asked >= 10 * hosts
    assert forwarded > asked / 6  # the others are answered by a route, or by none
    assert len(routes) > hosts  # of about 3 in each


@pytest.mark.timeout(600)
def test_generated_configurations_route_as_in_envoy(routing_envoy: RoutingEnvoy) -> None:
    """A few that hypothesis draws and shrinks."""

    @settings(AGAINST_ENVOY, max_examples=30)
    @given(st.data())
    def same(data: st.DataObject) -> None:
        config = data.draw(configurations().shrinking())
        ours = OurRouting(config)
        routing_envoy.push(route_configuration(config))
        for _ in range(REQUESTS_PER_CONFIGURATION):
            ask = data.draw(asks(config).shrinking())
            theirs = routing_envoy.ask(ask)
            note(f"Envoy: {theirs}")
            assert comparable(ask, ours.ask(ask)) == comparable(ask, theirs)

    same()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "count"), [(3, 100), pytest.param(4, 2_000, marks=pytest.mark.slow)])
def test_virtual_hosts_are_chosen_as_in_envoy(seed: int, count: int, routing_envoy: RoutingEnvoy) -> None:
    rng = random.Random(seed)
    some_domains = draws.lists(draws.sampled_from(DOMAINS), 1, len(DOMAINS), unique_by=str.lower)
    for _ in range(count):
        domains, ignore_port = some_domains.by(rng), draws.booleans().by(rng)
        hosts = tuple(VirtualHost(domain, (domain,), (named(domain, CATCH_ALL),)) for domain in domains)
        config = RouteConfiguration("generated", hosts, ignore_port_in_host_matching=ignore_port)
        ours = OurRouting(config)
        routing_envoy.push(route_configuration(config))
        for authority in AUTHORITIES:
            ask = Ask("GET", authority, "/")
            assert ours.ask(ask).route == routing_envoy.ask(ask).route, f"{authority} in {domains}, {ignore_port}"


CATCH_ALL = Route(RouteMatch(PathMatcher("prefix", "/")), DirectResponseAction(200))

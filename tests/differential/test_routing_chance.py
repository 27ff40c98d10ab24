"""Where chance decides (weights, fractions) meshlib and Envoy must agree in distribution; seeded on our side."""

from collections import Counter
from dataclasses import replace

import pytest

from differential.routing_envoy import CLUSTERS, RoutingEnvoy
from differential.routing_generate import named
from differential.routing_observed import Ask, Observed
from differential.routing_ours import OurRouting
from differential.routing_render import route_configuration
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.route import (
    DirectResponseAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)

REQUESTS = 3000
CRITICAL = {1: 19.511, 2: 23.026}  # chi-squared at 1 in 100 000, by degrees of freedom: Envoy's chance has no seed
ALL = RouteMatch(PathMatcher("prefix", "/"))


def configuration(*routes: Route) -> RouteConfiguration:
    entries = tuple(named(f"r{index}", route) for index, route in enumerate(routes))
    return RouteConfiguration("generated", (VirtualHost("h", ("*",), entries),))


def asked(routing: OurRouting | RoutingEnvoy) -> list[Observed]:
    return [routing.ask(Ask("GET", "a.test", "/")) for _ in range(REQUESTS)]


def chi_squared(counts: Counter[str], shares: dict[str, float]) -> float:
    assert set(counts) <= {name for name, share in shares.items() if share}
    return sum((counts[name] - REQUESTS * share) ** 2 / (REQUESTS * share) for name, share in shares.items() if share)


@pytest.mark.parametrize("weights", [(1, 1, 1), (90, 9, 1), (3, 0, 1)])
def test_weighted_clusters(routing_envoy: RoutingEnvoy, weights: tuple[int, ...]) -> None:
    shares = tuple(WeightedCluster(name, weight) for name, weight in zip(CLUSTERS, weights, strict=True))
    config = configuration(Route(ALL, RouteAction(WeightedClusters(shares), timeout=None)))
    routing_envoy.push(route_configuration(config))
    expected = {share.name: share.weight / sum(weights) for share in shares}
    critical = CRITICAL[sum(weight > 0 for weight in weights) - 1]
    for routing in (OurRouting(config, seed=5), routing_envoy):
        counts = Counter(seen.arrived.cluster for seen in asked(routing) if seen.arrived)
        assert counts.total() == REQUESTS
        assert chi_squared(counts, expected) < critical, (routing, counts)


def test_fractions_of_one_request_share_their_chance(routing_envoy: RoutingEnvoy) -> None:
    """Two routes of 50 % each split the requests so that the second never matches: both see the same sample."""
    half = replace(ALL, runtime_fraction=FractionalPercent(50))
    answer = DirectResponseAction(200)
    config = configuration(Route(half, answer), Route(half, answer), Route(ALL, answer))
    routing_envoy.push(route_configuration(config))
    for routing in (OurRouting(config, seed=6), routing_envoy):
        counts = Counter(seen.route for seen in asked(routing))
        assert chi_squared(counts, {"r0": 0.5, "r1": 0.0, "r2": 0.5}) < CRITICAL[1], (routing, counts)

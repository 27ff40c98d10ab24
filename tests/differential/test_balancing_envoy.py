"""Against a real Envoy: the policies that choose by turn or by chance, by their shares."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from differential.balancing_clusters import Start, cluster, drawn, drawn_clusters, endpoint, group, many
from differential.balancing_envoy import EnvoyClient, chi_squared, critical_value, our_balancer
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import LbEndpoint
from meshlib.model.lb import LbPolicy, LeastRequest, Random, RoundRobin
from meshlib.model.metadata import EMPTY_STRUCT

REQUESTS = 1_000

pytestmark = pytest.mark.needs("envoy")


def our_picks(made: Cluster, count: int, seed: int) -> Counter[str | None]:
    balancer, rng = our_balancer(made), random.Random(seed)
    hosts = (balancer.pick(None, EMPTY_STRUCT, rng) for _ in range(count))
    return Counter(host.address if host else None for host in hosts)


def same_shares(client: EnvoyClient, made: Cluster, seed: int = 1) -> None:
    theirs, ours = client.picks(made.name, REQUESTS), our_picks(made, REQUESTS, seed)
    statistic, degrees = chi_squared(theirs, ours)
    assert statistic <= critical_value(degrees), (made, theirs, ours)


@pytest.mark.parametrize("policy", [RoundRobin(), LeastRequest(), LeastRequest(choice_count=4), Random()])
def test_weights_have_the_same_effect(start: Start, ports: list[int], policy: LbPolicy) -> None:
    clusters = [
        cluster("equal", policy, group([endpoint(port) for port in ports])),
        cluster("weighted", policy, group([endpoint(port, n + 1) for n, port in enumerate(ports)])),
        cluster("steep", policy, group([endpoint(ports[0], 50), endpoint(ports[1]), endpoint(ports[2], 5)])),
    ]
    client = start(clusters)
    for made in clusters:
        same_shares(client, made)


def generated(count: int) -> Any:
    return drawn_clusters(st.sampled_from((RoundRobin(), LeastRequest())), count)


def all_the_same_shares(start: Start, ports: list[int], made: Any) -> None:
    clusters = [make(f"c{number}", ports) for number, make in enumerate(made)]
    client = start(clusters)
    for one in clusters:
        same_shares(client, one)


@drawn
@given(made=generated(5))
def test_generated_priorities_localities_health_and_panic_have_the_same_effect(
    start: Start, ports: list[int], made: Any
) -> None:
    all_the_same_shares(start, ports, made)


@pytest.mark.slow
@pytest.mark.timeout(600)
@many
@given(made=generated(8))
def test_many_generated_clusters_have_the_same_shares(start: Start, ports: list[int], made: Any) -> None:
    all_the_same_shares(start, ports, made)


def test_priorities_degraded_and_panic_have_the_same_effect(start: Start, ports: list[int]) -> None:
    def healths(*states: str, first: int = 0) -> list[LbEndpoint]:
        return [endpoint(port, health=state) for port, state in zip(ports[first:], states, strict=False)]

    up, down, half = "HEALTHY", "UNHEALTHY", "DEGRADED"
    clusters = [
        cluster("spill", RoundRobin(), group(healths(up, down)), group(healths(up, up, first=2), priority=1)),
        cluster(
            "scaled",
            RoundRobin(),
            group(healths(up, down, down, down)),
            group(healths(up, up, up, down, down, down, first=4), priority=1),
        ),
        cluster("degraded", RoundRobin(), group(healths(up, half, half, half))),
        cluster("panic", RoundRobin(), group(healths(up, down, down))),
        cluster(
            "total panic", RoundRobin(), group(healths(down)), group(healths(down, down, down, first=1), priority=1)
        ),
        cluster(
            "degraded in panic beside others that are not",
            RoundRobin(),
            group(healths(half, down, down, down, down, down)),
            group(healths(up, up, down, down, first=6), priority=1),
        ),
        cluster("nobody", RoundRobin(), group(healths(down, down)), healthy_panic_threshold=0.0),
        cluster("no panic", RoundRobin(), group(healths(up, down, down)), healthy_panic_threshold=0.0),
        cluster(
            "localities",
            RoundRobin(),
            group(healths(up, down), "x", weight=1),
            group(healths(up, up, first=2), "y", weight=2),
            locality_weighted=True,
        ),
        cluster("draining", RoundRobin(), group(healths(up, "DRAINING", "TIMEOUT", "UNKNOWN"))),
    ]
    client = start(clusters)
    for made in clusters:
        same_shares(client, made)

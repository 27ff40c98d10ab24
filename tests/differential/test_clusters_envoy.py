"""Against a real Envoy: zone aware routing, aggregate clusters, panic and health by weight, by their shares."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from differential.balancing_envoy import EnvoyClient, chi_squared, critical_value
from differential.clusters_envoy import ZONE, aggregate, bootstrap, cluster, group, picks, plans
from meshlib.engine.cluster import ClusterPlan
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply

pytestmark = pytest.mark.needs("envoy")

BACKENDS, REQUESTS, PICKS = 12, 400, 20_000
POLICIES = ("ROUND_ROBIN", "LEAST_REQUEST", "RANDOM")
SICK = ("HEALTHY", "HEALTHY", "UNKNOWN", "DEGRADED", "UNHEALTHY", "DRAINING")


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    found = [FastBackend("", Reply(body=b"")) for _ in range(BACKENDS)]
    for backend in found:
        backend.name = backend.address  # what it says of itself
    yield [backend.port for backend in found]
    for backend in found:
        backend.stop()


def same_shares(
    server: EnvoyServer, clusters: list[dict[str, Any]], compared: list[dict[str, Any]], local: str = ""
) -> dict[str, ClusterPlan]:
    """Envoy's endpoints for so many requests, and ours, are from the same distribution; ours is returned."""
    ours, client = plans(clusters, local), EnvoyClient(server.port)
    different = []
    for values in compared:
        name = values["name"]
        theirs, mine = client.picks(name, REQUESTS), picks(ours[name], PICKS)
        statistic, degrees = chi_squared(theirs, mine)
        if statistic > critical_value(degrees):
            different.append((name, values, theirs, {key: value * REQUESTS // PICKS for key, value in mine.items()}))
    client.close()
    assert different == []
    return ours


def spread(rng: random.Random, ports: list[int], zones: str, health: tuple[str, ...]) -> list[dict[str, Any]]:
    """The backends in some of the zones."""
    left = rng.sample(ports, rng.randint(4, BACKENDS))
    members: dict[str, list[Any]] = {}
    for port in left:
        members.setdefault(rng.choice(zones), []).append((port, rng.choice(health), rng.choice((1, 1, 1, 3))))
    return [group(ZONE if zone == "h" else zone, hosts) for zone, hosts in members.items()]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_zones(envoy: Callable[..., EnvoyServer], ports: list[int], seed: int) -> None:
    rng = random.Random(seed)
    callers = cluster("callers", [group(ZONE, [(1, "HEALTHY", 1)] * rng.randint(1, 3)),
                                  group("x", [(1, "HEALTHY", 1)] * 2), group("y", [(1, "HEALTHY", 1)])])  # fmt: skip
    for number, endpoint in enumerate(
        e for part in callers["load_assignment"]["endpoints"] for e in part["lb_endpoints"]
    ):
        endpoint["endpoint"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1 + number}}}
    upstreams = []
    for number in range(14):
        zone_aware: dict[str, Any] = {}
        if rng.random() < 0.3:
            zone_aware["routing_enabled"] = {"value": rng.choice((0, 30, 70))}
        if rng.random() < 0.4:
            zone_aware["min_cluster_size"] = rng.choice((1, 3, 9))
        if rng.random() < 0.3:
            zone_aware["fail_traffic_on_panic"] = True
        common: dict[str, Any] = {"zone_aware_lb_config": zone_aware} if zone_aware else {}
        health = rng.choice((("HEALTHY",), SICK))
        groups = spread(rng, ports, rng.choice(("hx", "hxy", "hxyz", "xy")), health)
        upstreams.append(cluster(f"u{number}", groups, lb_policy=rng.choice(POLICIES), common_lb_config=common))
    everything = [*upstreams, callers]
    server = envoy(bootstrap(everything, "callers"))
    ours = same_shares(server, everything, upstreams, "callers")
    for values in upstreams:
        envoys = server.stats(f"^cluster.{values['name']}.lb_(zone|local)")
        theirs = {key.rpartition(".")[2] for key, value in envoys.items() if value}
        mine = {key for key, count in ours[values["name"]].stats.items() if count.value}
        assert theirs & ROUTED == mine & ROUTED, values


ROUTED = {"lb_zone_routing_all_directly", "lb_zone_routing_sampled", "lb_zone_routing_cross_zone"}


def children(rng: random.Random, ports: list[int], name: str) -> dict[str, Any]:
    """A cluster of one to three priorities, in any health."""
    groups, policy = [], rng.choice((*POLICIES, "RING_HASH"))
    # Envoy's hash tables have no degraded hosts, and answer 503 where there are no others; ours use them then.
    health = tuple(status for status in SICK if status != "DEGRADED") if policy == "RING_HASH" else SICK
    left = rng.sample(ports, BACKENDS)  # an address twice in a cluster is another matter: by EDS it counts once
    for priority in range(rng.randint(1, 3)):
        hosts = [(left.pop(), rng.choice(health), rng.choice((1, 1, 2))) for _ in range(rng.randint(1, 4))]
        groups.append(group("", hosts, priority))
    return cluster(
        name,
        groups,
        rng.choice((140, 140, 100, 200)),
        lb_policy=policy,
        common_lb_config={"healthy_panic_threshold": {"value": rng.choice((50, 50, 0, 30, 80))}},
        policy={"weighted_priority_health": rng.random() < 0.3},
    )


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_aggregates_and_priorities(envoy: Callable[..., EnvoyServer], ports: list[int], seed: int) -> None:
    rng = random.Random(seed)
    leaves = [children(rng, ports, f"c{number}") for number in range(12)]
    leaves.append(cluster("empty", []))
    names = [values["name"] for values in leaves] + ["missing"]
    rows = [
        aggregate(
            f"a{number}",
            rng.sample(names, rng.randint(1, 4)),
            common_lb_config={"healthy_panic_threshold": {"value": rng.choice((50, 50, 0, 100))}},
        )
        for number in range(12)
    ]
    everything = [*leaves, *rows]
    same_shares(envoy(bootstrap(everything)), everything, [*rows, *leaves[:6]])


def test_what_an_aggregate_of_aggregates_is_to_envoy_and_to_us(
    envoy: Callable[..., EnvoyServer], ports: list[int]
) -> None:
    """Envoy takes the hosts of the clusters named, and an aggregate has none of its own: gRPC (A37) and we go on."""
    leaf = cluster("leaf", [group("", [(ports[0], "HEALTHY", 1)])])
    everything = [leaf, aggregate("inner", ["leaf"]), aggregate("outer", ["inner"])]
    client = EnvoyClient(envoy(bootstrap(everything)).port)
    assert client.pick("inner") is not None
    assert client.pick("outer") is None
    client.close()
    assert picks(plans(everything)["outer"], 1) == {f"127.0.0.1:{ports[0]}": 1}

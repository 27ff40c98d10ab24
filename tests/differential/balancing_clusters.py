"""Clusters for the tests of balancing against Envoy: put together by hand, or drawn."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from differential.balancing_envoy import EnvoyClient, our_balancer, our_hash
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshlib.model.lb import LbPolicy
from meshlib.model.metadata import EMPTY_METADATA, EMPTY_STRUCT, Metadata

BACKENDS = 10
HEALTH = ("HEALTHY", "UNKNOWN", "HEALTHY", "DEGRADED", "UNHEALTHY", "DRAINING", "TIMEOUT")
Start = Callable[..., EnvoyClient]


def endpoint(port: int, weight: int = 1, health: Any = "HEALTHY", hostname: str = "", key: str = "") -> LbEndpoint:
    metadata = Metadata.of({"envoy.lb": {"hash_key": key}}) if key else EMPTY_METADATA
    return LbEndpoint(Address("127.0.0.1", port), weight, health, hostname, metadata)


def cluster(name: str, policy: LbPolicy, *groups: LocalityLbEndpoints, **fields: Any) -> Cluster:
    return Cluster(name, load_assignment=ClusterLoadAssignment(name, groups), lb_policy=policy, **fields)


def group(endpoints: Sequence[LbEndpoint], zone: str = "", priority: int = 0, weight: int | None = None) -> Any:
    return LocalityLbEndpoints(tuple(endpoints), Locality(zone=zone), priority, weight)


PORTS = st.permutations(range(BACKENDS))  # which of the fixture's ports
ENDPOINTS = st.lists(st.tuples(st.sampled_from((1, 1, 2, 5)), st.sampled_from(HEALTH)), min_size=1, max_size=4)
GROUPS = st.lists(  # one a locality: priority, zone, weight, endpoints
    st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.sampled_from((None, 1, 3, 7)), ENDPOINTS),
    min_size=1,
    max_size=5,
    unique_by=lambda drawn: drawn[:2],
)
PANIC = st.sampled_from((50.0, 50.0, 0.0, 30.0))


def drawn_cluster(
    policy: LbPolicy, order: Sequence[int], groups: Any, panic: float, by_locality: bool
) -> Callable[[str, list[int]], Cluster]:
    """A cluster with any mix of weights, health, localities and priorities, once its name and ports are known."""

    def made(name: str, ports: list[int]) -> Cluster:
        left = [ports[number] for number in order]
        used = sorted({priority for priority, *_ in groups})  # Envoy wants them without gaps
        localities = []
        for priority, zone, weight, members in groups:
            taken = [(left.pop(), *member) for member in members if left]
            localities.append(group([endpoint(*one) for one in taken], zone, used.index(priority), weight))
        return cluster(name, policy, *localities, healthy_panic_threshold=panic, locality_weighted=by_locality)

    return made


def drawn_clusters(policies: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[Any]:
    """Several, because an Envoy is started for each example."""
    one = st.builds(drawn_cluster, policies, PORTS, GROUPS, PANIC, st.booleans())
    return st.lists(one, min_size=count, max_size=count)


# The first example hypothesis makes is the simplest there is; nothing is shrunk, because each step starts an Envoy.
drawn = settings(
    max_examples=3,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
many = settings(drawn, max_examples=40, derandomize=False)  # of a soak


def by_hash(client: EnvoyClient, made: Cluster, keys: Sequence[str]) -> tuple[list[str | None], list[str | None]]:
    """(Envoy's endpoints, ours) for the keys."""
    balancer, rng = our_balancer(made), random.Random(0)
    ours = [balancer.pick(our_hash(key), EMPTY_STRUCT, rng) for key in keys]
    return [client.pick(made.name, key) for key in keys], [host.address if host else None for host in ours]

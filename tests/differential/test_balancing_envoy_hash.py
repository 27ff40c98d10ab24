"""Against a real Envoy, endpoint for endpoint: ring hash, Maglev, and both with bounded loads."""

import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from differential.balancing_clusters import Start, by_hash, cluster, drawn, drawn_clusters, endpoint, group, many
from differential.balancing_envoy import bootstrap, our_balancer, our_hash
from meshlib.balancing.base import Host
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.model.cluster import Cluster
from meshlib.model.lb import LbPolicy, Maglev, RingHash
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.state.cells import ClusterState
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply, Request

PREVIOUS_HOSTS = {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}

pytestmark = pytest.mark.needs("envoy")

RINGS = st.builds(
    lambda minimum, at_most, function: RingHash(minimum, max(minimum, at_most), function),
    st.sampled_from((1, 10, 333, 1024)),
    st.sampled_from((1, 8_388_608)),
    st.sampled_from(("XX_HASH", "MURMUR_HASH_2")),
)
TABLES = st.builds(Maglev, st.sampled_from((2, 5, 11, 251, 65537)))


def both(**fields: Any) -> tuple[tuple[str, LbPolicy], ...]:
    return ("ring", RingHash(**fields)), ("table", Maglev(**fields))


def test_a_request_goes_to_the_same_endpoint(start: Start, ports: list[int]) -> None:
    weights = (1, 2, 3, 5, 8, 13, 1, 1, 100, 7)
    weighted = group([endpoint(port, weight) for port, weight in zip(ports, weights, strict=True)])
    clusters = [
        cluster("small", RingHash(minimum_ring_size=7, maximum_ring_size=16), weighted),
        cluster("large", RingHash(minimum_ring_size=20_000), weighted),
        cluster("murmur", RingHash(hash_function="MURMUR_HASH_2"), weighted),
        cluster("small table", Maglev(11), weighted),
        cluster("large table", Maglev(1_000_003), weighted),  # not the compact representation of ours, nor of Envoy's
    ]
    for name, policy in both():
        clusters += [
            cluster(f"{name} plain", policy, group([endpoint(port) for port in ports])),
            cluster(f"{name} one", policy, group([endpoint(ports[0])])),
            cluster(f"{name} weighted", policy, weighted),
            cluster(f"{name} keys", policy, group([endpoint(port, key=f"shard-{n}") for n, port in enumerate(ports)])),
            cluster(
                f"{name} localities",
                policy,
                group([endpoint(port, 3) for port in ports[:4]], "b", weight=2),
                group([endpoint(port) for port in ports[4:7]], "a", weight=5),
                group([endpoint(port) for port in ports[7:]], "c"),
                locality_weighted=True,
            ),
            cluster(
                f"{name} priorities",
                policy,
                group([endpoint(port, health="HEALTHY" if n < 2 else "UNHEALTHY") for n, port in enumerate(ports[:5])]),
                group([endpoint(port) for port in ports[5:]], priority=1),
            ),
            cluster(f"{name} panic", policy, group([endpoint(port, health="UNHEALTHY") for port in ports])),
            cluster(
                f"{name} degraded in panic",
                policy,
                group([endpoint(port, health="UNHEALTHY" if n else "DEGRADED") for n, port in enumerate(ports[:6])]),
                group(
                    [endpoint(port, health="HEALTHY" if n < 2 else "UNHEALTHY") for n, port in enumerate(ports[6:])],
                    priority=1,
                ),
            ),
        ]
    for name, policy in both(use_hostname_for_hashing=True):
        named = [endpoint(port, hostname=f"host-{number}.example") for number, port in enumerate(ports)]
        # STRICT_DNS is the only type for which Envoy hashes hostnames
        clusters.append(cluster(f"{name} hostnames", policy, group(named), type="STRICT_DNS"))
    client = start(clusters)
    keys = [f"user-{number}" for number in range(200)]
    for made in clusters:
        theirs, ours = by_hash(client, made, keys)
        assert ours == theirs, made.name


GIVEN = {
    "made": drawn_clusters(st.one_of(RINGS, TABLES), 24),
    "keys": st.lists(
        st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), min_size=40, max_size=40
    ),
}


def same_endpoints(start: Start, ports: list[int], made: Any, keys: list[str]) -> None:
    clusters = [make(f"c{number}", ports) for number, make in enumerate(made)]
    client = start(clusters)
    for one in clusters:
        theirs, ours = by_hash(client, one, keys)
        different = [(key, them, us) for key, them, us in zip(keys, theirs, ours, strict=True) if them != us]
        # Envoy's tables never hold degraded hosts, and answer 503 where there is no other; ours uses them then.
        different = [(key, them, us) for key, them, us in different if them is not None or us not in degraded(one)]
        assert not different, one


@drawn
@given(**GIVEN)
def test_generated_clusters_go_to_the_same_endpoint(start: Start, ports: list[int], made: Any, keys: list[str]) -> None:
    same_endpoints(start, ports, made, keys)


@pytest.mark.slow
@many
@given(**GIVEN)
def test_many_generated_clusters_go_to_the_same_endpoint(
    start: Start, ports: list[int], made: Any, keys: list[str]
) -> None:
    same_endpoints(start, ports, made, keys)


@pytest.mark.parametrize("policy", [RingHash(), Maglev(), Maglev(251, hash_balance_factor=200)])
def test_retries_move_on_to_the_same_endpoints(
    start: Start, fast_backend: Callable[..., FastBackend], policy: LbPolicy
) -> None:
    backends = [fast_backend("?", Reply(500, b"")) for _ in range(5)]
    made = cluster("c", policy, group([endpoint(backend.port) for backend in backends]))
    retry = {
        "retry_on": "5xx",
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.001s"},
        "retry_host_predicate": [
            {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": PREVIOUS_HOSTS}
        ],
        "host_selection_retry_max_attempts": 3,
    }
    client = start([made], retry=retry)
    keys = [f"user-{number}" for number in range(60)]
    for key in keys:
        client.pick(made.name, key)
    theirs: dict[tuple[str | None, str | None], str] = {
        (request.header("x-key"), request.header("x-envoy-attempt-count")): backend.address
        for backend in backends
        for request in backend.requests
    }
    balancer, rng = our_balancer(made), random.Random(0)
    for key in keys:
        tried: list[Host] = []
        for attempt in (1, 2, 3):
            host = balancer.pick(our_hash(key), EMPTY_STRUCT, rng, tried, 3 if tried else 0)
            assert host is not None
            assert host.address == theirs[key, str(attempt)], (key, attempt)
            tried.append(host)


def degraded(made: Cluster) -> set[str]:
    assert made.load_assignment is not None
    every = (host for locality in made.load_assignment.localities for host in locality.endpoints)
    return {str(host.address) for host in every if host.health_status == "DEGRADED"}


def test_only_degraded_hosts_is_where_we_differ_from_envoys_tables(start: Start, ports: list[int]) -> None:
    clusters = [cluster(name, policy, group([endpoint(ports[0], health="DEGRADED")])) for name, policy in both()]
    client = start(clusters)
    for made in clusters:
        theirs, ours = by_hash(client, made, ["a", "b"])
        assert theirs == [None, None]
        assert ours == [f"127.0.0.1:{ports[0]}"] * 2


# ---------------------------------------------------------------------------------------- bounded loads


class Held:
    """Requests that are in flight in both: Envoy's are never answered, ours are put into the state."""

    def __init__(self, server: EnvoyServer, backends: Sequence[FastBackend], made: Cluster) -> None:
        self.server, self.backends, self.made = server, backends, made
        self.state = ClusterState(made.name)
        self.balancer = ClusterBalancer(made, None, self.state)
        self.open: list[tuple[socket.socket, Host]] = []

    def hold(self, key: str) -> tuple[str, str]:
        """(Envoy's endpoint, ours) for one more request."""
        before = [backend.count for backend in self.backends]
        connection = socket.create_connection(("127.0.0.1", self.server.port))
        connection.sendall(f"GET / HTTP/1.1\r\nhost: a\r\nx-cluster: {self.made.name}\r\nx-key: {key}\r\n\r\n".encode())
        self.server.wait_for(lambda: sum(b.count for b in self.backends) > sum(before), "the request to arrive")
        (theirs,) = (b.address for b, old in zip(self.backends, before, strict=True) if b.count > old)
        host = self.balancer.pick(our_hash(key), EMPTY_STRUCT, random.Random(0))
        assert host is not None
        host.cell.live[connection] = None
        self.state.default.requests[connection] = None
        self.open.append((connection, host))
        return theirs, host.address

    def end(self, count: int) -> None:
        """The oldest requests are over."""
        for connection, host in self.open[:count]:
            connection.close()
            del host.cell.live[connection], self.state.default.requests[connection]
        del self.open[:count]
        name = f"cluster.{self.made.name}.upstream_rq_active"
        self.server.wait_for(lambda: self.server.stats(name)[name] == len(self.open), "Envoy to see them end")


def _hang(request: Request) -> Reply:
    return Reply(fault="hang")


@pytest.mark.parametrize("policy", [RingHash(hash_balance_factor=100), Maglev(hash_balance_factor=125)])
def test_bounded_loads_hand_requests_on_to_the_same_endpoints(
    envoy: Callable[..., EnvoyServer], fast_backend: Callable[..., FastBackend], policy: RingHash | Maglev
) -> None:
    backends = [fast_backend("?", _hang) for _ in range(7)]
    weights = (1, 1, 2, 5, 1, 3, 1)
    made = cluster("c", policy, group([endpoint(b.port, w) for b, w in zip(backends, weights, strict=True)]))
    held = Held(envoy(bootstrap([made])), backends, made)
    drawn_keys = random.Random(7)
    keys = [f"user-{drawn_keys.randrange(4)}" for _ in range(90)]
    pairs = [held.hold(key) for key in keys[:60]]
    held.end(35)
    pairs += [held.hold(key) for key in keys[60:]]
    held.end(len(held.open))
    assert [ours for _, ours in pairs] == [theirs for theirs, _ in pairs]
    # 4 keys cannot be within their endpoints' bounds with these weights, wherever the hash puts them.
    unbounded, rng = our_balancer(replace(made, lb_policy=replace(policy, hash_balance_factor=0))), random.Random(0)
    alone = [unbounded.pick(our_hash(key), EMPTY_STRUCT, rng) for key in keys]
    assert [ours for _, ours in pairs] != [host.address for host in alone if host is not None]

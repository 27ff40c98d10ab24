"""Against a real Envoy: ring hash endpoint for endpoint, the other policies by their shares."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from differential.balancing_envoy import EnvoyClient, bootstrap, chi_squared, critical_value, our_balancer, our_hash
from meshlib.balancing.base import Host
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshlib.model.lb import LbPolicy, LbSubsetConfig, LeastRequest, Random, RingHash, RoundRobin, SubsetSelector
from meshlib.model.metadata import EMPTY_METADATA, EMPTY_STRUCT, Metadata, Struct
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply

PREVIOUS_HOSTS = {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}
BACKENDS = 10
Start = Callable[..., EnvoyClient]

HEALTH = ("HEALTHY", "UNKNOWN", "HEALTHY", "DEGRADED", "UNHEALTHY", "DRAINING", "TIMEOUT")
REQUESTS = 1_000
EMPTY = Reply(body=b"")

pytestmark = pytest.mark.needs("envoy")


@pytest.fixture
def ports(fast_backend: Callable[..., FastBackend]) -> list[int]:
    """The backends' ports; each is named by its address."""
    return [_named(fast_backend("?", EMPTY)).port for _ in range(BACKENDS)]


def _named(backend: FastBackend) -> FastBackend:
    backend.name = backend.address
    return backend


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


RINGS = st.builds(
    lambda minimum, at_most, function: RingHash(minimum, max(minimum, at_most), function),
    st.sampled_from((1, 10, 333, 1024)),
    st.sampled_from((1, 8_388_608)),
    st.sampled_from(("XX_HASH", "MURMUR_HASH_2")),
)
# The first example hypothesis makes is the simplest there is; nothing is shrunk, because each step starts an Envoy.
drawn = settings(
    max_examples=3,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def start(envoy: Callable[..., EnvoyServer]) -> Iterator[Start]:
    """`start(clusters, ...)`: a client of one Envoy with that `bootstrap`."""
    clients: list[EnvoyClient] = []

    def begin(clusters: Sequence[Cluster], **fields: Any) -> EnvoyClient:
        clients.append(EnvoyClient(envoy(bootstrap(clusters, **fields)).port))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


# ---------------------------------------------------------------------------------------- ring hash, exactly


def by_hash(client: EnvoyClient, made: Cluster, keys: Sequence[str]) -> tuple[list[str | None], list[str | None]]:
    """(Envoy's endpoints, ours) for the keys."""
    balancer, rng = our_balancer(made), random.Random(0)
    ours = [balancer.pick(our_hash(key), EMPTY_STRUCT, rng) for key in keys]
    return [client.pick(made.name, key) for key in keys], [host.address if host else None for host in ours]


def test_ring_hash_goes_to_the_same_endpoint(start: Start, ports: list[int]) -> None:
    weights = (1, 2, 3, 5, 8, 13, 1, 1, 100, 7)
    plain = group([endpoint(port) for port in ports])
    weighted = group([endpoint(port, weight) for port, weight in zip(ports, weights, strict=True)])
    clusters = [
        cluster("plain", RingHash(), plain),
        cluster("one", RingHash(), group([endpoint(ports[0])])),
        cluster("weighted", RingHash(), weighted),
        cluster("small", RingHash(minimum_ring_size=7, maximum_ring_size=16), weighted),
        cluster("large", RingHash(minimum_ring_size=20_000), weighted),
        cluster("murmur", RingHash(hash_function="MURMUR_HASH_2"), weighted),
        cluster(
            "hostnames",
            RingHash(use_hostname_for_hashing=True),
            group([endpoint(port, hostname=f"host-{number}.example") for number, port in enumerate(ports)]),
            type="STRICT_DNS",  # the only type for which Envoy hashes hostnames
        ),
        cluster("keys", RingHash(), group([endpoint(port, key=f"shard-{n}") for n, port in enumerate(ports)])),
        cluster(
            "localities",
            RingHash(),
            group([endpoint(port, 3) for port in ports[:4]], "b", weight=2),
            group([endpoint(port) for port in ports[4:7]], "a", weight=5),
            group([endpoint(port) for port in ports[7:]], "c"),
            locality_weighted=True,
        ),
        cluster(
            "priorities",
            RingHash(),
            group([endpoint(port, health="HEALTHY" if n < 2 else "UNHEALTHY") for n, port in enumerate(ports[:5])]),
            group([endpoint(port) for port in ports[5:]], priority=1),
        ),
        cluster("panic", RingHash(), group([endpoint(port, health="UNHEALTHY") for port in ports])),
        cluster(
            "degraded in panic",
            RingHash(),
            group([endpoint(port, health="UNHEALTHY" if n else "DEGRADED") for n, port in enumerate(ports[:6])]),
            group(
                [endpoint(port, health="HEALTHY" if n < 2 else "UNHEALTHY") for n, port in enumerate(ports[6:])],
                priority=1,
            ),
        ),
    ]
    client = start(clusters)
    keys = [f"user-{number}" for number in range(300)]
    for made in clusters:
        theirs, ours = by_hash(client, made, keys)
        assert ours == theirs, made.name


@drawn
@given(
    made=drawn_clusters(RINGS, 16),
    keys=st.lists(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), min_size=40, max_size=40),
)
def test_generated_ring_hash_clusters_go_to_the_same_endpoint(
    start: Start, ports: list[int], made: Any, keys: list[str]
) -> None:
    clusters = [make(f"c{number}", ports) for number, make in enumerate(made)]
    client = start(clusters)
    for one in clusters:
        theirs, ours = by_hash(client, one, keys)
        different = [(key, them, us) for key, them, us in zip(keys, theirs, ours, strict=True) if them != us]
        # Envoy's tables never hold degraded hosts, and answer 503 where there is no other; ours uses them then.
        different = [(key, them, us) for key, them, us in different if them is not None or us not in degraded(one)]
        assert not different, one


def test_retries_move_along_the_ring_to_the_same_endpoints(
    start: Start, fast_backend: Callable[..., FastBackend]
) -> None:
    backends = [_named(fast_backend("?", Reply(500, b""))) for _ in range(5)]
    made = cluster("ring", RingHash(), group([endpoint(backend.port) for backend in backends]))
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
        (request.header("x-key"), request.header("x-envoy-attempt-count")): backend.name
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


def test_only_degraded_hosts_is_where_we_differ_from_envoys_ring(start: Start, ports: list[int]) -> None:
    made = cluster("degraded", RingHash(), group([endpoint(ports[0], health="DEGRADED")]))
    client = start([made])
    theirs, ours = by_hash(client, made, ["a", "b"])
    assert theirs == [None, None]
    assert ours == [f"127.0.0.1:{ports[0]}"] * 2


# ---------------------------------------------------------------------------------------- shares of the load


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


@drawn
@given(made=drawn_clusters(st.sampled_from((RoundRobin(), LeastRequest())), 5))
def test_generated_priorities_localities_health_and_panic_have_the_same_effect(
    start: Start, ports: list[int], made: Any
) -> None:
    clusters = [make(f"c{number}", ports) for number, make in enumerate(made)]
    client = start(clusters)
    for one in clusters:
        same_shares(client, one)


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


# ---------------------------------------------------------------------------------------- subsets


def test_subsets_and_fallbacks_give_the_same_endpoints(start: Start, ports: list[int]) -> None:
    labels: list[dict[str, object]] = [
        {"version": "v1", "stage": "prod"},
        {"version": "v2", "stage": "prod"},
        {"version": "v2", "stage": "test"},
        {"version": "v2", "canary": True},
        {"canary": 1, "stage": "prod"},
        {},
    ]
    endpoints = [
        LbEndpoint(Address("127.0.0.1", port), metadata=Metadata.of({"envoy.lb": label}), health_status=health)
        for port, label, health in zip(ports, labels, ("UNHEALTHY", *["HEALTHY"] * 5), strict=False)
    ]
    selectors = tuple(map(SubsetSelector, (("version",), ("stage", "version"), ("canary",))))
    defaults = ({}, {"stage": "prod"}, {"stage": "nowhere"})
    configs = [
        LbSubsetConfig(selectors, "NO_FALLBACK"),
        LbSubsetConfig(selectors, "ANY_ENDPOINT"),
        *(LbSubsetConfig(selectors, "DEFAULT_SUBSET", Struct.of(default)) for default in defaults),
        LbSubsetConfig((), "NO_FALLBACK"),
    ]
    clusters = [
        cluster(f"subsets-{number}", RoundRobin(), group(endpoints), subsets=config)
        for number, config in enumerate(configs)
    ]
    criteria = [
        Struct.of(wanted)
        for wanted in (
            {"version": "v1"},
            {"version": "v2"},
            {"version": "v2", "stage": "test"},
            {"version": "v3"},
            {"stage": "prod"},
            {"canary": True},
            {"canary": 1},
            {"version": "v1", "other": "x"},
            {},
        )
    ]
    client = start(clusters, criteria=criteria)
    for made in clusters:
        balancer, rng = our_balancer(made), random.Random(0)
        for number, wanted in enumerate(criteria):
            theirs = {client.pick(made.name, criteria=str(number)) for _ in range(12)}
            picks = (balancer.pick(None, wanted, rng) for _ in range(12))
            assert {host and host.address for host in picks} == theirs, (made.subsets, wanted)

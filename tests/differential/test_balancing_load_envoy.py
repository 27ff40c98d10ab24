"""Against a real Envoy: balancers that go by weights, by requests in flight, by time and by reported load.

One cluster message for both: Envoy gets it as it is, ours is decoded from it.
"""

import base64
import http.client
import importlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from differential.balancing_envoy import HCM, ROUTER, chi_squared, critical_value
from meshlib.balancing.client_side import take_in
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.model.cluster import Cluster
from meshlib.model.lb import ClientSideWeightedRoundRobin
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.model.orca import LoadReport
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import CLUSTER
from meshlib.state.cells import ClusterState
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend, Reply, Request
from parts.xds_resources import message

pytestmark = pytest.mark.needs("envoy")

EXTENSIONS = "type.googleapis.com/envoy.extensions.load_balancing_policies."
Json = dict[str, Any]


class Client:
    """Asks Envoy over one kept connection; the name of the backend that answers is its port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def pick(self, cluster: str, **headers: str) -> str:
        self._connection.request("GET", "/", headers={"x-cluster": cluster, **headers})
        response = self._connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        return str(response.headers["x-backend"])

    def picks(self, cluster: str, count: int, **headers: str) -> list[str]:
        return [self.pick(cluster, **headers) for _ in range(count)]

    def hold(self, cluster: str) -> http.client.HTTPConnection:
        """A request whose answer is not waited for."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/", headers={"x-cluster": cluster, "x-hold": "1"})
        return connection

    def close(self) -> None:
        self._connection.close()


def answer(request: Request) -> Reply:
    """Every answer says what the request wants it to say of the load; one that is held never comes."""
    if request.header("x-hold"):
        return Reply(fault="hang")
    return Reply(body=b"")


def cluster(name: str, ports: Sequence[int], policy: str, config: Json, weights: Sequence[int] = ()) -> Json:
    extension = {"name": policy, "typed_config": {"@type": f"{EXTENSIONS}{policy}", **config}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_balancing_policy": {"policies": [{"typed_extension_config": extension}]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints(ports, weights)}]},
    }


def endpoints(ports: Sequence[int], weights: Sequence[int] = ()) -> list[Json]:
    return [
        {
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
            "load_balancing_weight": weight,
        }
        for port, weight in zip(ports, weights or [1] * len(ports), strict=True)
    ]


def bootstrap(clusters: Sequence[Json]) -> Json:
    manager = {
        "@type": HCM,
        "stat_prefix": "test",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": ROUTER}],
    }
    listener = {
        "name": "test",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "node": {"id": "test", "cluster": "test"},
        "static_resources": {"listeners": [listener], "clusters": list(clusters)},
    }


@pytest.fixture
def backends(fast_backend: Callable[..., FastBackend]) -> list[FastBackend]:
    made = [fast_backend("?", answer) for _ in range(5)]
    for backend in made:
        backend.name = str(backend.port)
    return made


@pytest.fixture
def start(envoy: Callable[..., EnvoyServer]) -> Iterator[Callable[[Sequence[Json]], Client]]:
    clients: list[Client] = []

    def begin(clusters: Sequence[Json]) -> Client:
        clients.append(Client(envoy(bootstrap(clusters)).port))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


class Ours:
    """The same cluster in ours, with a clock of its own."""

    def __init__(self, config: Json, seed: int = 1) -> None:
        for kind in ("round_robin", "least_request", "client_side_weighted_round_robin"):
            importlib.import_module(f"envoy.extensions.load_balancing_policies.{kind}.v3.{kind}_pb2")
        decoded = decode_message(message(CLUSTER, config))
        assert not decoded.issues, decoded.issues
        assert isinstance(decoded.resource, Cluster)
        self.cluster = decoded.resource
        self.state = ClusterState(self.cluster.name)
        self.rng = random.Random(seed)
        self.balancer = ClusterBalancer(self.cluster, None, self.state)

    def picks(self, count: int) -> list[str]:
        hosts = (self.balancer.pick(None, EMPTY_STRUCT, self.rng) for _ in range(count))
        return [host.address.rpartition(":")[2] if host else "" for host in hosts]

    def hold(self, port: int, requests: int) -> None:
        self.state.endpoint(f"127.0.0.1:{port}").live.update(dict.fromkeys(range(requests)))

    def at(self, now: float) -> "Ours":
        self.balancer.tick(now)
        return self


def same(theirs: Sequence[str], ours: Sequence[str], what: object) -> None:
    statistic, degrees = chi_squared(Counter(theirs), Counter(ours))
    assert statistic <= critical_value(degrees), (what, Counter(theirs), Counter(ours))


# ---------------------------------------------------------------------------------------- round robin, by turns


def edf(weights: Sequence[int], count: int) -> list[int]:
    """The turns of an earliest-deadline-first schedule, exactly; of equal deadlines the one set first."""
    heap = [(Fraction(1, weight), order, index) for order, (index, weight) in enumerate(enumerate(weights))]
    heapify(heap)
    turns, order = [], len(heap)
    for _ in range(count):
        now, _, index = heappop(heap)
        heappush(heap, (now + Fraction(1, weights[index]), order, index))
        order += 1
        turns.append(index)
    return turns


def follows(turns: Sequence[int], weights: Sequence[int], before: Sequence[int]) -> bool:
    """Whether each turn is that of a host whose deadline is the earliest, after the turns `before`. Which of equal
    deadlines comes first depends on the rounding of Envoy's sums.
    """
    deadlines = [Fraction(before.count(index) + 1, weight) for index, weight in enumerate(weights)]
    for turn in turns:
        if deadlines[turn] != min(deadlines):
            return False
        deadlines[turn] += Fraction(1, weights[turn])
    return True


def gaps(turns: Sequence[int], index: int) -> list[int]:
    places = [place for place, turn in enumerate(turns) if turn == index]
    return [after - before for before, after in pairwise(places)]


WEIGHTS = [(1, 2), (1, 2, 5), (5, 1, 1), (3, 4, 7, 2, 1), (1, 1, 1, 5), (10, 1), (9, 8, 7), (50, 20, 1, 3, 3)]


def test_weighted_round_robin_has_the_turns_of_envoys_schedule(
    start: Callable[..., Client], backends: list[FastBackend]
) -> None:
    ports = [backend.port for backend in backends]
    cases = {f"w{'-'.join(map(str, weights))}": weights for weights in WEIGHTS}
    configs = [
        cluster(name, ports[: len(weights)], "round_robin.v3.RoundRobin", {}, weights)
        for name, weights in cases.items()
    ]
    client = start(configs)
    for config, (name, weights) in zip(configs, cases.items(), strict=True):
        period = sum(weights)
        theirs = [ports.index(int(port)) for port in client.picks(name, 3 * period)]
        known = edf(weights, 5 * period)
        # Before the first request Envoy lets a random number of turns go by.
        assert any(follows(theirs, weights, known[:begin]) for begin in range(period)), (name, theirs)
        ours = [ports.index(int(port)) for port in Ours(config).picks(3 * period)]
        for begin in range(0, 3 * period, period):
            assert Counter(ours[begin : begin + period]) == dict(enumerate(weights)), name
        for index, weight in enumerate(weights):  # intervals as even as the schedule's, or more
            if weight > 1:
                assert max(gaps(ours, index)) <= max(gaps(known, index)) + 1, (name, index)


# ---------------------------------------------------------------------------------------- least request


LEAST = "least_request.v3.LeastRequest"
LEAST_REQUESTS: dict[str, tuple[Json, Sequence[int]]] = {
    "two": ({}, ()),
    "four": ({"choice_count": 4}, ()),
    "full": ({"selection_method": "FULL_SCAN"}, ()),
    "weights": ({}, (6, 2, 1)),
    "no-bias": ({"active_request_bias": {"default_value": 0.0, "runtime_key": "x"}}, (6, 2, 1)),
    "half-bias": ({"active_request_bias": {"default_value": 0.5, "runtime_key": "x"}}, (6, 2, 1)),
    "double-bias": ({"active_request_bias": {"default_value": 2.0, "runtime_key": "x"}}, (6, 2, 1)),
    "large-bias": ({"active_request_bias": {"default_value": 300.0, "runtime_key": "x"}}, (6, 2, 1)),
}


def test_requests_in_flight_count_as_in_envoy(start: Callable[..., Client], backends: list[FastBackend]) -> None:
    """Requests are held at whichever endpoints Envoy chooses; then ours has the same in flight, and both pick."""
    ports = [backend.port for backend in backends[:3]]
    configs = {name: cluster(name, ports, LEAST, config, weights) for name, (config, weights) in LEAST_REQUESTS.items()}
    client = start(list(configs.values()))
    for name, config in configs.items():
        for backend in backends:
            backend.requests.clear()
        connections = []
        for number in range(1, 5):
            connections.append(client.hold(name))
            _until(lambda number=number: sum(backend.count for backend in backends) == number)  # type: ignore[misc]
        ours, held = Ours(config), {str(backend.port): backend.count for backend in backends[:3]}
        for port, requests in held.items():
            ours.hold(int(port), requests)
        theirs = client.picks(name, 600)
        if name in TWICE:  # where we differ: Envoy draws a host more than once, which ours does not with the first two
            same(theirs, with_replacement(held, TWICE[name], 600), (name, held))
            busiest = max(held, key=held.__getitem__)
            assert ours.picks(600).count(busiest) <= theirs.count(busiest) + 100, name
        else:
            same(theirs, ours.picks(600), (name, held))
        for connection in connections:
            connection.close()


TWICE = {"two": 2, "four": 4}
"""Choices among hosts of equal weights."""


def with_replacement(held: Mapping[str, int], choices: int, count: int) -> list[str]:
    rng, ports = random.Random(7), list(held)
    return [min(rng.choices(ports, k=choices), key=held.__getitem__) for _ in range(count)]


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# ---------------------------------------------------------------------------------------- load reports


UTILIZATIONS = (0.2, 0.4, 0.8)
REPORTS = [
    LoadReport(
        cpu_utilization=used,
        rps_fractional=1000.0,
        eps=300.0 * number,
        named_metrics={"queue": 0.9 - used},
    )
    for number, used in enumerate(UTILIZATIONS)
]


def _text(report: LoadReport) -> str:
    named = [f"named_metrics.{name}={value}" for name, value in report.named_metrics.items()]
    own = [f"{name}={getattr(report, name)}" for name in ("cpu_utilization", "rps_fractional", "eps")]
    return ",".join([*own, *named])


def _json(report: LoadReport) -> str:
    numbers = {name: getattr(report, name) for name in ("cpu_utilization", "rps_fractional", "eps")}
    return json.dumps({**numbers, "named_metrics": dict(report.named_metrics)})


FORMS: dict[str, Callable[[LoadReport], tuple[str, str]]] = {
    "bin": lambda report: ("endpoint-load-metrics-bin", report.to_header()),
    "bin-prefix": lambda report: ("endpoint-load-metrics", f"BIN {base64.b64encode(report.to_bytes()).decode()}"),
    "text": lambda report: ("endpoint-load-metrics", f"TEXT {_text(report)}"),
    "json": lambda report: ("endpoint-load-metrics", f"JSON {_json(report)}"),
}
QUICK = {"blackout_period": "0s", "weight_update_period": "0.1s"}
ONE = {"error_utilization_penalty": 1.0}
CLIENT_SIDE: dict[str, Json] = {
    **dict.fromkeys(FORMS, ONE),
    "penalty": {"error_utilization_penalty": 2.0},
    "no-penalty": {"error_utilization_penalty": 0.0},
    "named": {**ONE, "metric_names_for_computing_utilization": ["named_metrics.queue"]},
    "unknown-name": {**ONE, "metric_names_for_computing_utilization": ["named_metrics.nothing"]},
    "blackout": {**ONE, "blackout_period": "600s"},
}
UNSAID, BOTH = "unsaid", "both"  # both: as servers of this library do it in gRPC's trailers


def test_weights_from_load_reports(start: Callable[..., Client], backends: list[FastBackend]) -> None:
    ports = [backend.port for backend in backends[:3]]
    for backend, report in zip(backends, REPORTS, strict=False):
        backend.behave(_reporting(report))
    policy = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
    cases = {**CLIENT_SIDE, UNSAID: {}, BOTH: ONE}
    configs = {name: cluster(name, ports, policy, {**QUICK, **config}) for name, config in cases.items()}
    client = start(list(configs.values()))
    forms = {name: name if name in {*FORMS, BOTH} else "bin" for name in configs}
    for name in configs:
        client.picks(name, 12, **{"x-form": forms[name]})
    time.sleep(0.5)  # Envoy weighs its endpoints every 0.1 s
    for name in cases:
        client.picks(name, 30, **{"x-form": forms[name]})  # turns planned before the weights were known
        theirs = client.picks(name, 400, **{"x-form": forms[name]})
        # Its API says, as gRFC A58 does, that the penalty is 1.0 where it is not said; Envoy's code makes that 0.
        config = configs["no-penalty"] if name == UNSAID else configs[name]
        same(theirs, _reported(Ours(config), "bin" if name == BOTH else forms[name]).at(1.0).picks(400), name)


def test_the_penalty_of_errors_that_is_not_said_is_the_one_envoys_api_names() -> None:
    policy = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
    assert Ours(cluster("c", [1, 2], policy, {})).cluster.lb_policy == ClientSideWeightedRoundRobin()
    assert ClientSideWeightedRoundRobin().error_utilization_penalty == 1.0


def _reported(ours: Ours, form: str) -> Ours:
    policy = ours.cluster.lb_policy
    assert isinstance(policy, ClientSideWeightedRoundRobin)
    for host, report in zip(ours.balancer.hosts, REPORTS, strict=True):
        header, value = FORMS[form](report)
        binary, other = (value, None) if header.endswith("-bin") else (None, value)
        read = LoadReport.from_headers(binary, other)
        assert read is not None
        take_in(policy, host, read, 0.0)
    return ours


def _reporting(report: LoadReport) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        form = request.header("x-form") or "bin"
        forms = ("bin", "bin-prefix") if form == BOTH else (form,)
        return Reply(body=b"", headers=tuple(FORMS[one](report) for one in forms))

    return reply


# ---------------------------------------------------------------------------------------- slow start


WINDOW = 4.0
SLOW_START = {"slow_start_window": f"{WINDOW}s", "min_weight_percent": {"value": 60.0}}
WARMING = {
    "round-robin": ("round_robin.v3.RoundRobin", {"slow_start_config": SLOW_START}),
    "least-request": ("least_request.v3.LeastRequest", {"slow_start_config": SLOW_START}),
}


def _eds(path: Path, name: str, ports: Sequence[int]) -> Json:
    """A cluster whose endpoints are in a file; written beside and moved, as Envoy wants it."""
    resource = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": endpoints(ports)}],
    }
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"version_info": str(len(ports)), "resources": [resource]}))
    beside.rename(path)
    return {"eds_config": {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}}


@pytest.mark.slow  # it waits for a window to pass, twice
def test_an_endpoint_that_joins_begins_with_less(
    start: Callable[..., Client], backends: list[FastBackend], tmp_path: Path
) -> None:
    """At least 60 % of its weight, so that the figures are the same in more than the first half of the window."""
    ports = [backend.port for backend in backends[:3]]
    configs: Mapping[str, Json] = {
        name: cluster(name, ports, policy, config) for name, (policy, config) in WARMING.items()
    }
    files = {name: tmp_path / f"{name}.json" for name in configs}
    theirs = []
    for name, config in configs.items():
        source = _eds(files[name], name, ports[:2])
        theirs.append({**config, "type": "EDS", "eds_cluster_config": source, "load_assignment": None})
    client = start([{key: value for key, value in config.items() if value is not None} for config in theirs])
    begun = time.monotonic()
    ours = {name: Ours(config) for name, config in configs.items()}
    for name in configs:
        assert set(client.picks(name, 10)) == {str(port) for port in ports[:2]}
    time.sleep(max(0.0, begun + WINDOW + 0.3 - time.monotonic()))
    joined = {}
    for name in configs:
        _eds(files[name], name, ports)
        while str(ports[2]) not in client.picks(name, 6):
            assert time.monotonic() < begun + 20
        joined[name] = time.monotonic()
        found = client.picks(name, 500)
        if time.monotonic() - joined[name] > WINDOW * 0.55:
            pytest.skip("this machine took too long for the figures to be those of the window's first half")
        balancer = ours[name]
        for host in balancer.balancer.hosts:
            host.cell.seen_healthy = 0.0 if host.address.endswith(str(ports[2])) else -100.0
        same(found, balancer.at(WINDOW * 0.3).picks(500), name)
    time.sleep(max(0.0, max(joined.values()) + WINDOW + 0.3 - time.monotonic()))
    for name in configs:
        client.picks(name, 12)
        same(client.picks(name, 500), ours[name].at(WINDOW + 1).picks(500), name)


@pytest.mark.slow  # it waits for a window to pass
def test_an_endpoint_that_comes_back_from_ejection_has_its_full_weight(
    start: Callable[..., Client], backends: list[FastBackend]
) -> None:
    ports = [backend.port for backend in backends[:3]]
    slow = {"slow_start_window": "3s", "min_weight_percent": {"value": 10.0}}
    made = cluster("c", ports, "round_robin.v3.RoundRobin", {"slow_start_config": slow})
    ejecting = {"consecutive_5xx": 1, "interval": "0.2s", "base_ejection_time": "1s", "max_ejection_percent": 50}
    client = start([{**made, "outlier_detection": ejecting}])
    begun = time.monotonic()
    client.picks("c", 6)
    time.sleep(max(0.0, begun + 3.3 - time.monotonic()))
    backends[0].behave(Reply(503, body=b""))
    failing = http.client.HTTPConnection("127.0.0.1", client.port, timeout=10)
    statuses: list[int] = []
    while 503 not in statuses:
        failing.request("GET", "/", headers={"x-cluster": "c"})
        response = failing.getresponse()
        response.read()
        statuses.append(response.status)
    failing.close()
    backends[0].behave(answer)
    ejected = time.monotonic()
    while str(ports[0]) not in client.picks("c", 9):
        assert time.monotonic() < ejected + 20
    assert time.monotonic() - ejected > 0.5, "it was away"
    found = client.picks("c", 300)
    assert abs(found.count(str(ports[0])) - 100) <= 5, Counter(found)

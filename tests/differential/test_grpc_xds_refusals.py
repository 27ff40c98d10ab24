"""Odd route configurations in three places: the mesh refuses what Envoy refuses, and grpcio's `xds:///` what is said
here (`grpc_xds_differences`, 15).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from differential.grpc_xds_twin import World, route
from differential.routing_envoy import RefusedError, RoutingEnvoy
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import GrpcCall

Backends = Callable[[int], list[GrpcBackend]]
Json = dict[str, Any]
LARGEST = 2**32 - 1
HERE = "the world's cluster"


def matching(**match: Any) -> Json:
    return {"match": match, "route": {"cluster": HERE}}


def with_header(**matcher: Any) -> Json:
    return matching(prefix="/x", headers=[{"name": "x", **matcher}])


def acting(**action: Any) -> Json:
    return {"match": {"prefix": "/x"}, **action}


def retrying(**policy: Any) -> Json:
    return acting(route={"cluster": HERE, "retry_policy": {"retry_on": "unavailable", **policy}})


def shared(*weights: int, name: str = HERE) -> Json:
    return acting(route={"weighted_clusters": {"clusters": [{"name": name, "weight": weight} for weight in weights]}})


def hashing(**policy: Any) -> Json:
    return acting(route={"cluster": HERE, "hash_policy": [{"header": policy}]})


BOTH_TAKE: dict[str, Json] = {
    "nothing odd": matching(prefix="/x"),
    "an empty path": matching(path=""),
    "an empty value": with_header(string_match={"exact": ""}),
    "the largest weight": shared(LARGEST, 0),
    "a fraction above the whole": matching(prefix="/x", runtime_fraction={"default_value": {"numerator": 150}}),
    "a cluster by header": acting(route={"cluster_header": "x-cluster"}),
    "a route for servers": acting(non_forwarding_action={}),
    "a filter's action": acting(filter_action={}),
}
BOTH_REFUSE: dict[str, Json] = {
    "no match": {"route": {"cluster": HERE}},
    "no path": matching(),
    "no regex": matching(safe_regex={"regex": "("}),
    "no regex of a value": with_header(safe_regex_match={"regex": "["}),
    "no base of the back-off": retrying(retry_back_off={"max_interval": "1s"}),
    "no shares": shared(),
    "shares of nothing": shared(0, 0),
    "shares too large": shared(LARGEST, 2),
    "a share of no cluster": shared(1, name=""),
    "an empty cluster": acting(route={"cluster": ""}),
    "a negative duration": acting(route={"cluster": HERE, "max_stream_duration": {"max_stream_duration": "-1s"}}),
    "a hash of no header": hashing(header_name=""),
    "a hash by no regex": hashing(header_name="x", regex_rewrite={"pattern": {"regex": "("}, "substitution": ""}),
    "an unknown plugin": acting(route={"cluster_specifier_plugin": "none"}),
}
GRPCIO_TAKES: dict[str, Json] = {
    "no cluster": acting(route={}),
    "no action": acting(),
    "an empty regex": matching(safe_regex={"regex": ""}),
    "a header without a name": matching(prefix="/x", headers=[{"name": "", "present_match": True}]),
    "an empty prefix of a value": with_header(prefix_match=""),
    "an empty prefix of a string": with_header(string_match={"prefix": ""}),
    "a back-off that ends before it begins": retrying(retry_back_off={"base_interval": "1s", "max_interval": "0.5s"}),
    "no value of a fraction": matching(prefix="/x", runtime_fraction={}),
}
GRPCIO_REFUSES: dict[str, Json] = {
    "a range that ends before it begins": with_header(range_match={"start": 5, "end": -5}),
    "a header matcher of no kind": with_header(),
    "no retries": retrying(num_retries=0),
    "a path of whole segments": matching(path_separated_prefix="/x"),
    "CONNECT": matching(connect_matcher={}),
}
DOMAINS: dict[str, tuple[list[list[str]], bool, bool]] = {
    # What: domains of each virtual host, whether grpcio takes them, whether Envoy and the mesh do.
    "two stars in one": ([["*"], ["*a*"]], True, True),
    "none": ([["*"], []], False, False),
    "one of two hosts": ([["*"], ["*"]], True, False),
    "one of two hosts in capitals": ([["*"], ["A.b"], ["a.B"]], True, False),
    "one of a host twice": ([["*", "*"]], True, False),
    "a star in the middle": ([["*"], ["a*b"]], False, True),
    "an empty one": ([["*"], [""]], False, True),
}


def one_host(world: World, odd: Json) -> list[Json]:
    routes = json.dumps([odd, route(HERE)]).replace(HERE, world.cluster("a"))
    return [{"name": "all", "domains": ["*"], "routes": json.loads(routes)}]


def many_hosts(world: World, domains: list[list[str]]) -> list[Json]:
    last = [route(world.cluster("a"))]
    return [{"name": f"host-{n}", "domains": names, "routes": last} for n, names in enumerate(domains)]


CASES: dict[str, tuple[Callable[[World], list[Json]], bool, bool]] = {
    **{
        f"{what}, {theirs=}, {ours=}": (lambda world, odd=odd: one_host(world, odd), theirs, ours)  # type: ignore[misc]
        for table, theirs, ours in (
            (BOTH_TAKE, True, True),
            (BOTH_REFUSE, False, False),
            (GRPCIO_TAKES, True, False),
            (GRPCIO_REFUSES, False, True),
        )
        for what, odd in table.items()
    },
    **{
        f"domains: {what}": (lambda world, domains=domains: many_hosts(world, domains), theirs, ours)  # type: ignore[misc]
        for what, (domains, theirs, ours) in DOMAINS.items()
    },
}


@pytest.mark.needs("envoy")
def test_what_is_refused(xds_world: Callable[[], World], echo_backends: Backends, routing_envoy: RoutingEnvoy) -> None:
    backends = echo_backends(1)
    worlds = {case: xds_world() for case in CASES}
    hosts = {case: make(worlds[case]) for case, (make, _, _) in CASES.items()}
    for case, world in worlds.items():
        world.put([], {"a": backends}, virtual_hosts=hosts[case])
    with ThreadPoolExecutor(len(worlds)) as threads:  # a mesh waits for something better than what it has refused
        ours = list(threads.map(lambda world: world.ours(GrpcCall())[0].code == "OK", worlds.values()))
    found = {
        case: (world.theirs(GrpcCall())[0].code == "OK", taken, taken_by(routing_envoy, hosts[case]))
        for (case, world), taken in zip(worlds.items(), ours, strict=True)
    }
    expected = {case: (theirs, both, both) for case, (_, theirs, both) in CASES.items()}
    assert {case: told for case, told in found.items() if told != expected[case]} == {}


def taken_by(envoy: RoutingEnvoy, hosts: list[Json]) -> bool:
    try:
        envoy.push({"virtual_hosts": hosts})
    except RefusedError:
        return False
    return True

"""Which cluster and which endpoint: grpcio's `xds:///` and the mesh's channels on one control plane."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from differential.grpc_xds_twin import World, endpoints_of, locality, route
from parts import xds_resources
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import Ended, GrpcCall, Pairs

Backends = Callable[[int], list[GrpcBackend]]
Json = dict[str, Any]
SERVICE = "/meshlib.test.Echo/"
CHI_SQUARED_2 = 27.6  # two degrees of freedom, one in a million


@pytest.fixture
def world(xds_world: Callable[[], World]) -> World:
    return xds_world()


def spread(ended: Sequence[Ended]) -> Counter[str]:
    return Counter(one.backend or one.code for one in ended)


def warm(world: World, names: set[str]) -> None:
    """Until both reach every backend: grpcio balances over what it is connected to."""
    for ask in (world.theirs, world.ours):
        for _ in range(100):
            if set(spread(ask(*[GrpcCall(key="warm")] * 12))) >= names:
                break
        else:
            raise AssertionError(f"{ask.__name__} never reached all of {names}")


# ---------------------------------------------------------------------- endpoints


def test_round_robin(world: World, echo_backends: Backends) -> None:
    world.put([route(world.cluster("all"))], {"all": echo_backends(3)})
    warm(world, {"a", "b", "c"})
    for ended in (world.theirs(*[GrpcCall()] * 30), world.ours(*[GrpcCall()] * 30)):
        assert spread(ended) == {"a": 10, "b": 10, "c": 10}


async def test_round_robin_on_asyncio(world: World, echo_backends: Backends) -> None:
    world.put([route(world.cluster("all"))], {"all": echo_backends(3)})
    world.follow()
    assert spread(await world.ours_aio(*[GrpcCall()] * 30)) == {"a": 10, "b": 10, "c": 10}


def test_endpoints_come_and_go(world: World, echo_backends: Backends) -> None:
    a, b, c = echo_backends(3)
    world.put([route(world.cluster("all"))], {"all": [a, b]})
    warm(world, {"a", "b"})
    world.put([route(world.cluster("all"))], {"all": [b, c]})
    world.follow(lambda ended: ended.backend == "c")
    for ask in (world.theirs, world.ours):
        assert set(spread(ask(*[GrpcCall()] * 12))) == {"b", "c"}


@pytest.mark.parametrize("status", ["HEALTHY", "UNKNOWN", "UNHEALTHY", "DRAINING", "TIMEOUT"])
def test_health_statuses(world: World, echo_backends: Backends, status: str) -> None:
    a, b = echo_backends(2)
    both = endpoints_of([a, b])
    both["endpoints"][0]["lb_endpoints"][1]["health_status"] = status
    world.put([route(world.cluster("all"))], {"all": {"endpoints": both}})
    world.follow()
    taken = {"a", "b"} if status in ("HEALTHY", "UNKNOWN") else {"a"}
    warm(world, taken)
    for ask in (world.theirs, world.ours):
        assert set(spread(ask(*[GrpcCall()] * 12))) == taken


def test_priorities(world: World, echo_backends: Backends) -> None:
    a, b = echo_backends(2)
    first, second = locality([a]), locality([b], "b", priority=1)
    world.put([route(world.cluster("all"))], {"all": {"endpoints": {"endpoints": [first, second]}}})
    world.follow()
    for ask in (world.theirs, world.ours):
        assert spread(ask(*[GrpcCall()] * 10)) == {"a": 10}
    first["lb_endpoints"][0]["health_status"] = "UNHEALTHY"
    world.put([route(world.cluster("all"))], {"all": {"endpoints": {"endpoints": [first, second]}}})
    world.follow(lambda ended: ended.backend == "b")
    for ask in (world.theirs, world.ours):
        assert spread(ask(*[GrpcCall()] * 10)) == {"b": 10}


def test_locality_weights(world: World, echo_backends: Backends) -> None:
    """Where the cluster asks for them: grpcio always uses them (see grpc_xds_differences)."""
    weights = {"a": 6, "b": 3, "c": 1}
    localities = [
        locality([backend], backend.name, load_balancing_weight=weights[backend.name]) for backend in echo_backends(3)
    ]
    weighted = {"endpoints": {"endpoints": localities}, "common_lb_config": {"locality_weighted_lb_config": {}}}
    world.put([route(world.cluster("all"))], {"all": weighted})
    warm(world, {"a", "b", "c"})
    for ask in (world.theirs, world.ours):
        assert_shares(ask(*[GrpcCall()] * 400), weights)


def test_ring_hash(world: World, echo_backends: Backends) -> None:
    """The same keys on the same endpoints: the rings are the same."""
    policy = {"hash_policy": [{"header": {"header_name": "x-user"}}]}
    ring = {"endpoints": endpoints_of(echo_backends(3)), "lb_policy": "RING_HASH"}
    world.put([route(world.cluster("all"), **policy)], {"all": ring})
    world.follow()
    calls = [GrpcCall(metadata=(("x-user", f"user-{number}"),)) for number in range(60)]
    theirs, ours = ([one.backend for one in ask(*calls)] for ask in (world.theirs, world.ours))
    assert theirs == ours
    assert len(set(ours)) == 3
    assert [one.backend for one in world.ours(*calls)] == ours, "and again"


# ---------------------------------------------------------------------- clusters


def assert_shares(ended: Sequence[Ended], weights: dict[str, int]) -> None:
    counts, total = spread(ended), sum(weights.values())
    assert set(counts) <= set(weights)
    expected = {name: len(ended) * weight / total for name, weight in weights.items()}
    off = sum((counts[name] - share) ** 2 / share for name, share in expected.items())
    assert off < CHI_SQUARED_2, (counts, expected)


def test_weighted_clusters(world: World, echo_backends: Backends) -> None:
    weights = {"a": 75, "b": 20, "c": 5}
    shares = [{"name": world.cluster(name), "weight": weight} for name, weight in weights.items()]
    split = {"match": {"prefix": ""}, "route": {"weighted_clusters": {"clusters": shares}}}
    world.put([split], {backend.name: [backend] for backend in echo_backends(3)})
    world.follow()
    for ask in (world.theirs, world.ours):
        assert_shares(ask(*[GrpcCall()] * 600), weights)


def test_a_weight_of_nothing(world: World, echo_backends: Backends) -> None:
    shares = [{"name": world.cluster(name), "weight": weight} for name, weight in (("a", 0), ("b", 1))]
    split = {"match": {"prefix": ""}, "route": {"weighted_clusters": {"clusters": shares}}}
    world.put([split], {backend.name: [backend] for backend in echo_backends(2)})
    world.follow()
    for ask in (world.theirs, world.ours):
        assert spread(ask(*[GrpcCall()] * 20)) == {"b": 20}


# ---------------------------------------------------------------------- matching

MATCHERS: dict[str, Json] = {
    "exact": {"name": "x-v", "exact_match": "one"},
    "exact, string_match": {"name": "x-v", "string_match": {"exact": "one"}},
    "ignoring case": {"name": "x-v", "string_match": {"exact": "ONE", "ignore_case": True}},
    "prefix": {"name": "x-v", "prefix_match": "on"},
    "suffix": {"name": "x-v", "suffix_match": "ne"},
    "contains": {"name": "x-v", "string_match": {"contains": "n"}},
    "regex": {"name": "x-v", "safe_regex_match": {"regex": "o.e"}},
    "regex is anchored": {"name": "x-v", "safe_regex_match": {"regex": "o"}},
    "range": {"name": "x-v", "range_match": {"start": 1, "end": 10}},
    "present": {"name": "x-v", "present_match": True},
    "absent": {"name": "x-v", "present_match": False},
    "not exact": {"name": "x-v", "exact_match": "one", "invert_match": True},
    "not a range": {"name": "x-v", "range_match": {"start": 1, "end": 10}, "invert_match": True},
    "not present": {"name": "x-v", "present_match": True, "invert_match": True},
    "binary": {"name": "x-v-bin", "present_match": True},
    "binary, absent": {"name": "x-v-bin", "present_match": False},
    "not binary": {"name": "x-v-bin", "exact_match": "one", "invert_match": True},
    "content-type": {"name": "content-type", "exact_match": "application/grpc"},
    "user-agent": {"name": "user-agent", "present_match": True},
    "te": {"name": "te", "present_match": True},
    ":authority": {"name": ":authority", "present_match": True},
    ":method": {"name": ":method", "exact_match": "POST"},
    "not :method": {"name": ":method", "exact_match": "GET", "invert_match": True},
}
METADATA: dict[str, Pairs] = {
    "nothing": (),
    "one": (("x-v", "one"),),
    "upper": (("x-v", "ONE"),),
    "number": (("x-v", "9"),),
    "the end of the range": (("x-v", "10"),),
    "negative": (("x-v", "-1"),),
    "empty": (("x-v", ""),),
    "binary": (("x-v-bin", base64.b64encode(b"one").decode()),),
    "own content-type": (("content-type", "text/plain"),),
}


def test_header_matching(world: World, echo_backends: Backends) -> None:
    """Every matcher x every metadata, in one configuration: `x-case` says which matcher is asked."""
    a, b = echo_backends(2)
    table = []
    for case, matcher in MATCHERS.items():
        asked = {"name": "x-case", "exact_match": case}
        table.append(route(world.cluster("a"), match={"headers": [asked, matcher]}))
        table.append(route(world.cluster("b"), match={"headers": [asked]}))
    world.put([*table, route(world.cluster("b"))], {"a": [a], "b": [b]})
    world.follow()
    cases = list(itertools.product(MATCHERS, METADATA))
    calls = [GrpcCall(metadata=(("x-case", case), *METADATA[which])) for case, which in cases]
    differ = {
        case: (theirs.backend or theirs.details, ours.backend or ours.details)
        for case, (theirs, ours) in zip(cases, world.both(*calls), strict=True)
        if (theirs.code, theirs.backend) != (ours.code, ours.backend)
    }
    assert not differ, "\n".join(f"{case}: {pair}" for case, pair in differ.items())


PATHS: dict[str, Json] = {
    "prefix": {"prefix": f"{SERVICE}Un"},
    "whole prefix": {"prefix": "/"},
    "path": {"path": f"{SERVICE}Unary", "prefix": None},
    "another path": {"path": f"{SERVICE}unary", "prefix": None},
    "ignoring case": {"path": f"{SERVICE}UNARY", "case_sensitive": False, "prefix": None},
    "prefix ignoring case": {"prefix": f"{SERVICE}UN", "case_sensitive": False},
    "regex": {"safe_regex": {"regex": f"{SERVICE}.*"}, "prefix": None},
    "a regex of a part": {"safe_regex": {"regex": SERVICE}, "prefix": None},
    "every call": {"runtime_fraction": {"default_value": {"numerator": 100}}},
    "no call": {"runtime_fraction": {"default_value": {"numerator": 0}}},
    "a query parameter": {"query_parameters": [{"name": "x"}]},
}


def test_path_matching(world: World, echo_backends: Backends) -> None:
    a, b = echo_backends(2)
    table = []
    for case, given in PATHS.items():
        match = {name: value for name, value in {"prefix": "", **given}.items() if value is not None}
        headers = [{"name": "x-case", "exact_match": case}]
        table.append({"match": {**match, "headers": headers}, "route": {"cluster": world.cluster("a")}})
    world.put([*table, route(world.cluster("b"))], {"a": [a], "b": [b]})
    world.follow()
    calls = [GrpcCall(metadata=(("x-case", case),)) for case in PATHS]
    chosen = {
        case: (theirs.backend, ours.backend) for case, (theirs, ours) in zip(PATHS, world.both(*calls), strict=True)
    }
    assert {case: pair for case, pair in chosen.items() if pair[0] != pair[1]} == {}
    assert {ours for _, ours in chosen.values()} == {"a", "b"}


def test_virtual_hosts(world: World, echo_backends: Backends) -> None:
    """Exact before suffix before prefix before any."""
    a, b, c = echo_backends(3)
    table = []
    for name, domain in (("c", "*"), ("b", f"{world.name[:4]}*"), ("a", world.name)):
        table.append({"name": name, "domains": [domain], "routes": [route(world.cluster(name))]})
    world.put([], {"a": [a], "b": [b], "c": [c]}, virtual_hosts=table)
    world.follow()
    for ask in (world.theirs, world.ours):
        assert spread(ask(GrpcCall())) == {"a": 1}
    world.put([], {"a": [a], "b": [b], "c": [c]}, virtual_hosts=table[:2])
    world.follow(lambda ended: ended.backend != "a")
    for ask in (world.theirs, world.ours):
        assert spread(ask(GrpcCall())) == {"b": 1}


# ---------------------------------------------------------------------- nowhere to go


def unavailable(world: World, *, details: bool = False) -> None:
    (theirs, ours), *_ = world.both(GrpcCall(timeout=8))
    assert (theirs.code, ours.code) == ("UNAVAILABLE", "UNAVAILABLE"), (theirs, ours)


def followed(world: World) -> None:
    world.follow(lambda ended: ended.code != "OK")


def test_no_route_matches(world: World, echo_backends: Backends) -> None:
    world.put([route(world.cluster("a"), prefix="/other")], {"a": echo_backends(1)})
    unavailable(world)


def test_no_virtual_host(world: World, echo_backends: Backends) -> None:
    hosts = [{"name": "other", "domains": ["other"], "routes": [route(world.cluster("a"))]}]
    world.put([], {"a": echo_backends(1)}, virtual_hosts=hosts)
    unavailable(world)


def test_a_cluster_without_endpoints(world: World) -> None:
    world.put([route(world.cluster("a"))], {"a": {"endpoints": {"endpoints": []}}})
    unavailable(world)


def test_everything_is_dropped(world: World, echo_backends: Backends) -> None:
    drop = {"policy": {"drop_overloads": [{"category": "all", "drop_percentage": {"numerator": 100}}]}}
    backends = echo_backends(1)
    world.put([route(world.cluster("a"))], {"a": {"endpoints": {**endpoints_of(backends), **drop}}})
    unavailable(world)
    assert backends[0].count == 0


def test_a_listener_goes(world: World, echo_backends: Backends) -> None:
    world.put([route(world.cluster("a"))], {"a": echo_backends(1)})
    world.follow()
    world.put([route(world.cluster("a"))], {"a": echo_backends(1)}, without=(xds_resources.LISTENER,))
    followed(world)
    unavailable(world)


def test_a_refused_update_changes_nothing(world: World, echo_backends: Backends) -> None:
    """NACK: the last good configuration stays in force."""
    a, b = echo_backends(2)
    world.put([route(world.cluster("a"))], {"a": [a], "b": [b]})
    world.follow()
    nowhere = {"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": world.cluster("b")}}
    world.put([nowhere], {"a": [a], "b": [b]})
    world.refused()
    for ask in (world.theirs, world.ours):
        assert spread(ask(*[GrpcCall()] * 5)) == {"a": 5}

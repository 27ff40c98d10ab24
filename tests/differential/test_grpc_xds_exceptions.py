"""The differences of grpc_xds_differences are there, and are what it says they are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from differential.grpc_xds_twin import World, attempts, endpoints_of, locality, route
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import Ended, GrpcCall
from parts.ports import free_port
from parts.xds import eventually

Backends = Callable[[int], list[GrpcBackend]]
Json = dict[str, Any]


@pytest.fixture
def world(xds_world: Callable[[], World]) -> World:
    return xds_world()


def spread(ended: Sequence[Ended]) -> Counter[str]:
    return Counter(one.backend or one.code for one in ended)


def reaches(world: World, names: set[str], ask: Callable[..., list[Ended]]) -> None:
    for _ in range(100):
        if set(spread(ask(*[GrpcCall()] * 20))) >= names:
            return
    raise AssertionError(f"{ask.__name__} never reached all of {names}")


def test_1_weights_and_degraded_endpoints(world: World, echo_backends: Backends) -> None:
    heavy = endpoints_of(echo_backends(2))
    heavy["endpoints"][0]["lb_endpoints"][0]["load_balancing_weight"] = 9
    degraded = endpoints_of(echo_backends(2))
    degraded["endpoints"][0]["lb_endpoints"][1]["health_status"] = "DEGRADED"
    by_header = [route(world.cluster("worse"), match={"headers": [{"name": "x-worse", "present_match": True}]})]
    world.put([*by_header, route(world.cluster("a"))], {"a": {"endpoints": heavy}, "worse": {"endpoints": degraded}})
    world.follow()
    reaches(world, {"a", "b"}, world.theirs)
    assert spread(world.theirs(*[GrpcCall()] * 20)) == {"a": 10, "b": 10}
    assert spread(world.ours(*[GrpcCall()] * 20)) == {"a": 18, "b": 2}
    worse = [GrpcCall(metadata=(("x-worse", "1"),))] * 200
    assert spread(world.theirs(*worse)) == {"a": 200}
    assert spread(world.ours(*worse))["a"] == pytest.approx(140, abs=45)  # 1 of 2 healthy x 1.4


def test_2_and_3_overprovisioning_and_localities(world: World, echo_backends: Backends) -> None:
    a, b, c = echo_backends(3)
    first, second = locality([a, b]), locality([c], "c", priority=1)
    first["lb_endpoints"][1]["health_status"] = "UNHEALTHY"
    near, far = locality([a], "a", load_balancing_weight=9), locality([b], "b", load_balancing_weight=1)
    by_header = [route(world.cluster("near"), match={"headers": [{"name": "x-near", "present_match": True}]})]
    clusters = {"all": {"endpoints": {"endpoints": [first, second]}}, "near": {"endpoints": {"endpoints": [near, far]}}}
    world.put([*by_header, route(world.cluster("all"))], clusters)
    world.follow()
    assert spread(world.theirs(*[GrpcCall()] * 200)) == {"a": 200}
    assert spread(world.ours(*[GrpcCall()] * 200))["a"] == pytest.approx(140, abs=45)
    asked = [GrpcCall(metadata=(("x-near", "1"),))] * 200
    reaches(world, {"a", "b"}, lambda *_: world.theirs(*asked[:50]))
    assert spread(world.theirs(*asked))["a"] > 140
    assert spread(world.ours(*asked)) == {"a": 100, "b": 100}


def test_4_an_endpoint_nobody_is_at(world: World, echo_backends: Backends) -> None:
    (a,) = echo_backends(1)
    both = endpoints_of([a])
    nobody = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}}}}
    both["endpoints"][0]["lb_endpoints"].append(nobody)
    plain = [route(world.cluster("all"), match={"headers": [{"name": "x-plain", "present_match": True}]})]
    retried = route(world.cluster("all"), retry_policy={"retry_on": "unavailable", "num_retries": 2})
    world.put([*plain, retried], {"all": {"endpoints": both}})
    world.follow()
    once = [GrpcCall(metadata=(("x-plain", "1"),))] * 10
    assert spread(world.theirs(*once)) == {"a": 10}
    assert spread(world.ours(*once)) == {"a": 5, "UNAVAILABLE": 5}
    assert spread(world.theirs(*[GrpcCall()] * 20)) == {"a": 20}
    assert spread(world.ours(*[GrpcCall()] * 20)) == {"a": 20}, "where retries allow, no call fails"


@pytest.mark.parametrize(
    "matcher, metadata, theirs, ours",
    [
        ({"name": "x-v", "exact_match": "one"}, (("x-v", "one"), ("x-v", "two")), "b", "a"),
        ({"name": "x-v", "exact_match": "one,two"}, (("x-v", "one"), ("x-v", "two")), "a", "b"),
        ({"name": ":path", "present_match": True}, (), "a", "b"),
        ({"name": "grpc-timeout", "present_match": True}, (), "a", "b"),
    ],
    ids=["one of two", "joined", ":path", "grpc-timeout"],
)
def test_5_and_6_headers(
    world: World, echo_backends: Backends, matcher: Json, metadata: Any, theirs: str, ours: str
) -> None:
    a, b = echo_backends(2)
    world.put(
        [route(world.cluster("a"), match={"headers": [matcher]}), route(world.cluster("b"))], {"a": [a], "b": [b]}
    )
    world.follow()
    call = GrpcCall(metadata=metadata)
    assert [world.theirs(call)[0].backend, world.ours(call)[0].backend] == [theirs, ours]


@pytest.mark.parametrize(
    "action, code",
    [
        ({"direct_response": {"status": 200}}, "UNKNOWN"),
        ({"direct_response": {"status": 403, "body": {"inline_string": "no"}}}, "PERMISSION_DENIED"),
        ({"redirect": {"host_redirect": "elsewhere"}}, "UNKNOWN"),
    ],
    ids=["200", "403", "redirect"],
)
def test_7_routes_that_answer_themselves(world: World, echo_backends: Backends, action: Json, code: str) -> None:
    world.put([{"match": {"prefix": ""}, **action}], {"a": echo_backends(1)})
    ((theirs, ours),) = world.both(GrpcCall())
    assert [theirs.code, ours.code] == ["UNAVAILABLE", code]


def test_8_more_than_five_attempts(world: World, echo_backends: Backends) -> None:
    backends = echo_backends(1)
    policy = {
        "retry_on": "unavailable",
        "num_retries": 7,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.01s"},
    }
    world.put([route(world.cluster("a"), retry_policy=policy)], {"a": backends})
    world.follow()
    world.both(GrpcCall(key="often", script={"statuses": [14]}))
    assert [attempts(backends, f"{who}-often") for who in ("xds", "mesh")] == [5, 8]


def test_9_the_routes_timeout(world: World, echo_backends: Backends) -> None:
    backends = echo_backends(1)
    world.put([route(world.cluster("a"), timeout="0.2s")], {"a": backends})
    world.follow()
    ((theirs, ours),) = world.both(GrpcCall(script={"delay": 0.5}, timeout=5))
    assert [theirs.code, ours.code] == ["OK", "DEADLINE_EXCEEDED"]


def test_10_a_refused_first_configuration(world: World, echo_backends: Backends) -> None:
    nowhere = {"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": world.cluster("a")}}
    world.put([nowhere], {"a": echo_backends(1)})
    (theirs,) = world.theirs(GrpcCall(timeout=5))
    began = time.monotonic()
    (ours,) = world.ours(GrpcCall(timeout=5))
    assert [theirs.code, ours.code, ours.flag] == ["UNAVAILABLE", "UNAVAILABLE", "NFCF"]
    assert time.monotonic() - began > 0.9, "fetch_timeout"


def test_11_how_long_a_call_may_take(world: World, echo_backends: Backends) -> None:
    limits = {"max_stream_duration": "30s", "grpc_timeout_header_max": "0.1s"}
    world.put([route(world.cluster("a"), max_stream_duration=limits)], {"a": echo_backends(1)})
    call = GrpcCall(script={"delay": 0.3}, timeout=None)
    eventually(lambda: world.ours(call)[0].code == "OK", "ours")
    eventually(lambda: world.theirs(call)[0].code == "DEADLINE_EXCEEDED", "theirs")
    bounded = replace(call, timeout=5)
    assert [one.code for one in world.both(bounded)[0]] == ["DEADLINE_EXCEEDED"] * 2


@pytest.mark.parametrize("policy", ["LEAST_REQUEST", "RANDOM"])
def test_12_balancers_grpcio_does_not_know(world: World, echo_backends: Backends, policy: str) -> None:
    world.put([route(world.cluster("a"))], {"a": {"endpoints": endpoints_of(echo_backends(2)), "lb_policy": policy}})
    assert [world.theirs(GrpcCall())[0].code, world.ours(GrpcCall())[0].code] == ["UNAVAILABLE", "OK"]


def test_13_and_16_a_name_in_capitals_and_a_cluster_by_header(world: World, echo_backends: Backends) -> None:
    a, b = echo_backends(2)
    capitals = route(world.cluster("a"), match={"headers": [{"name": "X-Up", "present_match": True}]})
    named: Json = {"prefix": "", "headers": [{"name": "x-cluster", "present_match": True}]}
    by_header = {"match": named, "route": {"cluster_header": "x-cluster"}}
    world.put([capitals, by_header, route(world.cluster("b"))], {"a": [a], "b": [b]})
    world.follow()
    for pair in (("x-up", "1"), ("x-cluster", world.cluster("a"))):
        ((theirs, ours),) = world.both(GrpcCall(metadata=(pair,)))
        assert [theirs.backend, ours.backend] == ["b", "a"]


def test_14_no_retry_at_once(world: World, echo_backends: Backends) -> None:
    one = {"endpoints": endpoints_of(echo_backends(1)), "circuit_breakers": {"thresholds": [{"max_retries": 0}]}}
    policy = {"retry_on": "unavailable", "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.01s"}}
    world.put([route(world.cluster("a"), retry_policy=policy)], {"a": one})
    world.follow()
    ((theirs, ours),) = world.both(GrpcCall(key="once", script={"statuses": [14, 0]}))
    assert [theirs.code, ours.code] == ["OK", "UNAVAILABLE"]


def test_19_faults(world: World, echo_backends: Backends) -> None:
    always = {"percentage": {"numerator": 100}}
    kind = "type.googleapis.com/envoy.extensions.filters.http"
    config = {"@type": f"{kind}.fault.v3.HTTPFault", "abort": {"header_abort": {}, **always}}
    filters = [
        {"name": "fault", "typed_config": config},
        {"name": "router", "typed_config": {"@type": f"{kind}.router.v3.Router"}},
    ]
    world.put([route(world.cluster("up"))], {"up": echo_backends(1)}, manager={"http_filters": filters})
    world.follow()

    def codes(**asked: str) -> tuple[str, str]:
        call = GrpcCall(
            metadata=tuple((f"x-envoy-fault-{name.replace('_', '-')}", said) for name, said in asked.items())
        )
        return world.theirs(call)[0].code, world.ours(call)[0].code

    assert codes(abort_grpc_request="5") == ("NOT_FOUND", "NOT_FOUND")
    assert codes(abort_request="403") == ("OK", "PERMISSION_DENIED")
    assert codes(abort_request="200") == ("OK", "UNKNOWN")
    assert codes(abort_grpc_request="5", abort_request_percentage="0") == ("NOT_FOUND", "OK")
    assert codes(abort_grpc_request="5", abort_percentage="0") == ("OK", "OK")

"""Calls to clusters whose balancer asks the request: endpoints by header, hash policies of the balancer's own."""

from collections.abc import Callable
from typing import Any

import pytest

from differential.calls_twin import EXTENSIONS, Call, Twin, endpoint, virtual_host
from parts.fast_backend import FastBackend, Reply, Request

POLICIES = f"{EXTENSIONS}.load_balancing_policies"
RETRIES = {"retry_on": "5xx", "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"}}
PICK = "x-gateway-destination-endpoint"

pytestmark = pytest.mark.needs("envoy")


def policy(name: str, **config: Any) -> dict[str, Any]:
    typed = {"name": name, "typed_config": {"@type": f"{POLICIES}.{name}", **config}}
    return {"policies": [{"typed_extension_config": typed}]}


def balanced(name: str, backends: list[FastBackend], balancing: dict[str, Any], down: int = 0) -> dict[str, Any]:
    endpoints = [
        {**endpoint(backend.port), "health_status": "UNHEALTHY" if number < down else "HEALTHY"}
        for number, backend in enumerate(backends)
    ]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment, "load_balancing_policy": balancing}


def test_requests_go_to_the_endpoints_they_ask_for(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    def answer(request: Request) -> Reply:
        return Reply(503 if request.header("x-fail") else 200, b"")

    backends = [fast_backend(f"b{number}", answer) for number in range(4)]
    sources = [{"header": PICK}, {"header": "x-other"}]
    ring = policy("ring_hash.v3.RingHash", minimum_ring_size=64)
    override = policy("override_host.v3.OverrideHost", override_host_sources=sources, fallback_policy=ring)
    hashed = {"hash_policy": [{"header": {"header_name": "x-user"}}]}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": RETRIES, **hashed}}
    a, b, c, d = (backend.address for backend in backends)
    added = {"header": {"key": PICK, "value": c}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    changed = {**route, "match": {"prefix": "/added"}, "request_headers_to_add": [added]}
    twin = make_twin([virtual_host([changed, route])], [balanced("up", backends, override, down=1)])
    user, fails = ("x-user", "u7"), ("x-fail", "1")
    asked: list[tuple[tuple[str, str], ...]] = [
        ((PICK, a),),  # unhealthy, and taken nevertheless
        ((PICK, f" {b} , {c}"),),
        ((PICK, "10.9.9.9:1"),),
        ((PICK, f"10.9.9.9:1,{d}"),),
        ((PICK, f"nonsense,,{d}"),),
        ((PICK, ""),),
        ((PICK, ""), ("x-other", c)),
        ((PICK, c), (PICK, d)),
        ((PICK, d), fails),
        ((PICK, f"{d},{c}"), fails),
        ((PICK, f"{d},{c}"), ("x-other", f"{a},{b},{d}"), fails),
        ((PICK, f"{d},{d}"), fails),
        (fails,),
    ]
    calls = [Call(str(number), headers=(*headers, user)) for number, headers in enumerate(asked)]
    calls.append(Call("added", "/added", ((PICK, d), user)))
    for call, (theirs, ours) in zip(calls, twin.both(calls), strict=True):
        assert (ours.status, ours.backend) == (theirs.status, theirs.backend), call
        assert attempts(backends, "mesh", call) == attempts(backends, "envoy", call), call


def attempts(backends: list[FastBackend], side: str, call: Call) -> list[tuple[str, int]]:
    """How many of a call's attempts each backend has had."""
    counts = [sum(request.header("x-call-id") == f"{side}-{call.id}" for request in b.requests) for b in backends]
    return [(backend.name, count) for backend, count in zip(backends, counts, strict=True)]


@pytest.mark.parametrize("name", ["ring_hash.v3.RingHash", "maglev.v3.Maglev"])
def test_a_balancers_own_hash_policies_take_the_place_of_the_routes(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend], name: str
) -> None:
    backends = [fast_backend(f"b{number}", Reply(body=b"")) for number in range(6)]
    policies = [{"header": {"header_name": "x-user"}}, {"query_parameter": {"name": "q"}}]
    own = {"hash_policy": [*policies, {"header": {"header_name": "x-added"}}]}
    balancing = policy(name, consistent_hashing_lb_config=own)
    hashed = {"hash_policy": [{"header": {"header_name": "x-call-id"}}]}  # differs between the two
    added = [{"header": {"key": "x-added", "value": "%REQ(x-user)%-and-more"}}]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up", **hashed}, "request_headers_to_add": added}
    twin = make_twin([virtual_host([route])], [balanced("up", backends, balancing)])
    calls = [Call(str(n), f"/?q={n % 3}", (("x-user", f"u{n % 7}"),)) for n in range(40)]
    answers = twin.both(calls)
    assert [ours.backend for _, ours in answers] == [theirs.backend for theirs, _ in answers]
    assert len({ours.backend for _, ours in answers}) > 1

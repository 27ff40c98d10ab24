"""Where retries go, what bodies and streams may last, what both ends are told: the same in Envoy and meshlib."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from differential.calls_twin import CALL_ID, EXTENSIONS, Call, Twin, cluster, endpoint, virtual_host
from differential.test_calls_envoy_generated import INTERNAL, SWIFT
from differential.test_calls_envoy_retries import told_alike
from parts.fast_backend import FastBackend, Reply, Request

RETRY = "type.googleapis.com/envoy.extensions.retry"
BAD = {"retry_on": "5xx", "retry_back_off": SWIFT}
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {
        "@type": f"{EXTENSIONS}.filters.http.router.v3.Router",
        "strict_check_headers": ["x-envoy-max-retries", "x-envoy-retry-on"],
        "respect_expected_rq_timeout": True,
    },
}


class Fleet:
    """Backends that answer as `x-reply` says, and which of them each call reached, in order."""

    def __init__(self, start: Callable[..., FastBackend], count: int) -> None:
        self.seen: dict[str, list[tuple[str, Request]]] = defaultdict(list)
        self._lock = threading.Lock()
        self.ports = [start(name, self._answer(name)).port for name in (f"up{index}" for index in range(count))]

    def _answer(self, name: str) -> Callable[[Request], Reply]:
        def answer(request: Request) -> Reply:
            with self._lock:
                self.seen[request.header(CALL_ID) or ""].append((name, request))
            reply = request.header("x-reply") or "200"
            return Reply(fault="hang") if reply == "hang" else Reply(int(reply))

        return answer

    def hosts(self, call: str) -> list[str]:
        return [name for name, _ in self.seen[call]]

    def told(self, call: str, name: str) -> list[str | None]:
        return [request.header(name) for _, request in self.seen[call]]


def by_priority(name: str, ports: list[int]) -> dict[str, Any]:
    localities = [{"priority": level, "lb_endpoints": [endpoint(port)]} for level, port in enumerate(ports)]
    return cluster(name, [], load_assignment={"cluster_name": name, "endpoints": localities})


def labelled(name: str, ports: list[int], *labels: dict[str, Any]) -> dict[str, Any]:
    endpoints = [
        endpoint(port, metadata={"filter_metadata": {"envoy.lb": label}} if label else {})
        for port, label in zip(ports, labels, strict=True)
    ]
    return cluster(name, [], load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]})


def previous_priorities(frequency: int) -> dict[str, Any]:
    config = {"@type": f"{RETRY}.priority.previous_priorities.v3.PreviousPrioritiesConfig"}
    return {
        **BAD,
        "num_retries": 6,
        "retry_priority": {"name": "p", "typed_config": {**config, "update_frequency": frequency}},
    }


def omitting(*predicates: dict[str, Any]) -> dict[str, Any]:
    named = [{"name": f"p{index}", "typed_config": config} for index, config in enumerate(predicates)]
    return {**BAD, "num_retries": 4, "retry_host_predicate": named, "host_selection_retry_max_attempts": 50}


CANARIES = {"@type": f"{RETRY}.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}
OLD = {
    "@type": f"{RETRY}.host.omit_host_metadata.v3.OmitHostMetadataConfig",
    "metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "old", "zone": "a"}}},
}


@pytest.fixture
def world(make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]) -> tuple[Twin, Fleet]:
    fleet = Fleet(fast_backend, 3)
    actions: dict[str, tuple[str, dict[str, Any]]] = {
        "often": ("priorities", {"retry_policy": previous_priorities(1)}),
        "seldom": ("priorities", {"retry_policy": previous_priorities(2)}),
        "canaries": ("labels", {"retry_policy": omitting(CANARIES)}),
        "old": ("labels", {"retry_policy": omitting(OLD)}),
        "both": ("labels", {"retry_policy": omitting(CANARIES, OLD)}),
        "stream": ("streams", {"timeout": "3s"}),
        "streams": ("streams", {"timeout": "3s", "retry_policy": {"retry_on": "reset", "retry_back_off": SWIFT}}),
        "body": ("plain", {"retry_policy": BAD}),
        "slow": ("plain", {"timeout": "3s", "retry_policy": {**BAD, "per_try_timeout": "0.3s"}}),
        "plain": ("plain", {"timeout": "3s"}),
    }
    routes = [
        {"name": path, "match": {"prefix": f"/{path}"}, "route": {"cluster": name, **action}}
        for path, (name, action) in actions.items()
    ]
    routes[7]["request_body_buffer_limit"] = 100
    options = {"@type": f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {}}
    options |= {"explicit_http_config": {"http_protocol_options": {}}}
    options |= {"common_http_protocol_options": {"max_stream_duration": "0.3s"}}
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    host = virtual_host(
        routes,
        include_request_attempt_count=True,
        include_attempt_count_in_response=True,
        include_is_timeout_retry_header=True,
        request_body_buffer_limit=10,
    )
    clusters = [
        by_priority("priorities", fleet.ports),
        labelled("labels", fleet.ports, {"canary": True}, {"stage": "old", "zone": "a"}, {"stage": "old"}),
        cluster("streams", fleet.ports[:1], typed_extension_protocol_options={kind: options}),
        cluster("plain", fleet.ports[:1]),
    ]
    return make_twin([host], clusters, router=ROUTER, **INTERNAL), fleet


@pytest.mark.timeout(60)
def test_where_retries_go_and_what_is_told(world: tuple[Twin, Fleet]) -> None:
    twin, fleet = world
    bad, hang = ("x-reply", "503"), ("x-reply", "hang")
    posted = {"method": "POST", "body": b""}
    calls = [
        Call("often", "/often", (bad,), **posted),
        Call("seldom", "/seldom", (bad,), **posted),
        *(Call(f"{path}-{number}", f"/{path}", (bad,), **posted) for path in ("canaries", "old", "both")
          for number in range(4)),
        Call("stream", "/stream", (hang,), **posted),
        Call("streams", "/streams", (hang,), **posted),
        Call("short", "/body", (bad,), "POST", body=b"x" * 100),
        Call("long", "/body", (bad,), "POST", body=b"x" * 101),
        Call("host-short", "/plain", (bad, ("x-envoy-retry-on", "5xx")), "POST", body=b"x" * 10),
        Call("host-long", "/plain", (bad, ("x-envoy-retry-on", "5xx")), "POST", body=b"x" * 11),
        Call("slow", "/slow", (hang,), **posted),
        Call("given", "/plain", (("x-envoy-attempt-count", "7"),), **posted),
        Call("strict", "/plain", (("x-envoy-max-retries", "many"),), **posted),
        Call("strict-words", "/plain", (("x-envoy-retry-on", "5xx,made-up"),), **posted),
        Call("strict-not", "/plain", (("x-envoy-retry-grpc-on", "made-up"),), **posted),
        Call("expected", "/plain", (hang, ("x-envoy-expected-rq-timeout-ms", "300")), **posted),
    ]  # fmt: skip
    pairs = twin.both(calls)
    flags = twin.flags(len(calls))
    for call, (theirs, ours) in zip(calls, pairs, strict=True):
        told = flags[f"envoy-{call.id}"]
        there, here = fleet.hosts(f"envoy-{call.id}"), fleet.hosts(f"mesh-{call.id}")
        assert theirs.status == ours.status, (call.id, theirs, ours)
        assert len(there) == len(here), (call.id, there, here)
        if call.path in ("/canaries", "/old", "/both"):
            assert set(there[1:]) == set(here[1:]), (call.id, there, here)
        else:
            assert there == here, call.id
        assert told_alike(ours.flag, told or frozenset()) or call.path.startswith("/stream"), (call.id, told)
        for name in ("x-envoy-attempt-count", "x-envoy-is-timeout-retry"):
            assert fleet.told(f"envoy-{call.id}", name) == fleet.told(f"mesh-{call.id}", name), (call.id, name)
        if ours.headers:
            name = "x-envoy-attempt-count"
            assert dict(theirs.headers).get(name) == dict(ours.headers).get(name), call.id
    strict = dict(zip([call.id for call in calls], pairs, strict=True))
    assert strict["strict"][0].status == 400
    assert strict["strict"][0].body == strict["strict"][1].body
    assert strict["strict-words"][0].body == strict["strict-words"][1].body
    assert fleet.hosts("mesh-often")[:4] == ["up0", "up1", "up2", "up0"]
    assert set(fleet.hosts("mesh-both-0")[1:]) == {"up2"}

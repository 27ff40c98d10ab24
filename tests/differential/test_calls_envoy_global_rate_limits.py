"""Global rate limits, whole calls: Envoy and the mesh ask the same rate limit server by the same configuration."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from differential.calls_twin import EXTENSIONS, Answer, Call, Twin, cluster, marked, virtual_host
from parts.fast_backend import FastBackend
from parts.ratelimit_server import RateLimitServer

Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]
Limits = Callable[..., RateLimitServer]
NAME = "envoy.filters.http.ratelimit"
HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}
BY_CLUSTER = {"envoy_grpc": {"cluster_name": "limits"}}
OF_INTEREST = ("x-ratelimit-", "x-envoy-ratelimited", "x-own", "content-type", "ratelimit-")


def limit(key: str, amount: int, **more: Any) -> dict[str, Any]:
    return {"key": key, "rate_limit": {"unit": "day", "requests_per_unit": amount}, **more}


def header(name: str, key: str) -> dict[str, Any]:
    return {"actions": [{"request_headers": {"header_name": name, "descriptor_key": key}}]}


def generic(value: str, key: str = "generic_key", **more: Any) -> dict[str, Any]:
    return {"actions": [{"generic_key": {"descriptor_value": value, "descriptor_key": key}}], **more}


def rate_limit(service: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The filter. A slow machine must not look like a server that is gone: 5 s unless the test is about the timeout."""
    config = {
        "@type": f"{EXTENSIONS}.filters.http.ratelimit.v3.RateLimit",
        "domain": "shop",
        "timeout": "5s",
        "rate_limit_service": {"grpc_service": service or BY_CLUSTER, "transport_api_version": "V3"},
        **more,
    }
    return {"name": NAME, "typed_config": config}


def per_route(**more: Any) -> dict[str, Any]:
    return {NAME: {"@type": f"{EXTENSIONS}.filters.http.ratelimit.v3.RateLimitPerRoute", **more}}


def route(prefix: str = "/", limits: Any = (), per: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "match": {"prefix": prefix},
        "route": {"cluster": "up", "rate_limits": list(limits), **more},
    }
    return made if per is None else {**made, "typed_per_filter_config": per}


def seen(answer: Answer) -> tuple[Any, ...]:
    """What both sides have to agree on. The seconds until a window ends go by while the test runs."""
    headers = sorted(
        (name, "" if name in ("x-ratelimit-reset", "ratelimit-reset") else value)
        for name, value in answer.headers
        if name.startswith(OF_INTEREST)
    )
    return answer.status, headers, answer.body if answer.status != 200 else b""


@pytest.fixture
def world(
    make_twin: Make, fast_backend: Backends, ratelimit_server: Limits
) -> Callable[..., tuple[Twin, RateLimitServer, FastBackend]]:
    """A twin whose cluster `limits` is a rate limit server with these descriptors in the domains."""

    def make(
        domains: dict[str, Any], filters: list[Any], routes: list[Any], *, environment: Any = None, **host: Any
    ) -> tuple[Twin, RateLimitServer, FastBackend]:
        server = ratelimit_server(domains, **(environment or {}))
        backend = fast_backend("up")
        clusters = [cluster("up", [backend.port]), cluster("limits", [server.port], **HTTP2)]
        return make_twin([virtual_host(routes, **host)], clusters, filters=filters), server, backend

    return make


def each_side(twin: Twin) -> list[tuple[str, Callable[[Call], Answer]]]:
    return [("envoy", twin.theirs), ("mesh", twin.ours)]


def one_after_the_other(twin: Twin, calls: list[Call], redis: Any) -> dict[str, list[tuple[Any, ...]]]:
    """What either side answers to the same calls, each with the counters at zero."""
    told = {}
    for side, send in each_side(twin):
        redis.flush()
        told[side] = [seen(send(marked(side, call))) for call in calls]
    return told


def calls(*headers: dict[str, str], path: str = "/") -> list[Call]:
    return [Call(str(number), path, tuple(each.items())) for number, each in enumerate(headers)]


ADA, GRACE = {"x-user": "ada"}, {"x-user": "grace"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"enable_x_ratelimit_headers": "DRAFT_VERSION_03"},
        {"disable_x_envoy_ratelimited_header": True, "rate_limited_status": {"code": "ServiceUnavailable"}},
        {"rate_limited_status": {"code": "OK"}},
        {"response_headers_to_add": [{"header": {"key": "x-own", "value": "%RESPONSE_CODE%"}}]},
        {"filter_enforced": {"default_value": {"numerator": 0}}, "enable_x_ratelimit_headers": "DRAFT_VERSION_03"},
        {"filter_enabled": {"default_value": {"numerator": 0}}},
        {"request_type": "external"},
        {"request_type": "internal"},
        {"stage": 1},
    ],
    ids=lambda options: ",".join(options) or "plain",
)
def test_a_limit_by_header(world: Any, redis_server: Any, options: dict[str, Any]) -> None:
    domains = {"shop": [limit("user", 2), {"key": "user", "value": "grace", "rate_limit": limit("", 1)["rate_limit"]}]}
    twin, _, backend = world(domains, [rate_limit(**options)], [route(limits=[header("x-user", "user")])])
    told = one_after_the_other(twin, calls(ADA, ADA, ADA, GRACE, GRACE, {}, ADA), redis_server)
    assert told["mesh"] == told["envoy"]
    assert backend.count % 2 == 0
    ours, theirs = limit_stats(twin)
    assert ours == theirs


VHOST = [generic("vhost")]
OWN = [header("x-user", "user")]
ROUTES = [
    route("/override", OWN),
    route("/include", OWN, per_route(vh_rate_limits="INCLUDE")),
    route("/ignore", OWN, per_route(vh_rate_limits="IGNORE")),
    route("/included", OWN, include_vh_rate_limits=True),
    route("/included-ignore", OWN, per_route(vh_rate_limits="IGNORE"), include_vh_rate_limits=True),
    route("/none"),
    route("/none-ignore", (), per_route(vh_rate_limits="IGNORE")),
    route("/own-limits", OWN, per_route(rate_limits=[generic("per-route")])),
    route("/own-domain", OWN, per_route(domain="other")),
    route("/policy-include", OWN, per_route(override_option="INCLUDE_POLICY")),
    route("/policy-ignore", (), per_route(override_option="IGNORE_POLICY")),
    route("/staged", [generic("staged", stage=1)]),
    route("/disabled-key", [generic("vhost", disable_key="off")]),
    {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
    {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/none"}},
    {
        **route("/off", OWN),
        "typed_per_filter_config": {
            NAME: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
        },
    },
]


@pytest.mark.parametrize("of_filter", [[], [generic("filter")]], ids=["routes", "filter"])
@pytest.mark.parametrize("path", [made["match"]["prefix"] for made in ROUTES])
def test_which_limits_count(world: Any, redis_server: Any, path: str, of_filter: list[Any]) -> None:
    """Each kind of descriptor has a limit of its own, so that what is refused tells which were asked for."""
    shop = [limit("user", 5), *({"key": "generic_key", "value": value, **each} for value, each in AMOUNTS.items())]
    domains = {"shop": shop, "other": [limit("user", 6)]}
    filters = [rate_limit(rate_limits=of_filter, enable_x_ratelimit_headers="DRAFT_VERSION_03")]
    twin, _, _ = world(domains, filters, ROUTES, rate_limits=VHOST)
    told = one_after_the_other(twin, calls(*[ADA] * 8, path=path), redis_server)
    assert told["mesh"] == told["envoy"]


AMOUNTS = {
    name: {"rate_limit": {"unit": "day", "requests_per_unit": amount}}
    for name, amount in (("vhost", 4), ("per-route", 3), ("filter", 2), ("staged", 1))
}


@pytest.mark.parametrize(
    "given",
    [
        {"actions": [{"generic_key": {"descriptor_value": "k"}}], "hits_addend": {"number": 3}},
        {"actions": [{"generic_key": {"descriptor_value": "k"}}], "hits_addend": {"number": 0}},
        {"actions": [{"generic_key": {"descriptor_value": "k"}}], "hits_addend": {"format": "%REQ(x-cost)%"}},
        {"actions": [{"generic_key": {"descriptor_value": "k"}}], "hits_addend": {"format": "%REQ(x-missing)%"}},
        {"actions": [{"generic_key": {"descriptor_value": "k"}}], "apply_on_stream_done": True},
        {"actions": [{"remote_address": {}}]},
        {"actions": [{"destination_cluster": {}}, {"source_cluster": {}}]},
        {"actions": [{"header_value_match": {"descriptor_value": "v", "headers": [{"name": "x-cost"}]}}]},
        {"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "generic_key"}}]},
    ],
    ids=lambda given: "+".join([*(next(iter(action)) for action in given["actions"]), *list(given)[1:]]),
)
@pytest.mark.parametrize("where", ["route", "per_route", "filter"])
def test_what_is_asked(world: Any, redis_server: Any, given: dict[str, Any], where: str) -> None:
    keys = ("generic_key", "remote_address", "header_match", "user")
    domains = {
        "shop": [
            *(limit(key, 6) for key in keys),
            limit("destination_cluster", 4, descriptors=[limit("source_cluster", 3)]),
        ]
    }
    made = {
        "route": route(limits=[given]),
        "per_route": route(per=per_route(rate_limits=[given])),
        "filter": route(),
    }[where]
    own = [given] if where == "filter" else []
    filters = [rate_limit(rate_limits=own, enable_x_ratelimit_headers="DRAFT_VERSION_03")]
    twin, _, _ = world(domains, filters, [made])
    told = one_after_the_other(twin, calls(*[{"x-cost": "2"}] * 8), redis_server)
    assert told["mesh"] == told["envoy"]


DOWN = [
    {},
    {"failure_mode_deny": True},
    {"failure_mode_deny": True, "status_on_error": {"code": "ServiceUnavailable"}},
    {"failure_mode_deny": True, "failure_mode_deny_percent": {"default_value": {"numerator": 0}}},
    {"failure_mode_deny_percent": {"default_value": {"numerator": 100}}, "rate_limited_status": {"code": "Forbidden"}},
    {"failure_mode_deny": True, "filter_enforced": {"default_value": {"numerator": 0}}},
    {"failure_mode_deny": True, "response_headers_to_add": [{"header": {"key": "x-own", "value": "1"}}]},
    {"failure_mode_deny": True, "stat_prefix": "outer"},
]


@pytest.mark.parametrize("options", DOWN, ids=lambda options: ",".join(options) or "plain")
@pytest.mark.parametrize("how", ["down", "slow"])
def test_a_service_that_does_not_answer(world: Any, options: dict[str, Any], how: str) -> None:
    """Down: connections are refused. Slow: it takes the request and says nothing, for longer than 20 ms."""
    more = {"timeout": "0.02s"} if how == "slow" else {}
    twin, server, _ = world({"shop": [limit("user", 2)]}, [rate_limit(**options, **more)], [route(limits=OWN)])
    if how == "down":
        server.kill()
    else:
        server.pause()
    told = {side: [send(marked(side, call)) for call in calls(ADA, ADA)] for side, send in each_side(twin)}
    assert [seen(answer) for answer in told["mesh"]] == [seen(answer) for answer in told["envoy"]]
    flags = twin.flags(2)
    assert [answer.flag for answer in told["mesh"]] == [next(iter(flags[f"envoy-{n}"]), "") for n in range(2)]
    assert limit_stats(twin)[0] == limit_stats(twin)[1]
    assert sum(limit_stats(twin)[0].values()) in (2, 4)


def limit_stats(twin: Twin) -> tuple[dict[str, int], dict[str, int]]:
    """What both have counted, the mesh first."""
    ours = {name: value for name, value in twin.mesh.stats().items() if ".ratelimit." in name}
    theirs = twin.envoy.stats(r"cluster\.up\.ratelimit").items()
    return ours, {name: value for name, value in theirs if value}


@pytest.mark.parametrize("body", [b"", b"x" * 200])
def test_a_refused_call_is_counted_when_it_has_ended(world: Any, redis_server: Any, body: bytes) -> None:
    """The first limit refuses; the second counts what has ended, refused or not."""
    later = {**generic("later"), "apply_on_stream_done": True}
    look = {"actions": [{"generic_key": {"descriptor_value": "later"}}], "hits_addend": {"number": 0}}
    routes = [route("/look", per=per_route(rate_limits=[look])), route("/", per=per_route(rate_limits=[*OWN, later]))]
    domains = {"shop": [limit("user", 2), limit("generic_key", 100)]}
    twin, _, _ = world(domains, [rate_limit(enable_x_ratelimit_headers="DRAFT_VERSION_03")], routes)
    for side, send in each_side(twin):
        redis_server.flush()
        for call in calls(ADA, ADA, ADA, ADA):
            send(marked(side, replace(call, method="POST", body=body)))
        left = counted_down(send, Call(f"{side}-look", "/look"))
        assert left == 96, side


def counted_down(send: Callable[[Call], Answer], call: Call, wanted: str = "96") -> int:
    """What is left, once it is as much as wanted: what ends a call is told in the background."""
    until = time.monotonic() + 5.0
    while (left := dict(send(call).headers)["x-ratelimit-remaining"]) != wanted and time.monotonic() < until:
        time.sleep(0.01)
    return int(left)


def test_headers_that_the_service_adds(world: Any, redis_server: Any) -> None:
    twin, _, _ = world(
        {"shop": [limit("user", 2)]},
        [rate_limit()],
        [route(limits=OWN, per=None)],
        environment={"LIMIT_RESPONSE_HEADERS_ENABLED": "true"},
    )
    told = one_after_the_other(twin, calls(ADA, ADA, ADA), redis_server)
    assert told["mesh"] == told["envoy"]
    assert ("ratelimit-limit", "2") in told["mesh"][0][1]


def test_through_every_door_and_by_a_target(world: Any, redis_server: Any, make_twin: Make) -> None:
    """`google_grpc`: a channel of gRPC's own to the service's address. The asyncio door asks as the blocking one."""
    twin, server, backend = world({"shop": [limit("user", 4)]}, [rate_limit()], [route(limits=OWN)])
    by_target = {"google_grpc": {"target_uri": server.address, "stat_prefix": "limits"}}
    for each in (
        twin,
        make_twin(
            [virtual_host([route(limits=OWN)])],
            [cluster("up", [backend.port])],
            filters=[rate_limit(by_target)],
        ),
    ):
        redis_server.flush()
        ours = [answer.status for answer, _ in each.ours_aio(calls(ADA, ADA, ADA))]
        ours += [each.ours(call).status for call in calls(ADA, ADA)]
        assert ours == [200, 200, 200, 200, 429]
        assert [each.theirs(call).status for call in calls(ADA, GRACE)] == [429, 200]

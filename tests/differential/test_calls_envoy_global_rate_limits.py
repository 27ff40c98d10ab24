"""Global rate limits, whole calls: Envoy and the mesh ask the same rate limit server by the same configuration."""

from collections.abc import Callable
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
    stats = {name: value for name, value in twin.envoy.stats(r"cluster\.up\.ratelimit").items() if value}
    assert {name: value for name, value in twin.mesh.stats().items() if ".ratelimit." in name} == stats

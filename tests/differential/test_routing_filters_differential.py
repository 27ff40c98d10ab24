"""The header mutation and CORS filters, at every level of a route: the same in Envoy and in meshlib."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from differential.routing_envoy import EXTENSIONS, RoutingEnvoy
from differential.routing_flow import called, runtime, texts
from differential.routing_observed import Ask, joined
from differential.routing_ours import head_of
from parts.envoy_server import EnvoyServer
from parts.fast_backend import FastBackend
from parts.fixtures import Servers
from parts.flow import Dice

Json = dict[str, Any]
FILTERS = f"{EXTENSIONS}.http"
PER_ROUTE = {"@type": f"{FILTERS}.header_mutation.v3.HeaderMutationPerRoute"}
CORS = "envoy.filters.http.cors"
OFF = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}


def append(name: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD", **more: Any) -> Json:
    return {"append": {"header": {"key": name, "value": value}, "append_action": action, **more}}


def parameter(name: str, value: str, action: str) -> Json:
    return {"append": {"record": {"key": name, "value": value}, "action": action}}


def mutating(wins: bool, name: str) -> Json:
    steps = [append("x-order", name)]
    config = {
        "@type": f"{FILTERS}.header_mutation.v3.HeaderMutation",
        "mutations": {"request_mutations": steps, "response_mutations": steps},
        "most_specific_header_mutations_wins": wins,
    }
    return {"name": name, "typed_config": config}


HTTP_FILTERS: tuple[Json, ...] = (
    {"name": CORS, "typed_config": {"@type": f"{FILTERS}.cors.v3.Cors"}},
    mutating(False, "first"),
    mutating(True, "second"),
    {**mutating(False, "asleep"), "disabled": True},
    {
        "name": "limit",
        "typed_config": {"@type": f"{FILTERS}.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "limit"},
    },
)
EVERY_STEP = {
    "request_mutations": [
        {"remove": "x-gone"},
        append("x-a", "%REQ(x-in)%"),
        append("x-b", "%REQ(x-a)%"),
        append("x-in", "over", "OVERWRITE_IF_EXISTS"),
        append("x-none", "never", "OVERWRITE_IF_EXISTS"),
        append("x-in", "absent", "ADD_IF_ABSENT"),
        {"remove_on_match": {"key_matcher": {"prefix": "x-m-", "ignore_case": True}}},
        append("x-empty", ""),
        append("x-kept", "", keep_empty_value=True),
        append("x-facts", "%ROUTE_NAME%|%UPSTREAM_CLUSTER%|%UPSTREAM_HOST%|%RESPONSE_CODE%"),
    ],
    "response_mutations": [
        append("x-resp-a", "more"),
        append("x-facts", "%RESPONSE_CODE%|%RESP(x-resp-a)%|%REQ(x-a)%|%RESPONSE_FLAGS%"),
        {"remove": "x-echo-2"},
    ],
    "query_parameter_mutations": [
        {"remove": "rm"},
        parameter("n", "1 %REQ(x-in)%", "APPEND_IF_EXISTS_OR_ADD"),
        parameter("ov", "2", "OVERWRITE_IF_EXISTS_OR_ADD"),
        parameter("never", "2", "OVERWRITE_IF_EXISTS"),
        parameter("ab", "3", "ADD_IF_ABSENT"),
    ],
}


def levels(*names: str) -> dict[str, Json]:
    """By level what it says of both filters."""

    def steps(name: str) -> Json:
        return {"request_mutations": [append("x-order", name)], "response_mutations": [append("x-order", name)]}

    return {
        name: {
            "typed_per_filter_config": {each: {**PER_ROUTE, "mutations": steps(name)} for each in ("first", "second")}
        }
        for name in names
    }


MUTATING: dict[str, dict[str, Json]] = {
    "the filters alone": {},
    "all levels": levels("rc", "vhost", "route", "share"),
    "route only": levels("route"),
    "every step": {"route": {"typed_per_filter_config": {"first": {**PER_ROUTE, "mutations": EVERY_STEP}}}},
    "one switched off": {"route": {"typed_per_filter_config": {"first": OFF}}},
    "one switched on": {"vhost": {"typed_per_filter_config": {"asleep": {**PER_ROUTE, "mutations": EVERY_STEP}}}},
    "switched off and on again": {
        "vhost": {"typed_per_filter_config": {"first": OFF}},
        "route": {"typed_per_filter_config": {"first": {**OFF, "disabled": False, "config": PER_ROUTE}}},
    },
    "wrapped": {
        "route": {
            "typed_per_filter_config": {
                "second": {**OFF, "disabled": False, "config": {**PER_ROUTE, "mutations": EVERY_STEP}}
            }
        }
    },
}
REQUESTS = [
    Ask(
        "GET", "a.test", "/p?rm=1&ov=1&ab=0&z=1", (("x-in", "v"), ("x-gone", "1"), ("X-M-1", "1"), ("x-order", "mine"))
    ),
    Ask("GET", "a.test", "/p"),
    Ask("GET", "a.test", "/direct", (("x-in", "v"),)),
]


def configured(by_level: dict[str, Json], **cors: Json) -> Json:
    """A route configuration whose levels say what `by_level` and `cors` (by level) have."""
    stamp = [{"header": {"key": "x-order", "value": "route headers"}}]

    def level(name: str) -> Json:
        given = dict(by_level.get(name, {}))
        if name in cors:
            given["typed_per_filter_config"] = {CORS: cors[name]}
        return given

    share = {"name": "c0", "weight": 1, **level("share")}
    own = {"request_headers_to_add": stamp, "response_headers_to_add": stamp, **level("route")}
    routes = [
        {"name": "d", "match": {"path": "/direct"}, "direct_response": {"status": 404}, **own},
        {"name": "r", "match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [share]}}, **own},
    ]
    return {"virtual_hosts": [{"name": "h", "domains": ["*"], "routes": routes, **level("vhost")}], **level("rc")}


def limit(tokens: int) -> Json:
    """A local rate limit that lets so many requests pass; its answer has headers of its own."""
    stamp = [append("x-limited", "%REQ(x-in)%|%PATH(NQ)%")["append"], append("x-order", "limit")["append"]]
    return {
        "@type": f"{FILTERS}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": tokens, "fill_interval": "1000s"},
        "filter_enabled": share(100),
        "filter_enforced": share(100),
        "response_headers_to_add": stamp,
    }


def cors_policy(**fields: Any) -> Json:
    return {"@type": f"{FILTERS}.cors.v3.CorsPolicy", **fields}


def share(percent: int) -> Json:
    return {"default_value": {"numerator": percent}}


ORIGINS = [{"exact": "http://a.test"}, {"prefix": "https://"}, {"safe_regex": {"regex": "http://[a-z]+\\.re"}}]
WHOLE = cors_policy(
    allow_origin_string_match=ORIGINS,
    allow_methods="GET,POST",
    allow_headers="x-a",
    expose_headers="x-e",
    max_age="10",
    allow_credentials=True,
    allow_private_network_access=True,
)
POLICIES: dict[str, dict[str, Json]] = {
    "virtual host": {"vhost": WHOLE},
    "route configuration": {"rc": WHOLE},
    "methods of the route": {"vhost": WHOLE, "route": cors_policy(allow_methods="PUT", max_age="0")},
    "origins of the route": {
        "vhost": WHOLE,
        "route": cors_policy(
            allow_origin_string_match=[{"exact": "http://b.test"}],
            forward_not_matching_preflights=False,
            allow_credentials=False,
            allow_private_network_access=False,
        ),
    },
    "not forwarded": {"vhost": WHOLE | {"forward_not_matching_preflights": False}},
    "off": {"vhost": WHOLE, "route": cors_policy(filter_enabled=share(0), shadow_enabled=share(100))},
    "disabled": {"vhost": WHOLE, "route": OFF},
    "stars": {
        "route": cors_policy(allow_origin_string_match=[{"contains": "t"}], allow_methods="*", allow_headers="*")
    },
    "stars with credentials": {
        "route": cors_policy(
            allow_origin_string_match=[{"suffix": "t"}], allow_methods="*", allow_headers="*", allow_credentials=True
        )
    },
    "no origins": {"route": cors_policy(allow_methods="GET")},
}
BROWSERS = [
    Ask(method, "a.test", "/", (*(() if origin is None else (("origin", origin),)), *more))
    for method in ("GET", "OPTIONS")
    for origin in (None, "", "http://a.test", "http://b.test", "https://z", "http://x.re", "http://X.re")
    for more in (
        (),
        (("access-control-request-method", "PATCH"),),
        (("access-control-request-method", "PUT"), ("access-control-request-private-network", "true")),
        (("access-control-request-method", "GET"), ("access-control-request-headers", "x-1,x-2")),
        (("access-control-request-method", ""),),
    )
]


@pytest.fixture
def filtering_envoy(
    envoy: Callable[..., EnvoyServer], fast_backend: Callable[..., FastBackend], servers: Servers
) -> Iterator[RoutingEnvoy]:
    oracle = RoutingEnvoy(envoy, fast_backend, servers.folder("filters"), filters=HTTP_FILTERS)
    yield oracle
    oracle.close()


@pytest.mark.timeout(300)
def test_header_mutation_filters(filtering_envoy: RoutingEnvoy) -> None:
    for name, by_level in MUTATING.items():
        config = configured(by_level)
        filtering_envoy.push(config)
        ours = runtime(config, filtering_envoy.ports, HTTP_FILTERS)
        for ask in REQUESTS:
            assert called(ours, ask) == filtering_envoy.ask(ask), f"{name}: {ask}"


def test_the_answer_of_a_filter_has_the_headers_of_the_route_and_of_the_filters_before(
    filtering_envoy: RoutingEnvoy,
) -> None:
    config = configured({"route": {"typed_per_filter_config": {"limit": limit(1)}}})
    filtering_envoy.push(config)
    ours = runtime(config, filtering_envoy.ports, HTTP_FILTERS)
    statuses = []
    for ask in (REQUESTS[0], REQUESTS[0], REQUESTS[1]):
        seen = filtering_envoy.ask(ask)
        assert called(ours, ask) == seen
        statuses.append(seen.status)
    assert statuses == [200, 429, 429]


@pytest.mark.timeout(300)
def test_cors_policies(filtering_envoy: RoutingEnvoy) -> None:
    answered = 0
    for name, policies in POLICIES.items():
        config = configured({}, **policies)
        filtering_envoy.push(config)
        host = runtime(config, filtering_envoy.ports, HTTP_FILTERS).plan.find("http", "a.test")
        assert host is not None
        rules = host.routes[1].cors
        for ask in BROWSERS:
            verdict = rules(head_of(ask), Dice(0.5)) if rules is not None else None
            theirs = filtering_envoy.ask(ask)
            told = tuple(pair for pair in theirs.headers if pair[0].startswith("access-control-"))
            assert (verdict is not None and verdict.answered) == (theirs.arrived is None), f"{name}: {ask}"
            ours = joined(texts(verdict.headers)) if verdict is not None else ()
            assert ours == told, f"{name}: {ask}"
            answered += theirs.arrived is None
    assert answered > 50

"""Local rate limits through Envoy and through a mesh that follow the same file: the same requests pass, the same are
refused, and both say and count the same.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from differential.calls_twin import EXTENSIONS, Answer, Call, Twin, cluster, marked, virtual_host
from parts.fast_backend import FastBackend

Json = dict[str, Any]
Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]
NAME = "envoy.filters.http.local_ratelimit"
ALL, NONE = {"default_value": {"numerator": 100}}, {"default_value": {"numerator": 0}}
TOLD = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after", "x-limited")


def bucket(tokens: int, interval: str = "600s") -> Json:
    return {"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": interval}


def limit(tokens: int | None = 1000, **more: Any) -> Json:
    return {
        "@type": f"{EXTENSIONS}.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "filter_enabled": ALL,
        "filter_enforced": ALL,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        **({} if tokens is None else {"token_bucket": bucket(tokens)}),
        **more,
    }


def descriptor(key: str, value: str, tokens: int, interval: str = "600s", **more: Any) -> Json:
    return {"entries": [{"key": key, "value": value}], "token_bucket": bucket(tokens, interval), **more}


def generic(value: str, **more: Any) -> Json:
    return {"actions": [{"generic_key": {"descriptor_value": value}}], **more}


def action(**said: Any) -> Json:
    return {"actions": [said]}


def header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}}


USER = action(request_headers={"header_name": "x-user", "descriptor_key": "user"})
A, B = descriptor("generic_key", "a", 2), descriptor("generic_key", "b", 3, "1200s")
LAST = descriptor("generic_key", "c", 100, "100s")
SLOW, SHADOWED = descriptor("generic_key", "a", 1, "99.5s"), descriptor("generic_key", "a", 1, shadow_mode=True)


def route(*limits: Json, **more: Any) -> Json:
    return {"match": {"prefix": "/"}, "route": {"cluster": "up", "rate_limits": list(limits), **more}}


def users(*names: str) -> list[Call]:
    return [Call(str(number), headers=(("x-user", name),) if name else ()) for number, name in enumerate(names)]


SAME = users(*[""] * 5)


def seen(answer: Answer) -> tuple[int, dict[str, str]]:
    return answer.status, {name: value for name, value in answer.headers if name in TOLD}


SCENARIOS: dict[str, tuple[Json, Json, list[Call]]] = {
    "default bucket": (limit(2), route(), SAME),
    "a descriptor of the route's": (limit(descriptors=[A, B]), route(generic("a")), SAME),
    "several descriptors, the slowest first": (limit(descriptors=[A, B]), route(generic("a"), generic("b")), SAME),
    "the default bucket beside": (limit(1, descriptors=[A]), route(generic("a")), SAME),
    "the default bucket only without one": (
        limit(1, descriptors=[A], always_consume_default_token_bucket=False),
        route(generic("a")),
        SAME,
    ),
    "a value for each user": (
        limit(descriptors=[descriptor("user", "", 1), descriptor("user", "ann", 2)], max_dynamic_descriptors=2),
        route(USER),
        users("ann", "bob", "eve", "bob", "ann", "ann", "tom", "bob", "eve", "", "bob"),
    ),
    "two entries, one of any value": (
        limit(
            descriptors=[
                {
                    "entries": [{"key": "generic_key", "value": "a"}, {"key": "user", "value": ""}],
                    "token_bucket": bucket(1),
                }
            ]
        ),
        route({"actions": [*generic("a")["actions"], *USER["actions"]]}, USER),
        users("ann", "ann", "bob", "bob", ""),
    ),
    "another stage": (limit(descriptors=[A], stage=2), route(generic("a", stage=1)), SAME),
    "the same stage": (limit(descriptors=[A], stage=2), route(generic("a", stage=2)), SAME),
    "disabled by a key": (limit(descriptors=[A]), route(generic("a", disable_key="x")), SAME),
    "headers off for a descriptor": (limit(descriptors=[A]), route(generic("a", x_ratelimit_option="OFF")), SAME),
    "headers on for a descriptor": (
        limit(descriptors=[A], enable_x_ratelimit_headers="OFF"),
        route(generic("a", x_ratelimit_option="DRAFT_VERSION_03")),
        SAME,
    ),
    "retry-after": (limit(descriptors=[SLOW], enable_retry_after_header=True), route(generic("a")), SAME),
    "retry-after of one's own": (
        limit(1, enable_retry_after_header=True, response_headers_to_add=[header("retry-after", "7")]),
        route(),
        SAME,
    ),
    "retry-after is for 429": (limit(1, enable_retry_after_header=True, status={"code": 503}), route(), SAME),
    "not enforced": (limit(1, enable_retry_after_header=True, filter_enforced=NONE), route(), SAME),
    "not enabled": (limit(1, filter_enabled=NONE), route(), SAME),
    "shadow mode": (
        limit(3, descriptors=[SHADOWED]),
        route(generic("a")),
        SAME,
    ),
    "shadow mode beside one that is enforced": (
        limit(descriptors=[{**SHADOWED, "token_bucket": bucket(1, "1200s")}, descriptor("generic_key", "b", 2)]),
        route(generic("a"), generic("b")),
        SAME,
    ),
    "two in shadow mode": (
        limit(descriptors=[{**SHADOWED, "token_bucket": bucket(1, "1200s")}, {**B, "shadow_mode": True}, LAST]),
        route(generic("a"), generic("b"), generic("c")),
        SAME,
    ),
    "shadow mode after one that is not": (
        limit(descriptors=[{**B, "token_bucket": bucket(9, "1500s")}, SHADOWED]),
        route(generic("a"), generic("b")),
        SAME,
    ),
    "actions of the filter's own": (limit(descriptors=[A, B], rate_limits=[generic("a")]), route(generic("b")), SAME),
    "hits of the filter's own actions": (
        limit(descriptors=[B], rate_limits=[generic("b", hits_addend={"number": 2})]),
        route(),
        SAME,
    ),
    "no hits": (limit(descriptors=[B], rate_limits=[generic("b", hits_addend={"number": 0})]), route(), SAME),
    "hits that give back": (
        limit(
            descriptors=[B],
            rate_limits=[generic("b", hits_addend={"number": 2, "is_negative_hits": True}), generic("b")],
        ),
        route(),
        SAME,
    ),
    "hits by a header": (
        limit(descriptors=[B], rate_limits=[generic("b", hits_addend={"format": "%REQ(x-user)%"})]),
        route(),
        users("1", "nine", "1", "", "1", "2"),
    ),
    "hits of a route's actions": (limit(descriptors=[B]), route(generic("b", hits_addend={"number": 2})), SAME),
    "at the end, by a route's": (limit(descriptors=[A]), route(generic("a", apply_on_stream_done=True)), SAME),
    "at the end, by the filter's": (
        limit(descriptors=[A], rate_limits=[generic("a", apply_on_stream_done=True)]),
        route(),
        SAME,
    ),
    "operators are text": (
        limit(descriptors=[descriptor("generic_key", "%REQ(x-user)%", 1)]),
        route(generic("%REQ(x-user)%")),
        users("ann", "bob", "eve"),
    ),
    "no bucket but a descriptor's": (limit(None, descriptors=[A]), route(generic("a")), SAME),
    "included by the route": (limit(descriptors=[A, B]), route(generic("b"), include_vh_rate_limits=True), SAME),
    "the virtual host's where the route has none": (limit(descriptors=[A]), route(), SAME),
    "the virtual host's overridden": (limit(descriptors=[A, B]), route(generic("b")), SAME),
    "the virtual host's included": (limit(descriptors=[A, B], vh_rate_limits="INCLUDE"), route(generic("b")), SAME),
    "the virtual host's ignored": (limit(descriptors=[A, B], vh_rate_limits="IGNORE"), route(), SAME),
}  # fmt: skip
OF_HOST = {name for name in SCENARIOS if name.startswith(("included", "the virtual"))}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_requests_are_limited(name: str, make_twin: Make, fast_backend: Backends) -> None:
    config, way, calls = SCENARIOS[name]
    backend = fast_backend("up")
    levels: Json = {"rate_limits": [generic("a")]} if name in OF_HOST else {}
    twin = make_twin(
        [virtual_host([way], **levels)], [cluster("up", [backend.port])], [{"name": NAME, "typed_config": config}]
    )
    pairs = [(seen(theirs), seen(ours)) for theirs, ours in twin.both(calls)]
    assert [ours for _, ours in pairs] == [theirs for theirs, _ in pairs]
    theirs = twin.envoy.stats("http_local_rate_limit")
    assert {stat: value for stat, value in twin.mesh.stats().items() if stat in theirs} == theirs
    assert [issue for issue in twin.mesh.issues if "rate_limit" in issue.path or "http_filters" in issue.path] == []


INPUT = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
ACTIONS: dict[str, tuple[Json, str, str]] = {
    "matcher input": (
        action(extension={"name": "in", "typed_config": {"@type": INPUT, "header_name": "x-user"}}),
        "in",
        "ann",
    ),
    "source": (action(source_cluster={}), "source_cluster", "twins"),
    "destination": (action(destination_cluster={}), "destination_cluster", "up"),
    "header": (USER, "user", "ann"),
    "pseudo header": (action(request_headers={"header_name": ":path", "descriptor_key": "p"}), "p", "/?q=a%20b&q=2"),
    "query": (action(query_parameters={"query_parameter_name": "q", "descriptor_key": "q"}), "q", "a b"),
    "address": (action(remote_address={}), "remote_address", "127.0.0.1"),
    "network": (
        action(masked_remote_address={"v4_prefix_mask_len": 8}),
        "masked_remote_address",
        "127.0.0.0/8",
    ),
    "address matched": (
        action(
            remote_address_match={
                "descriptor_value": "here",
                "address_matcher": {"ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
            }
        ),
        "remote_address_match",
        "here",
    ),
    "header matched": (
        action(
            header_value_match={
                "descriptor_value": "yes",
                "headers": [{"name": "x-user", "string_match": {"exact": "ann"}}],
            }
        ),
        "header_match",
        "yes",
    ),
    "header not matched": (
        action(
            header_value_match={
                "descriptor_value": "no",
                "descriptor_key": "k",
                "expect_match": False,
                "headers": [{"name": "x-user", "string_match": {"exact": "bob"}}],
            }
        ),
        "k",
        "no",
    ),
    "query matched": (
        action(
            query_parameter_value_match={
                "descriptor_value": "yes",
                "query_parameters": [{"name": "q", "string_match": {"exact": "a b"}}],
            }
        ),
        "query_match",
        "yes",
    ),
    "route metadata": (
        action(metadata={"descriptor_key": "m", "metadata_key": {"key": "ns", "path": [{"key": "a"}]}, "source": 1}),
        "m",
        "deep",
    ),
    "metadata that is not there": (
        action(
            metadata={
                "descriptor_key": "m",
                "metadata_key": {"key": "ns", "path": [{"key": "a"}]},
                "default_value": "d",
            }
        ),
        "m",
        "d",
    ),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_make_the_same_entries(name: str, make_twin: Make, fast_backend: Backends) -> None:
    said, key, value = ACTIONS[name]
    backend = fast_backend("up")
    way = {**route(said), "metadata": {"filter_metadata": {"ns": {"a": "deep"}}}}
    config = limit(descriptors=[descriptor(key, value, 1), descriptor(key, "", 50)])
    twin = make_twin(
        [virtual_host([way])],
        [cluster("up", [backend.port])],
        [{"name": NAME, "typed_config": config}],
    )
    calls = [Call(str(number), "/?q=a%20b&q=2", (("x-user", "ann"),)) for number in range(3)]
    pairs = [(seen(theirs), seen(ours)) for theirs, ours in twin.both(calls)]
    assert [ours for _, ours in pairs] == [theirs for theirs, _ in pairs]
    assert [status for (status, _), _ in pairs] == [200, 429, 429], "the descriptor was the one of this value"


def test_levels_have_limits_of_their_own(make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up")
    routes = [
        {
            **route(generic("a")),
            "match": {"prefix": "/own"},
            "typed_per_filter_config": {NAME: limit(1, status={"code": 503})},
        },
        {**route(generic("a")), "match": {"prefix": "/host"}},
        {"match": {"prefix": "/answer"}, "direct_response": {"status": 204}},
    ]
    host = virtual_host(routes, typed_per_filter_config={NAME: limit(descriptors=[A])})
    twin = make_twin([host], [cluster("up", [backend.port])], [{"name": NAME, "typed_config": limit(1)}])
    paths = ["/own", "/host", "/answer"] * 4
    calls = [Call(str(number), path) for number, path in enumerate(paths)]
    pairs = [(seen(theirs), seen(ours)) for theirs, ours in twin.both(calls)]
    assert [ours for _, ours in pairs] == [theirs for theirs, _ in pairs]
    assert [status for (status, _), _ in pairs].count(429) == 2


def test_what_is_not_enforced_is_marked_for_the_upstream(make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up")
    marks = [header("x-over", "yes"), header("x-path", "%REQ(:path)%")]
    config = limit(1, filter_enforced=NONE, request_headers_to_add_when_not_enforced=marks)
    twin = make_twin(
        [virtual_host([route()])], [cluster("up", [backend.port])], [{"name": NAME, "typed_config": config}]
    )
    told = {}
    for side, send in (("envoy", twin.theirs), ("mesh", twin.ours)):
        backend.requests.clear()
        for number in range(3):
            send(marked(side, Call(str(number), "/p")))
        told[side] = [(each.header("x-over"), each.header("x-path")) for each in backend.requests]
    assert told["mesh"] == told["envoy"] == [(None, None), ("yes", "/p"), ("yes", "/p")]


def runtime(**values: Any) -> Json:
    keys = {name.replace("__", "."): value for name, value in values.items()}
    return {"layered_runtime": {"layers": [{"name": "static", "static_layer": keys}]}}


FORMATTED = "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value"
KEYED = {"default_value": {"numerator": 100}, "runtime_key": "limit.share"}


@pytest.mark.parametrize(
    "top,config,way",
    [
        (runtime(limit__share=0), limit(1, filter_enforced=KEYED), route()),
        (runtime(limit__share=0), limit(1, filter_enabled=KEYED), route()),
        (runtime(limit__share={"numerator": 100}), limit(1, filter_enforced={**KEYED, **NONE}), route()),
        (
            runtime(**{FORMATTED: True}),
            limit(descriptors=[descriptor("k", "ann-/", 1), descriptor("k", "nobody", 2)]),
            route(
                {
                    "actions": [
                        {
                            "generic_key": {
                                "descriptor_value": "%REQ(x-user)%-%REQ(:path)%",
                                "descriptor_key": "k",
                            }
                        }
                    ]
                },
                {
                    "actions": [
                        {
                            "generic_key": {
                                "descriptor_value": "%REQ(x-none)%",
                                "descriptor_key": "k",
                                "default_value": "nobody",
                            }
                        }
                    ]
                },
            ),
        ),
    ],
)
def test_runtime_has_the_same_say(top: Json, config: Json, way: Json, make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up")
    twin = make_twin(
        [virtual_host([way])], [cluster("up", [backend.port])], [{"name": NAME, "typed_config": config}], top=top
    )
    pairs = [(seen(theirs), seen(ours)) for theirs, ours in twin.both(users("ann", "ann", "bob", "bob", "bob"))]
    assert [ours for _, ours in pairs] == [theirs for theirs, _ in pairs]


@pytest.mark.parametrize("instances", [1, 3, 7])
def test_a_limit_of_the_local_cluster_has_as_many_shares(
    instances: int, make_twin: Make, fast_backend: Backends, free_port: Callable[[], int]
) -> None:
    backend = fast_backend("up")
    own = cluster("us", [free_port() for _ in range(instances)])
    config = limit(6, descriptors=[descriptor("generic_key", "a", 4)], local_cluster_rate_limit={})
    twin = make_twin(
        [virtual_host([{**route(generic("a")), "match": {"prefix": "/a"}}, route()])],
        [cluster("up", [backend.port]), own],
        [{"name": NAME, "typed_config": config}],
        top={"cluster_manager": {"local_cluster_name": "us"}},
    )
    calls = [Call(str(number), path) for number, path in enumerate(["/a", "/", "/a", "/", "/", "/a", "/", "/"])]
    pairs = [(seen(theirs), seen(ours)) for theirs, ours in twin.both(calls)]
    assert [ours for _, ours in pairs] == [theirs for theirs, _ in pairs]


# ---------------------------------------------------------------------------------------------------------- generated

HEADERS = ("x-user", "x-plan")
NAMES = ("ann", "bob", "eve", "")


def drawn_action(rng: random.Random) -> Json:
    """An action, of few words, so that many requests have equal descriptors."""
    name = rng.choice(HEADERS)
    said: list[Json] = [
        {"request_headers": {"header_name": name, "descriptor_key": name, "skip_if_absent": rng.random() < 0.5}},
        {
            "query_parameters": {
                "query_parameter_name": "q",
                "descriptor_key": "q",
                "skip_if_absent": rng.random() < 0.5,
            }
        },
        {"generic_key": {"descriptor_value": rng.choice("ab")}},
        {
            "header_value_match": {
                "descriptor_value": "m",
                "expect_match": rng.random() < 0.7,
                "headers": [{"name": name, "string_match": {"exact": rng.choice(NAMES[:3])}}],
            }
        },
        {"destination_cluster": {}},
        {"remote_address": {}},
    ]
    return rng.choice(said)


def drawn_limits(rng: random.Random, most: int, *, embedded: bool = False) -> list[Json]:
    limits: list[Json] = []
    for _ in range(rng.randint(0, most)):
        limit: Json = {"actions": [drawn_action(rng) for _ in range(rng.randint(1, 2))]}
        if embedded and rng.random() < 0.4:
            limit["hits_addend"] = {"number": rng.randint(1, 3)}
        if not embedded and rng.random() < 0.4:
            limit["stage"] = rng.randint(0, 1)
        if rng.random() < 0.2:
            limit["x_ratelimit_option"] = rng.choice(["OFF", "DRAFT_VERSION_03"])
        limits.append(limit)
    return limits


KEYS = ("x-user", "x-plan", "q", "generic_key", "header_match", "destination_cluster", "remote_address")
VALUES = {"generic_key": "ab", "header_match": "m", "destination_cluster": ["up"], "remote_address": ["127.0.0.1"]}


def drawn_descriptors(rng: random.Random) -> list[Json]:
    """Descriptors of one entry or two, of which at most one wildcard fits a request, and no two fill equally fast."""
    found: dict[tuple[str, ...], Json] = {}
    for number in range(rng.randint(1, 9)):
        keys = [rng.choice(KEYS) for _ in range(rng.randint(1, 2))]
        entries = [{"key": key, "value": rng.choice(VALUES.get(key, NAMES[:3]))} for key in keys]
        if rng.random() < 0.3 and not any("*" in known and known[1:] == tuple(keys) for known in found):
            entries[0]["value"] = ""
            known = ("*", *keys)
        else:
            known = tuple(f"{entry['key']}={entry['value']}" for entry in entries)
        found[known] = {
            "entries": entries,
            "token_bucket": bucket(rng.randint(1, 4), f"{600 + 10 * number}s"),
            "shadow_mode": rng.random() < 0.15,
        }
    return list(found.values())


@pytest.mark.parametrize("seed", range(24))
def test_generated_limits_agree(seed: int, make_twin: Make, fast_backend: Backends) -> None:
    rng = random.Random(seed)
    embedded = drawn_limits(rng, 3, embedded=True) if rng.random() < 0.4 else []
    config = limit(
        rng.randint(5, 40),
        descriptors=drawn_descriptors(rng),
        rate_limits=embedded,
        stage=rng.randint(0, 1),
        vh_rate_limits=rng.choice(["OVERRIDE", "INCLUDE", "IGNORE"]),
        always_consume_default_token_bucket=rng.random() < 0.5,
        max_dynamic_descriptors=rng.randint(1, 3),
        enable_retry_after_header=rng.random() < 0.5,
        filter_enforced=rng.choice([ALL, ALL, ALL, NONE]),
    )
    backend = fast_backend("up")
    host = virtual_host(
        [route(*drawn_limits(rng, 3), include_vh_rate_limits=rng.random() < 0.3)], rate_limits=drawn_limits(rng, 2)
    )
    twin = make_twin([host], [cluster("up", [backend.port])], [{"name": NAME, "typed_config": config}])
    calls = []
    for number in range(60):
        headers = tuple((name, rng.choice(NAMES)) for name in HEADERS)
        path = rng.choice(["/", "/?q=ann", "/?q=b%6Fb", "/?p=1&q=eve"])
        calls.append(Call(str(number), path, tuple(pair for pair in headers if pair[1])))
    pairs = [(seen(theirs), seen(ours)) for theirs, ours in twin.both(calls)]
    assert [ours for _, ours in pairs] == [theirs for theirs, _ in pairs], f"seed {seed}"
    theirs = twin.envoy.stats("http_local_rate_limit")
    assert {stat: value for stat, value in twin.mesh.stats().items() if stat in theirs} == theirs, f"seed {seed}"

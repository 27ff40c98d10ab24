"""What routes do to requests, decoded: cluster specifiers, rewrites, bodies, filters; what is left out is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshlib.model.cors import CORS_FILTER, CorsPolicy
from meshlib.model.header_mutation import HeaderMutationFilter, MutationStep
from meshlib.model.headers import HeaderValueOption
from meshlib.model.matchers import FractionalPercent
from meshlib.model.report import ResourceError
from meshlib.model.route import (
    DirectResponseAction,
    HashPolicy,
    HostRewrite,
    JsonFormat,
    MatchedCluster,
    Route,
    RouteAction,
    TextFormat,
    WeightedClusters,
)
from meshlib.model.strings import StringMatcher
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import ROUTE_CONFIGURATION
from parts import xds_resources as xds

Json = dict[str, Any]
TYPES = "type.googleapis.com"
SPECIFIERS = f"{TYPES}/envoy.extensions.router.cluster_specifiers.matcher.v3"
FILTERS = f"{TYPES}/envoy.extensions.filters.http"
UNKNOWN = {"name": "mine", "typed_config": {"@type": f"{TYPES}/google.protobuf.Struct", "value": {}}}
INPUT = {
    "name": "tier",
    "typed_config": {"@type": f"{TYPES}/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": "x-tier"},
}


def to_cluster(name: str) -> Json:
    return {"action": {"name": name, "typed_config": {"@type": f"{SPECIFIERS}.ClusterAction", "cluster": name}}}


MATCHER = {
    "name": "mine",
    "typed_config": {
        "@type": f"{SPECIFIERS}.MatcherClusterSpecifier",
        "cluster_matcher": {
            "matcher_tree": {"input": INPUT, "exact_match_map": {"map": {"gold": to_cluster("b")}}},
            "on_no_match": to_cluster("a"),
        },
    },
}


def decoded(route: Json, **configuration: Any) -> Decoded:
    # What an Any holds must be known to protobuf before JSON is read.
    from envoy.extensions.filters.http.cors.v3 import cors_pb2  # noqa: F401
    from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2  # noqa: F401
    from envoy.extensions.router.cluster_specifiers.matcher.v3 import matcher_pb2  # noqa: F401
    from envoy.type.matcher.v3 import http_inputs_pb2  # noqa: F401

    resource = xds.route_configuration("routes", {"match": {"prefix": "/"}, **route}, **configuration)
    return decode_message(xds.message(ROUTE_CONFIGURATION, resource))


def routes(found: Decoded) -> tuple[Route, ...]:
    config: Any = found.resource
    return tuple(config.virtual_hosts[0].routes)


def told(found: Decoded) -> list[str]:
    return [issue.path.rpartition("routes[0].")[2] for issue in found.issues]


def action(found: Decoded) -> RouteAction:
    (route,) = routes(found)
    assert isinstance(route.action, RouteAction)
    return route.action


@pytest.mark.parametrize("named", [False, True])
def test_a_cluster_by_matcher_inline_or_by_name(named: bool) -> None:
    specifier = (
        {"cluster_specifier_plugin": "mine"} if named else {"inline_cluster_specifier_plugin": {"extension": MATCHER}}
    )
    found = decoded({"route": specifier}, cluster_specifier_plugins=[{"extension": MATCHER}] if named else [])
    assert isinstance(action(found).cluster, MatchedCluster)
    assert found.references.clusters == {"a", "b"}
    assert not found.issues


@pytest.mark.parametrize("optional", [False, True])
def test_routes_by_unknown_plugins_are_left_out_and_told(optional: bool) -> None:
    plugin = {"extension": UNKNOWN, "is_optional": optional}
    inline = decoded({"route": {"inline_cluster_specifier_plugin": plugin}})
    assert routes(inline) == ()
    assert told(inline) == ["route.inline_cluster_specifier_plugin.extension.typed_config"]
    named = decoded({"route": {"cluster_specifier_plugin": "mine"}}, cluster_specifier_plugins=[plugin])
    assert routes(named) == ()
    assert {issue.path.partition(".")[0] for issue in named.issues} == {"cluster_specifier_plugins[0]"}


@pytest.mark.parametrize(
    "route",
    [
        {"cluster_specifier_plugin": "nobody"},
        {"weighted_clusters": {"clusters": [{"name": "a", "cluster_header": "x", "weight": 1}]}},
        {"weighted_clusters": {"clusters": [{"weight": 1}]}},
        {"cluster": "a", "prefix_rewrite": "/x", "path_rewrite": "/y"},
        {"cluster": "a", "path_rewrite": "50%"},
        {"cluster": "a", "host_rewrite": "%"},
    ],
)
def test_what_envoy_refuses(route: Json) -> None:
    with pytest.raises(ResourceError):
        decoded({"route": route})


def test_shares_by_header_and_by_hash() -> None:
    shares = [{"name": "a", "weight": 1}, {"cluster_header": "X-Version", "weight": 2}]
    numbered = action(decoded({"route": {"weighted_clusters": {"clusters": shares, "header_name": "X-N"}}})).cluster
    hashed = action(decoded({"route": {"weighted_clusters": {"clusters": shares, "use_hash_policy": True}}})).cluster
    assert isinstance(numbered, WeightedClusters)
    assert isinstance(hashed, WeightedClusters)
    assert (numbered.header_name, numbered.use_hash_policy) == ("x-n", False)
    assert (hashed.header_name, hashed.use_hash_policy) == ("", True)
    assert [(share.name, share.cluster_header) for share in numbered.clusters] == [("a", ""), ("", "x-version")]


def test_rewrites_by_format_and_cookies_with_attributes() -> None:
    cookie = {"name": "c", "ttl": "5s", "attributes": [{"name": "Secure"}, {"name": "SameSite", "value": "Lax"}]}
    found = action(
        decoded(
            {
                "route": {
                    "cluster": "a",
                    "path_rewrite": "/%REQ(x)%",
                    "host_rewrite": "h",
                    "hash_policy": [{"cookie": cookie}, {"filter_state": {"key": "user"}, "terminal": True}],
                }
            }
        )
    )
    assert (found.path_rewrite, found.host_rewrite) == ("/%REQ(x)%", HostRewrite("format", "h"))
    assert found.hash_policies == (
        HashPolicy("cookie", "c", ttl=5.0, attributes=(("Secure", ""), ("SameSite", "Lax"))),
        HashPolicy("filter_state", "user", terminal=True),
    )


@pytest.mark.parametrize(
    "field, text, kept",
    [
        ("path_rewrite", "/%CEL(1)%", ""),
        ("path_rewrite", "/%DOWNSTREAM_PEER_SUBJECT%", "/%DOWNSTREAM_PEER_SUBJECT%"),
    ],
)
def test_operators_that_cannot_be_filled_in_are_told(field: str, text: str, kept: str) -> None:
    found = decoded({"route": {"cluster": "a", field: text}})
    assert (getattr(action(found), field), told(found)) == (kept, [f"route.{field}"])


def test_bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_TEST_BODY", "from the environment")
    (tmp_path / "body").write_bytes(b"from a file")
    sources: list[tuple[Json, bytes]] = [
        ({"environment_variable": "MESHLIB_TEST_BODY"}, b"from the environment"),
        ({"filename": str(tmp_path / "body")}, b"from a file"),
        ({"inline_bytes": "AP8="}, b"\x00\xff"),
    ]
    for source, body in sources:
        (route,) = routes(decoded({"direct_response": {"status": 200, "body": source}}))
        assert route.action == DirectResponseAction(200, body)
    for missing in ({"environment_variable": "MESHLIB_TEST_NONE"}, {"filename": str(tmp_path / "none")}):
        with pytest.raises(ResourceError):
            decoded({"direct_response": {"status": 200, "body": missing}})


def test_body_formats() -> None:
    def made(**form: Any) -> tuple[Any, list[str]]:
        found = decoded({"direct_response": {"status": 200, "body_format": form}})
        (route,) = routes(found)
        assert isinstance(route.action, DirectResponseAction)
        return route.action.body_format, told(found)

    assert made(text_format="a %REQ(x)%") == (TextFormat("a %REQ(x)%"), [])
    assert made(text_format_source={"inline_string": "s"}, omit_empty_values=True) == (TextFormat("s", True), [])
    form, issues = made(json_format={"a": ["%REQ(x)%"]})
    assert (isinstance(form, JsonFormat), issues) == (True, [])
    where = "direct_response.body_format.json_format"
    assert made(json_format={"a": {"b": ["%CEL(1)%"]}}) == (None, [where])
    with pytest.raises(ResourceError):
        made(text_format="50%")


def test_filters_of_a_route() -> None:
    steps = {
        "request_mutations": [
            {"remove": "X-Gone"},
            {"append": {"header": {"key": "x-a", "value": "1"}, "append_action": "ADD_IF_ABSENT"}},
            {"remove_on_match": {"key_matcher": {"prefix": "x-"}}},
        ],
        "query_parameter_mutations": [{"remove": "q"}, {"append": {"record": {"key": "k", "value": "v"}}}],
        "response_trailers_mutations": [{"remove": "x"}],
    }
    cors = {"allow_methods": "GET", "filter_enabled": {"default_value": {"numerator": 50}}}
    found = decoded(
        {
            "route": {"cluster": "a", "cors": {"max_age": "5"}},
            "typed_per_filter_config": {
                "hm": {"@type": f"{FILTERS}.header_mutation.v3.HeaderMutationPerRoute", "mutations": steps},
                CORS_FILTER: {"@type": f"{FILTERS}.cors.v3.CorsPolicy", **cors},
                "other": {"@type": f"{TYPES}/google.protobuf.Struct", "value": {}},
            },
        }
    )
    (route,) = routes(found)
    configs = [(entry.name, entry.config) for entry in route.typed_per_filter_config]
    assert configs[0] == (CORS_FILTER, CorsPolicy(max_age="5"))  # the older field, which a policy by filter outdoes
    assert configs[1] == (CORS_FILTER, CorsPolicy(allow_methods="GET", filter_enabled=FractionalPercent(50)))
    assert configs[2] == (
        "hm",
        HeaderMutationFilter(
            request=(
                MutationStep(remove="x-gone"),
                MutationStep(append=HeaderValueOption("x-a", "1", "ADD_IF_ABSENT")),
                MutationStep(remove_matching=StringMatcher("prefix", "x-")),
            ),
            query=(
                MutationStep(remove="q"),
                MutationStep(append=HeaderValueOption("k", "v", "APPEND_IF_EXISTS_OR_ADD", True)),
            ),
        ),
    )
    assert told(found) == [
        'typed_per_filter_config["hm"].mutations.response_trailers_mutations',
        'typed_per_filter_config["other"]',
    ]

"""What a route looks at beyond path, headers and query, and matchers in the place of routes."""

import importlib
from typing import Any

import pytest
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from meshlib.model.context_matchers import (
    AnyOf,
    AnyValue,
    DoubleMatch,
    FilterStateMatcher,
    IpRanges,
    ListHas,
    MetadataMatcher,
    TlsContextMatch,
)
from meshlib.model.matcher_tree import (
    AllOf,
    FieldMatcher,
    Input,
    MatcherList,
    MatcherTree,
    Not,
    OneOf,
    OnMatch,
    SinglePredicate,
)
from meshlib.model.matchers import CookieMatcher, PathMatcher, RouteMatch
from meshlib.model.report import Issue, ResourceError
from meshlib.model.route import NonForwardingAction, VirtualHost
from meshlib.model.strings import StringMatcher
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import ROUTE_CONFIGURATION
from parts import xds_resources as xds

for module in (  # the types that stand in an Any below
    "envoy.config.route.v3.route_components_pb2",
    "envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2",
    "envoy.extensions.path.match.uri_template.v3.uri_template_match_pb2",
    "envoy.type.matcher.v3.http_inputs_pb2",
    "google.protobuf.wrappers_pb2",
):
    importlib.import_module(module)

Json = dict[str, Any]
TYPE = "type.googleapis.com/"
HEADER_INPUT = f"{TYPE}envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
FILTER_STATE_INPUT = f"{TYPE}envoy.extensions.matching.common_inputs.network.v3.FilterStateInput"


def decoded(match: Json) -> RouteMatch:
    message = xds.message(
        ROUTE_CONFIGURATION, xds.route_configuration("r", {"match": match, "route": {"cluster": "c"}})
    )
    found = decode_message(message)
    assert found.issues == ()
    return found.resource.virtual_hosts[0].routes[0].match


def config(name: str, content: Json) -> Json:
    return {"name": name, "typed_config": content}


def test_a_path_template() -> None:
    template = f"{TYPE}envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
    match = decoded({"path_match_policy": config("t", {"@type": template, "path_template": "/a/{b}/**"})})
    assert match == RouteMatch(PathMatcher("uri_template", "/a/{b}/**"))


def test_connect_takes_the_place_of_a_path() -> None:
    assert decoded({"connect_matcher": {}}) == RouteMatch(PathMatcher("connect_matcher", ""))


def test_the_callers_tls() -> None:
    assert decoded({"prefix": "/", "tls_context": {"presented": False}}).tls_context == TlsContextMatch(presented=False)
    assert decoded({"prefix": "/", "tls_context": {"validated": True}}).tls_context == TlsContextMatch(validated=True)


VALUES = [
    ({"null_match": {}}, None),
    ({"bool_match": False}, False),
    ({"present_match": True}, AnyValue()),
    ({"string_match": {"prefix": "a"}}, StringMatcher("prefix", "a")),
    ({"double_match": {"exact": 1.5}}, DoubleMatch(1.5)),
    ({"double_match": {"range": {"start": -1, "end": 2}}}, DoubleMatch(-1.0, 2.0)),
    ({"list_match": {"one_of": {"bool_match": True}}}, ListHas(True)),
    ({"or_match": {"value_matchers": [{"null_match": {}}, {"bool_match": True}]}}, AnyOf((None, True))),
]


@pytest.mark.parametrize("value, expected", VALUES)
def test_dynamic_metadata(value: Json, expected: Any) -> None:
    matcher = {"filter": "f", "path": [{"key": "a"}, {"key": "b"}], "value": value, "invert": True}
    found = decoded({"prefix": "/", "dynamic_metadata": [matcher]}).dynamic_metadata
    assert found == (MetadataMatcher("f", ("a", "b"), expected, invert=True),)


def test_filter_state() -> None:
    ranges = {"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}, {"address_prefix": "::1"}]}
    states = [{"key": "k", "string_match": {"exact": "v"}}, {"key": "ip", "address_match": ranges}]
    assert decoded({"prefix": "/", "filter_state": states}).filter_state == (
        FilterStateMatcher("k", StringMatcher("exact", "v")),
        FilterStateMatcher("ip", IpRanges(("10.0.0.0/8", "::1/0"))),
    )


def _newer_route_match(**fields: Any) -> bytes:
    """A RouteMatch as an API writes it that knows `cookies` (field 17) and a field 99."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="newer.proto", package="newer", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    cookie = file.message_type.add(name="Cookie")
    cookie.field.add(name="name", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    cookie.field.add(name="string_match", number=2, type=kind.TYPE_BYTES, label=kind.LABEL_OPTIONAL)
    cookie.field.add(name="invert_match", number=3, type=kind.TYPE_BOOL, label=kind.LABEL_OPTIONAL)
    match = file.message_type.add(name="Match")
    match.field.add(name="prefix", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    match.field.add(
        name="cookies", number=17, type=kind.TYPE_MESSAGE, type_name=".newer.Cookie", label=kind.LABEL_REPEATED
    )
    match.field.add(name="later", number=99, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL)
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("newer.Match"))()
    return json_format.ParseDict(fields, message).SerializeToString()


def _with_match(data: bytes) -> Any:
    message = xds.message(
        ROUTE_CONFIGURATION, xds.route_configuration("r", {"match": {"prefix": "/"}, "route": {"cluster": "c"}})
    )
    message.virtual_hosts[0].routes[0].match.ParseFromString(data)
    return decode_message(message)


def test_cookies_that_the_protos_do_not_know() -> None:
    exact = string_pb2.StringMatcher(exact="1").SerializeToString()
    any_case = string_pb2.StringMatcher(prefix="b", ignore_case=True)
    cookies = [
        {"name": "a", "string_match": _base64(exact)},
        {"name": "ü", "string_match": _base64(any_case.SerializeToString()), "invert_match": True},
    ]
    found = _with_match(_newer_route_match(prefix="/x", cookies=cookies))
    assert found.issues == ()
    assert found.resource.virtual_hosts[0].routes[0].match == RouteMatch(
        PathMatcher("prefix", "/x"),
        cookies=(
            CookieMatcher("a", StringMatcher("exact", "1")),
            CookieMatcher("ü", StringMatcher("prefix", "b", ignore_case=True), invert=True),
        ),
    )
    with pytest.raises(ResourceError, match=r"cookies\[0\].*required"):
        _with_match(_newer_route_match(prefix="/x", cookies=[{"name": "a"}]))


def test_a_matcher_from_the_future_drops_its_route() -> None:
    found = _with_match(_newer_route_match(prefix="/", later=1))
    assert found.resource.virtual_hosts[0].routes == ()
    assert "field 99" in found.issues[0].reason
    assert "never matches" in found.issues[0].reason


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def route_action(*names: str) -> Json:
    routes = [{"name": name, "match": {"prefix": "/"}, "route": {"cluster": name}} for name in names]
    if len(routes) == 1:
        content = {"@type": f"{TYPE}envoy.config.route.v3.Route", **routes[0]}
    else:
        content = {"@type": f"{TYPE}envoy.config.route.v3.RouteList", "routes": routes}
    return {"action": config("route", content)}


def header(name: str) -> Json:
    return config("h", {"@type": HEADER_INPUT, "header_name": name})


def host(matcher: Json, **more: Any) -> tuple[VirtualHost, tuple[Issue, ...]]:
    body = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "matcher": matcher, **more}]}
    found = decode_message(xds.message(ROUTE_CONFIGURATION, body))
    return found.resource.virtual_hosts[0], found.issues


def test_a_matcher_in_the_place_of_routes() -> None:
    single = {"single_predicate": {"input": header("X-A"), "value_match": {"exact": "1"}}}
    state = {"@type": FILTER_STATE_INPUT, "key": "k"}
    other = {"single_predicate": {"input": config("f", state), "value_match": {"suffix": "z", "ignore_case": True}}}
    tree = {"input": header(":path"), "prefix_match_map": {"map": {"/a": route_action("c"), "/": route_action("d")}}}
    found, issues = host(
        {
            "matcher_list": {
                "matchers": [
                    {"predicate": single, "on_match": route_action("a", "b")},
                    {
                        "predicate": {"and_matcher": {"predicate": [{"not_matcher": single}, other]}},
                        "on_match": {"matcher": {"matcher_tree": tree}},
                    },
                    {"predicate": {"or_matcher": {"predicate": [single, other]}}, "on_match": route_action("e")},
                ]
            },
            "on_no_match": route_action("f"),
        }
    )
    assert issues == ()
    assert [route.name for route in found.routes] == ["f", "a", "b", "d", "c", "e"]
    first = SinglePredicate(Input("header", "x-a"), StringMatcher("exact", "1"))
    second = SinglePredicate(Input("filter_state", "k"), StringMatcher("suffix", "z", ignore_case=True))
    inner = MatcherTree(Input("header", ":path"), "prefix_match_map", (("/", OnMatch((3,))), ("/a", OnMatch((4,)))))
    assert found.matcher == MatcherList(
        (
            FieldMatcher(first, OnMatch((1, 2))),
            FieldMatcher(AllOf((Not(first), second)), OnMatch(inner)),
            FieldMatcher(OneOf((first, second)), OnMatch((5,))),
        ),
        OnMatch((0,)),
    )


def test_a_route_of_a_matcher_that_is_not_supported_never_matches() -> None:
    plugin = {"extension": {"name": "p", "typed_config": {"@type": f"{TYPE}google.protobuf.Empty"}}}
    bad = {"match": {"prefix": "/"}, "route": {"inline_cluster_specifier_plugin": plugin}}
    content = {"@type": f"{TYPE}envoy.config.route.v3.Route", **bad}
    found, issues = host({"on_no_match": {"action": config("r", content)}})
    assert found.routes == ()
    assert found.matcher == MatcherList((), OnMatch(()))
    where = "virtual_hosts[0].matcher.on_no_match.action.typed_config.route.inline_cluster_specifier_plugin"
    assert [issue.path for issue in issues] == [f"{where}.extension.typed_config"]
    assert "never matches" in issues[0].reason


@pytest.mark.parametrize("action", ["non_forwarding_action", "filter_action"])
def test_a_route_that_does_not_forward_matches_all_the_same(action: str) -> None:
    body = xds.route_configuration("r", {"match": {"prefix": "/"}, action: {}})
    found = decode_message(xds.message(ROUTE_CONFIGURATION, body))
    assert [route.action for route in found.resource.virtual_hosts[0].routes] == [NonForwardingAction()]
    assert not found.issues


def tree(input_type: str, **fields: Any) -> Json:
    source = config("i", {"@type": input_type, **fields})
    return {"matcher_tree": {"input": source, "exact_match_map": {"map": {"1": route_action("a")}}}}


def test_a_matcher_with_parts_that_are_not_supported_leads_nowhere() -> None:
    inputs = f"{TYPE}envoy.extensions.matching.common_inputs.network.v3.SourceIPInput"
    custom = {"name": "c", "typed_config": {"@type": f"{TYPE}google.protobuf.StringValue", "value": "x"}}
    custom_tree = {"input": header("x"), "custom_match": custom}
    single = {"single_predicate": {"input": header("x"), "custom_match": custom}}
    for matcher, path in (
        (tree(inputs), "matcher.matcher_tree.input.typed_config"),
        ({"matcher_tree": custom_tree}, "matcher.matcher_tree.custom_match"),
        (
            {"matcher_list": {"matchers": [{"predicate": single, "on_match": route_action("a")}]}},
            "matcher.matcher_list.matchers[0].predicate.single_predicate.custom_match",
        ),
        ({"on_no_match": {"action": custom}}, "matcher.on_no_match.action.typed_config"),
    ):
        found, issues = host(matcher)
        assert (found.routes, found.matcher) == ((), MatcherList(()))
        assert [issue.path for issue in issues] == [f"virtual_hosts[0].{path}"]
        assert "no route of this virtual host matches" in issues[0].reason


def test_what_envoy_refuses_of_a_matcher() -> None:
    with pytest.raises(ResourceError, match="has no place here"):
        host(tree(f"{TYPE}envoy.type.matcher.v3.HttpRequestQueryParamMatchInput", query_param="q"))
    with pytest.raises(ResourceError, match=r"on_no_match.keep_matching: has no place here"):
        host({"on_no_match": {**route_action("a"), "keep_matching": True}})
    with pytest.raises(ResourceError, match="only one of routes, matcher"):
        host({"on_no_match": route_action("a")}, routes=[{"match": {"prefix": "/"}, "route": {"cluster": "c"}}])

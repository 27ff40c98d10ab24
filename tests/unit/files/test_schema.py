from typing import Any

import pytest

from meshlib.sources.files.located import format_path
from meshlib.sources.files.messages import to_message
from meshlib.sources.files.type_registry import CLUSTER, LISTENER, ROUTE_CONFIGURATION, message_class, suggest_type
from meshlib.sources.files.yaml_tree import parse_documents

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def problems_of(text: str, type_name: str = CLUSTER) -> list[tuple[str, str, str]]:
    (document,) = parse_documents(text)
    _, problems = to_message(document.value, type_name)
    return [(format_path(problem.path), problem.reason, problem.fix) for problem in problems]


@pytest.mark.parametrize(
    "text, path, reason, fix",
    [
        ("conect_timeout: 1s", "conect_timeout", "Cluster has no field 'conect_timeout'",
         "did you mean 'connect_timeout'?"),
        ("conectTimeout: 1s", "conectTimeout", "no field", "did you mean 'connect_timeout'?"),
        ("xyzzy: 1", "xyzzy", "no field", "its fields are"),
        ("connect_timeout: 15", "connect_timeout", "15 is not a duration", "durations are strings of seconds: 15s"),
        ('connect_timeout: "15"', "connect_timeout", "'15' is not a duration", "strings of seconds: 15s"),
        ("connect_timeout: 500ms", "connect_timeout", "'500ms' is not a duration", "strings of seconds: 0.5s"),
        ("connect_timeout: 2m", "connect_timeout", "'2m' is not a duration", "strings of seconds: 120s"),
        ("connect_timeout: soon", "connect_timeout", "is not a duration", "like '15s'"),
        ("connect_timeout: 999999999999s", "connect_timeout", "is not a duration", ""),
        ("connect_timeout: [1s]", "connect_timeout", "is not a duration", ""),
        ("type: static", "type", "'static' is no value of DiscoveryType", "did you mean STATIC?"),
        ("type: SOMETHING", "type", "no value", "one of STATIC"),
        ("type: 17", "type", "17 is no value of DiscoveryType", "one of"),
        ("name: 12", "name", "12 where text belongs", "put it in quotes"),
        ("name: yes", "name", "True where text belongs", "put it in quotes"),
        ("respect_dns_ttl: maybe", "respect_dns_ttl", "is not a boolean", "true or false"),
        ("per_connection_buffer_limit_bytes: -1", "per_connection_buffer_limit_bytes", "out of range",
         "0 to 4294967295"),
        ("per_connection_buffer_limit_bytes: 1.5", "per_connection_buffer_limit_bytes", "whole number", ""),
        ("per_connection_buffer_limit_bytes: x", "per_connection_buffer_limit_bytes", "whole number", ""),
        ("common_lb_config: {healthy_panic_threshold: {value: x}}", "common_lb_config.healthy_panic_threshold.value",
         "is not a number", ""),
        ("circuit_breakers: {thresholds: {}}", "circuit_breakers.thresholds", "a mapping where a list",
         "each item with '- '"),
        ("load_assignment: []", "load_assignment", "a list where ClusterLoadAssignment belongs", "its fields are"),
        ("load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {adress: {}}}]}]}",
         "load_assignment.endpoints[0].lb_endpoints[0].endpoint.adress", "no field", "did you mean 'address'?"),
        ("metadata: {filter_metadata: []}", "metadata.filter_metadata", "a list where a mapping", ""),
        ("type: EDS\ncluster_type: {name: x}", "cluster_type", "exclude each other", "keep one"),
        ("transport_socket: {name: x, typed_config: {a: 1}}", "transport_socket.typed_config",
         'has no "@type"', "begin it"),
        (f'transport_socket: {{name: x, typed_config: {{"@type": "{TLS}.UpstreamTlsContex"}}}}',
         "transport_socket.typed_config.@type", "unknown type", f"did you mean {TLS[20:]}.UpstreamTlsContext?"),
        (f'transport_socket: {{name: x, typed_config: {{"@type": "{TLS}.UpstreamTlsContext", sni: 1}}}}',
         "transport_socket.typed_config.sni", "1 where text belongs", "quotes"),
    ],
)  # fmt: skip
def test_a_mistake_has_a_path_a_reason_and_a_fix(text: str, path: str, reason: str, fix: str) -> None:
    found = problems_of(text)
    assert [(place, reason in why, fix in how) for place, why, how in found] == [(path, True, True)], found


def test_every_mistake_is_found_at_once() -> None:
    found = problems_of("nam: a\ntype: X\nconnect_timeout: 1\nlb_policy: ROUND_ROBIN\n")
    assert [path for path, _, _ in found] == ["nam", "type", "connect_timeout"]


def test_bytes_are_base64() -> None:
    listener = "default_filter_chain: {filters: []}\nudp_listener_config: {}\n"
    assert problems_of(listener, LISTENER) == []
    route = "virtual_hosts: [{name: a, domains: ['*'], routes: [{match: {prefix: /}, direct_response: %s}]}]"
    good = route % "{status: 200, body: {inline_bytes: aGk=}}"
    bad = route % "{status: 200, body: {inline_bytes: '*'}}"
    assert problems_of(good, ROUTE_CONFIGURATION) == []
    ((path, reason, _),) = problems_of(bad, ROUTE_CONFIGURATION)
    assert path.endswith("body.inline_bytes")
    assert "not base64" in reason


def test_what_is_right_becomes_the_message() -> None:
    text = """
    name: a
    connectTimeout: 0.25s          # camelCase is proto JSON too
    lb_policy: 1                   # and so are enum numbers
    per_connection_buffer_limit_bytes: "32768"
    metadata: {filter_metadata: {envoy.lb: {version: v1, weight: 3}}}
    respect_dns_ttl: null          # null is "not set"
    common_lb_config: {healthy_panic_threshold: {value: 12.5}}
    """
    (document,) = parse_documents(text)
    message, problems = to_message(document.value, CLUSTER)
    assert problems == []
    assert message is not None
    expected = message_class(CLUSTER)
    assert expected is not None
    wanted = expected()
    wanted.name, wanted.lb_policy = "a", 1  # type: ignore[attr-defined]
    wanted.connect_timeout.nanos = 250_000_000  # type: ignore[attr-defined]
    wanted.per_connection_buffer_limit_bytes.value = 32768  # type: ignore[attr-defined]
    wanted.metadata.filter_metadata["envoy.lb"].update({"version": "v1", "weight": 3})  # type: ignore[attr-defined]
    wanted.common_lb_config.healthy_panic_threshold.value = 12.5  # type: ignore[attr-defined]
    assert message == wanted


def test_a_foreign_extension_is_kept_as_a_typed_struct_and_reported() -> None:
    text = 'name: a\ntransport_socket: {name: x, typed_config: {"@type": type.googleapis.com/io.istio.Foo, a: 1}}'
    (document,) = parse_documents(text)
    message, problems = to_message(document.value, CLUSTER)
    assert [problem.severity for problem in problems] == ["degraded"]
    struct_class = message_class("xds.type.v3.TypedStruct")
    assert message is not None
    assert struct_class is not None
    struct = struct_class.FromString(message.transport_socket.typed_config.value)  # type: ignore[attr-defined]
    assert struct.type_url == "type.googleapis.com/io.istio.Foo"  # type: ignore[attr-defined]
    assert dict(struct.value) == {"a": 1}  # type: ignore[attr-defined]


def with_config(config: dict[str, Any]) -> dict[str, Any]:
    return {"name": "a", "transport_socket": {"name": "x", "typed_config": config}}


@pytest.mark.parametrize(
    "kind, rest",
    [
        ("Struct", {}), ("Struct", {"value": None}), ("Value", {}), ("ListValue", {}), ("Duration", {}), ("Any", {}),
        ("Timestamp", {}), ("FieldMask", {}), ("BoolValue", {}), ("StringValue", {}), ("UInt32Value", {"value": None}),
    ],
)  # fmt: skip
def test_a_well_known_type_without_its_value_is_empty_as_in_envoy(kind: str, rest: dict[str, Any]) -> None:
    url = f"type.googleapis.com/google.protobuf.{kind}"
    message, problems = to_message(with_config({"@type": url, **rest}), CLUSTER)
    (found,) = problems
    assert (format_path(found.path), found.severity) == ("transport_socket.typed_config.@type", "degraded")
    assert found.reason == f'the {kind} has no "value": it is taken as empty, as Envoy does'
    assert found.fix == 'write what it holds under "value"'
    config = message.transport_socket.typed_config  # type: ignore[union-attr]
    assert config.type_url == url
    assert config.value in (b"", b"\x08\x00")  # a Value is null then


@pytest.mark.parametrize(
    "kind, rest, path",
    [
        ("Struct", {"value": {}, "a": 1}, "a"),
        ("Struct", {"value": []}, "value"),
        ("FieldMask", {"value": {}}, "value"),
        ("Duration", {"value": 1}, "value"),
        ("Empty", {"value": {}}, "value"),
    ],
)
def test_a_well_known_type_holds_its_value_and_no_more(kind: str, rest: dict[str, Any], path: str) -> None:
    message, problems = to_message(
        with_config({"@type": f"type.googleapis.com/google.protobuf.{kind}", **rest}), CLUSTER
    )
    assert message is None
    found = [(format_path(problem.path), problem.severity) for problem in problems]
    assert found == [(f"transport_socket.typed_config.{path}", "error")]


def test_empty_has_no_value() -> None:
    message, problems = to_message(with_config({"@type": "type.googleapis.com/google.protobuf.Empty"}), CLUSTER)
    assert (message is not None, problems) == (True, [])


@pytest.mark.parametrize(
    "name", ["os.path.Join", "envoy..Cluster", "", "Cluster", "envoy.no.such.package.V", "envoy.Nothing"]
)
def test_a_type_name_imports_nothing_but_the_protos(name: str) -> None:
    assert message_class(name) is None
    assert suggest_type(name) == ""

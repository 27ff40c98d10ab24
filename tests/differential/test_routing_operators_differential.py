"""The `%...%` operators of header values, bodies, paths and hosts: the same text in Envoy and in meshlib."""

import re
from typing import Any

import pytest

from differential.routing_envoy import RefusedError, RoutingEnvoy
from differential.routing_flow import called, runtime
from differential.routing_observed import Ask
from differential.routing_ours import head_of
from meshlib.engine.commands import Reply
from meshlib.model.operators import KNOWN, NO_VALUE
from meshlib.model.report import ResourceError
from parts.flow import Player

Json = dict[str, Any]
METADATA = {"filter_metadata": {"m": {"k": "vé", "s": {"i": 1, "t": True, "x": None}, "l": [1, "a"], "n": 1.5}}}
SAME = (
    *("REQ(x-a)", "REQ(x-none?x-a):1", "REQ(x-none)", "REQ(:PATH)", "REQUEST_HEADER(:AUTHORITY)", "REQ(x-m)"),
    *("RESP(x-resp-a)", "RESPONSE_HEADER(x-none?x-resp-a):3", "RESP(x-none)"),
    *("PROTOCOL", "PROTOCOL()", "UPSTREAM_PROTOCOL", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_FLAGS"),
    *("RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)", "RESPONSE_FLAGS_LONG", "ROUTE_NAME", "LOCAL_REPLY_BODY"),
    *("UPSTREAM_HOST", "UPSTREAM_HOST_NAME", "UPSTREAM_HOST_NAME_WITHOUT_PORT", "UPSTREAM_HOSTS_ATTEMPTED"),
    *("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", "UPSTREAM_HOST_NAMES_ATTEMPTED", "UPSTREAM_REMOTE_ADDRESS"),
    *("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_REMOTE_PORT"),
    *("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(99)", "UPSTREAM_CLUSTER"),
    *("UPSTREAM_CLUSTER_RAW", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "HOSTNAME", "ENVIRONMENT(HOME)", "ENVIRONMENT(HOME):2"),
    *("ENVIRONMENT(NO_SUCH_VARIABLE)", "REQUEST_DURATION", "TRACE_ID", "SPAN_ID", "STREAM_ID", "GRPC_STATUS"),
    *("GRPC_STATUS(NUMBER)", "GRPC_STATUS(SNAKE_STRING)", "GRPC_STATUS_NUMBER", "COMMON_DURATION(DS_RX_BEG:NEVER:ms)"),
    *(
        "METADATA(ROUTE:m:k)",
        "METADATA(ROUTE:m:k):2",
        "METADATA(ROUTE:m:s:i)",
        "METADATA(ROUTE:m)",
        "METADATA(ROUTE:m:n)",
    ),
    *("METADATA(ROUTE:m:l)", "METADATA(ROUTE:m:s:x)", "METADATA(ROUTE:m:none)", "METADATA(ROUTE:none)"),
    *("METADATA(VIRTUAL_HOST:m:s)", "METADATA(CLUSTER:m)", "METADATA(UPSTREAM_HOST:m:k)", "METADATA(DYNAMIC:m)"),
    *(
        "CLUSTER_METADATA(m:k)",
        "UPSTREAM_METADATA(m)",
        "DYNAMIC_METADATA(m:k)",
        "FILTER_STATE(x)",
        "METADATA(LISTENER:m)",
    ),
    *("REQUESTED_SERVER_NAME", "REQUESTED_SERVER_NAME(SNI_FIRST)", "REQUESTED_SERVER_NAME(HOST_FIRST:HOST)"),
    *("REQUESTED_SERVER_NAME(HOST_FIRST:ORIG)", "QUERY_PARAM(x)", "QUERY_PARAM(x):2", "QUERY_PARAM(y)"),
    *("QUERY_PARAM(none)", "QUERY_PARAMS", "QUERY_PARAMS(ORIG):4", "QUERY_PARAMS(DECODED)", "PATH", "PATH(NQ)"),
    *("PATH(WQ:ORIG)", "PATH(NQ:PATH)", "PATH(:ORIG):3", "TRAILER(x)", "DOWNSTREAM_PEER_SUBJECT"),
    'COALESCE({"operators": ["TRACE_ID", {"command": "REQ", "param": "x"}, {"command": "REQ", "param": "x-a"}]}):2',
    'COALESCE({"operators": ["TRACE_ID"]})',
)
DATES = (
    "START_TIME",
    "START_TIME_LOCAL",
    "START_TIME(%s.%3f)",
    "START_TIME(%Y/%m/%dT%H:%M:%S%z_%6f_%f_%1f_%E3S_%j)",
    "EMIT_TIME(%E6S|%b %e %a)",
    "EMIT_TIME_LOCAL(%Ez)",
    "DURATION",
    "RESPONSE_DURATION",
    "COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)",
)
WRONG = (
    *("NO_SUCH", "REQ()", "REQ(a?b?c)", "REQ", "ENVIRONMENT", "ENVIRONMENT()", "PROTOCOL(x)", "PATH(BAD)"),
    *("REQUESTED_SERVER_NAME(BAD)", "GRPC_STATUS(BAD)", "COMMON_DURATION(a)", "HOSTNAME(x)", "HOSTNAME:1"),
    *("QUERY_PARAM", "QUERY_PARAMS(BAD)", "ROUTE_NAME:2", "START_TIME(%s):5", "UPSTREAM_CLUSTER:1"),
    'COALESCE({"operators": ["NO_SUCH"]})',
)
AT_ONCE = 30  # headers: Envoy and http.client take no more than 100
ASK = Ask("GET", "a.test:80", "/p?x=a%20b%41%2f%C3%A9&y=2&z", (("x-a", "val"), ("x-m", "m")))
SHAPE = re.compile(r"[0-9]+")


def stamped(operators: tuple[str, ...], *, direct: bool) -> Json:
    """Every operator in a request and a response header of its own."""
    headers = [
        {"header": {"key": f"x-p-{number}", "value": f"[%{operator}%]"}, "keep_empty_value": True}
        for number, operator in enumerate(operators)
    ]
    action: Json = {"route": {"cluster": "c0", "prefix_rewrite": "/re"}}
    if direct:
        action = {"direct_response": {"status": 403, "body": {"inline_string": "no"}}}
    route = {
        "name": "my-route",
        "match": {"prefix": "/"},
        "metadata": METADATA,
        "request_headers_to_add": headers,
        "response_headers_to_add": headers,
        **action,
    }
    return {"virtual_hosts": [{"name": "h", "domains": ["*"], "metadata": METADATA, "routes": [route]}]}


def test_every_operator_is_tried() -> None:
    tried = {re.split(r"[(:]", operator)[0] for operator in (*SAME, *DATES)}
    assert tried >= KNOWN
    assert not KNOWN & NO_VALUE


@pytest.mark.timeout(300)
@pytest.mark.parametrize("direct", [False, True])
def test_operators(routing_envoy: RoutingEnvoy, direct: bool) -> None:
    for start in range(0, len(SAME), AT_ONCE):
        some = SAME[start : start + AT_ONCE]
        config = stamped(some, direct=direct)
        routing_envoy.push(config)
        assert called(runtime(config, routing_envoy.ports), ASK) == routing_envoy.ask(ASK), some


def test_dates_and_durations_have_the_same_shape(routing_envoy: RoutingEnvoy) -> None:
    config = stamped(DATES, direct=False)
    routing_envoy.push(config)
    ours = runtime(config, routing_envoy.ports)
    ours.wall_clock = lambda: 1_700_000_000.25
    for number in range(len(DATES)):
        name = f"x-p-{number}"
        mine, theirs = (
            SHAPE.sub("9", dict(seen.headers)[name]) for seen in (called(ours, ASK), routing_envoy.ask(ASK))
        )
        assert re.sub("[A-Z][a-z]{2}", "Mon", mine) == re.sub("[A-Z][a-z]{2}", "Mon", theirs), DATES[number]


@pytest.mark.parametrize("operator", WRONG)
def test_what_envoy_refuses_is_refused_or_left_out_and_told(operator: str, routing_envoy: RoutingEnvoy) -> None:
    config = stamped((operator,), direct=False)
    with pytest.raises(RefusedError):
        routing_envoy.push(config)
    try:
        seen = called(runtime(config, routing_envoy.ports), ASK)
    except ResourceError:
        return
    assert "x-p-0" not in dict(seen.headers)  # an operator that is not known at all


TEXTS = (
    "plain",
    "",
    "%REQ(x-a)%|%REQ(none)%|%LOCAL_REPLY_BODY%|%RESPONSE_CODE%|%RESP(x-r)%|%ROUTE_NAME%",
    "é %% %REQ(x-a):2%",
)
OBJECT = {
    "a": "%REQ(x-a)%",
    "n": "%REQ(none)%",
    "m": "x%REQ(none)%y",
    "i": 1,
    "f": 1.5,
    "b": True,
    "z": None,
    "l": ["%REQ(none)%", 1, {"d": "%RESPONSE_CODE%"}],
    "é": 'ü<>&"',
    "body": "%LOCAL_REPLY_BODY%",
}
FORMATS: tuple[Json, ...] = (
    *({"text_format": text} for text in TEXTS),
    *({"text_format_source": {"inline_string": text}, "omit_empty_values": True} for text in TEXTS[2:]),
    {"text_format": "<p>", "content_type": "text/html; charset=UTF-8"},
    {"json_format": OBJECT},
    {"json_format": OBJECT, "omit_empty_values": True, "content_type": "application/problem+json"},
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "body", [{"inline_string": "orig"}, {"inline_bytes": "b3Jp"}, {"environment_variable": "HOME"}]
)
def test_bodies(body: Json, routing_envoy: RoutingEnvoy) -> None:
    for form in ({}, *FORMATS):
        answer = {"status": 403, "body": body, **({"body_format": form} if form else {})}
        stamp = [{"header": {"key": "x-r", "value": "resp"}}]
        route = {"match": {"prefix": "/"}, "direct_response": answer, "response_headers_to_add": stamp}
        config = {"virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [route]}]}
        routing_envoy.push(config)
        status, headers, content = routing_envoy._send(ASK)
        reply = Player(runtime(config, routing_envoy.ports), head_of(ASK)).last
        assert isinstance(reply, Reply)
        assert (reply.status, reply.body) == (status, content), form
        ours = {name.decode(): value.decode() for name, value in reply.headers}
        assert ours.get("content-type") == dict(headers).get("content-type"), form


PATHS = ("/new%PATH(NQ)%", "%REQ(none)%", "/abs", "/%REQ(x-a)%/%QUERY_PARAM(y)%")
HOSTS = ("h.%REQ(x-a)%", "%REQ(none)%", "%REQ(x-m)%-%UPSTREAM_CLUSTER%-%UPSTREAM_HOST%", "plain.host")


@pytest.mark.timeout(300)
def test_formatted_paths_and_hosts(routing_envoy: RoutingEnvoy) -> None:
    stamp = [{"header": {"key": "x-m", "value": "mut"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    for field, texts in (("path_rewrite", PATHS), ("host_rewrite", HOSTS)):
        for text in texts:
            action = {"cluster": "c0", field: text, "append_x_forwarded_host": True}
            route = {"match": {"prefix": "/"}, "route": action, "request_headers_to_add": stamp}
            config = {"virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [route]}]}
            routing_envoy.push(config)
            assert called(runtime(config, routing_envoy.ports), ASK) == routing_envoy.ask(ASK), text

"""Active health checks: what each field comes to, what is left out with a report, and what is refused."""

from typing import Any

import pytest

from meshlib.model.endpoint import Address, EndpointHealthCheck
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.health import GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from meshlib.model.metadata import Struct
from meshlib.model.report import ResourceError
from meshlib.model.strings import StringMatcher
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT
from parts import xds_resources as xds

Json = dict[str, Any]
LEAST: Json = {
    "timeout": "1s",
    "interval": "2s",
    "unhealthy_threshold": 3,
    "healthy_threshold": 4,
    "http_health_check": {"path": "/healthz"},
}


def decoded(*checks: Json, **cluster: Any) -> Any:
    return decode_message(xds.message(CLUSTER, {**xds.eds_cluster("a"), "health_checks": list(checks), **cluster}))


def only(check: Json) -> HealthCheck:
    found = decoded(check)
    assert not found.issues
    (made,) = found.resource.health_checks
    return made  # type: ignore[no-any-return]


def test_what_need_not_be_said_is_as_in_envoy() -> None:
    made = only(LEAST)
    assert made == HealthCheck(HttpHealthCheck("/healthz"), 1.0, 2.0, 3, 4)
    assert made.no_traffic_interval == 60.0
    assert made.reuse_connection
    assert made.check.expected_statuses == ((200, 201),)  # type: ignore[union-attr]


def test_all_times_are_taken_over() -> None:
    times = {
        "initial_jitter": 1.5,
        "interval_jitter": 2.5,
        "no_traffic_interval": 3.5,
        "no_traffic_healthy_interval": 4.5,
        "unhealthy_interval": 5.5,
        "unhealthy_edge_interval": 6.5,
        "healthy_edge_interval": 7.5,
    }
    made = only({**LEAST, **{name: f"{seconds}s" for name, seconds in times.items()}, "interval_jitter_percent": 20})
    assert {name: getattr(made, name) for name in times} == times
    assert made.interval_jitter_percent == 20


def test_an_http_check() -> None:
    config = {
        "host": "ready.test",
        "path": "/ready",
        "method": "POST",
        "send": {"text": "6869"},
        "receive": [{"text": "4f4B"}, {"binary": "eWVz"}],
        "response_buffer_size": 5,
        "request_headers_to_add": [{"header": {"key": "X-A", "value": "1"}}],
        "request_headers_to_remove": ["User-Agent"],
        "expected_statuses": [{"start": 200, "end": 204}, {"start": 301, "end": 302}],
        "retriable_statuses": [{"start": 429, "end": 430}],
        "service_name_matcher": {"prefix": "pay"},
    }
    assert only({**LEAST, "http_health_check": config}).check == HttpHealthCheck(
        "/ready",
        "ready.test",
        "POST",
        b"hi",
        (b"OK", b"yes"),
        5,
        HeaderMutations((HeaderValueOption("x-a", "1"),), ("user-agent",)),
        ((200, 204), (301, 302)),
        ((429, 430),),
        StringMatcher("prefix", "pay"),
    )


def test_tcp_and_grpc_checks() -> None:
    tcp = {key: value for key, value in LEAST.items() if key != "http_health_check"}
    assert only({**tcp, "tcp_health_check": {}}).check == TcpHealthCheck()
    config: Json = {"send": {"text": "70"}, "receive": [{"text": "71"}]}
    assert only({**tcp, "tcp_health_check": config}).check == TcpHealthCheck(b"p", (b"q",))
    proxied: Json = {"proxy_protocol_config": {"version": "V2"}}
    assert only({**tcp, "tcp_health_check": proxied}).check == TcpHealthCheck(proxy_protocol="V2")
    grpc = {"service_name": "s", "authority": "a", "initial_metadata": [{"header": {"key": "k", "value": "v"}}]}
    expected = GrpcHealthCheck("s", "a", HeaderMutations((HeaderValueOption("k", "v"),)))
    assert only({**tcp, "grpc_health_check": grpc}).check == expected


def test_its_tls() -> None:
    made = only(
        {
            **LEAST,
            "tls_options": {"alpn_protocols": ["http/1.1"]},
            "transport_socket_match_criteria": {"health": True},
        }
    )
    assert made.alpn_protocols == ("http/1.1",)
    assert made.transport_socket_match_criteria == Struct((("health", True),))


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"http_health_check": {"path": "/", "codec_client_type": "HTTP2"}}, ".codec_client_type", "HTTP2"),
        ({"custom_health_check": {"name": "envoy.health_checkers.redis"}}, ".custom_health_check", "redis"),
    ],
)
def test_a_check_that_cannot_be_made_is_reported_and_holds_nobody_out(change: Json, path: str, words: str) -> None:
    least = {key: value for key, value in LEAST.items() if key != "http_health_check"}
    found = decoded({**least, **change}, LEAST)
    assert len(found.resource.health_checks) == 1
    (issue,) = found.issues
    assert issue.path.startswith("health_checks[0]")
    assert issue.path.endswith(path)
    assert words in issue.reason
    assert "not checked" in issue.reason


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"http_health_check": {"path": "/", "receive": [{"text": "4"}]}}, "receive[0].text"),
        ({"http_health_check": {"path": "/", "receive": [{"text": "no"}]}}, "receive[0].text"),
        ({"http_health_check": {"path": "/", "send": {"text": "41"}}}, "send"),
        (
            {"http_health_check": {"path": "/", "receive": [{"text": "4142"}], "response_buffer_size": 1}},
            "receive",
        ),
        ({"http_health_check": {"path": "/", "expected_statuses": [{"start": 99, "end": 200}]}}, "expected_statuses"),
        ({"http_health_check": {"path": "/", "retriable_statuses": [{"start": 500, "end": 601}]}}, "retriable_st"),
        ({"http_health_check": {"path": "/", "retriable_statuses": [{"start": 500, "end": 500}]}}, "retriable_st"),
        ({"http_health_check": {"path": ""}}, "path"),
        ({"http_health_check": {"path": "/", "method": "CONNECT"}}, "method"),
        ({"timeout": "0s"}, "timeout"),
        ({"interval": None}, "interval"),
        ({"healthy_threshold": None}, "healthy_threshold"),
        ({"http_health_check": None}, "health_checks[0]"),
    ],
)
def test_what_envoy_refuses(change: Json, path: str) -> None:
    check = {key: value for key, value in {**LEAST, **change}.items() if value is not None}
    with pytest.raises(ResourceError) as caught:
        decoded(check)
    assert path in str(caught.value)


def test_when_is_in_the_metadata() -> None:
    def when(value: Any) -> Any:
        return decoded(LEAST, metadata={"filter_metadata": {"meshlib.health_check": {"when": value}}})

    assert when("ejected").resource.health_checks_when == "ejected"
    assert when("always").resource.health_checks_when == "always"
    assert decoded(LEAST).resource.health_checks_when == "always"
    found = when("sometimes")
    assert found.resource.health_checks_when == "always"
    assert [issue.path for issue in found.issues] == ['metadata.filter_metadata["meshlib.health_check"].when']


def test_new_hosts_may_be_ignored_until_checked_and_a_check_may_let_ejected_ones_stay() -> None:
    assert decoded(
        LEAST, common_lb_config={"ignore_new_hosts_until_first_hc": True}
    ).resource.ignore_new_hosts_until_first_hc
    outliers = {"successful_active_health_check_uneject_host": False, "enforcing_success_rate": 0}
    detection = decoded(LEAST, outlier_detection=outliers).resource.outlier_detection
    assert not detection.successful_active_health_check_uneject_host
    assert decoded(LEAST, outlier_detection={}).resource.outlier_detection.successful_active_health_check_uneject_host


def test_where_an_endpoint_is_checked() -> None:
    def checked(config: Json) -> Any:
        found = xds.endpoint("10.0.0.1", 80)
        found["endpoint"]["health_check_config"] = config
        made = decode_message(xds.message(CLUSTER_LOAD_ASSIGNMENT, xds.assignment("a", found)))
        return made.resource.localities[0].endpoints[0].health_check

    assert checked({"port_value": 81, "hostname": "h"}) == EndpointHealthCheck(81, "h")
    assert checked({"disable_active_health_check": True}) == EndpointHealthCheck(disabled=True)
    address = {"socket_address": {"address": "10.0.0.2", "port_value": 82}}
    assert checked({"address": address}) == EndpointHealthCheck(address=Address("10.0.0.2", 82))
    with pytest.raises(ResourceError, match="port_value"):
        checked({"port_value": 65536})

"""What Envoy can do and a client library cannot is left out alone, so that the rest of the resource stays usable."""

from __future__ import annotations

import pytest

from meshlib.model.headers import HeaderValueOption
from meshlib.model.report import ResourceError
from meshlib.model.route import RouteAction, RouteConfiguration
from meshlib.routing.router import RouteTable
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import CLUSTER, ROUTE_CONFIGURATION
from parts import xds_resources as xds


def decoded(route: dict[str, object]) -> tuple[RouteConfiguration, Decoded]:
    text = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]}
    found = decode_message(xds.message(ROUTE_CONFIGURATION, text))
    assert isinstance(found.resource, RouteConfiguration)
    return found.resource, found


def headers(*values: str) -> dict[str, object]:
    added = [{"header": {"key": f"x-{index}", "value": value}} for index, value in enumerate(values)]
    return {"match": {"prefix": "/"}, "route": {"cluster": "a"}, "request_headers_to_add": added}


def test_a_header_whose_formatter_is_not_known_is_left_out_and_told() -> None:
    config, found = decoded(headers("%CEL(1)%", "%REQ(x-user?x-guest):8%", "50%%", "a%NO_SUCH%b"))
    (route,) = config.virtual_hosts[0].routes
    assert route.request_headers.add == (
        HeaderValueOption("x-1", "%REQ(x-user?x-guest):8%"),
        HeaderValueOption("x-2", "50%%"),
    )
    assert [issue.path.rpartition("routes[0].")[2] for issue in found.issues] == [
        "request_headers_to_add[0].header.value",
        "request_headers_to_add[3].header.value",
    ]
    assert {issue.severity for issue in found.issues} == {"degraded"}
    RouteTable(config)  # and what is left compiles


@pytest.mark.parametrize("value", ["100%", "%", "%lower%", "%REQ(x"])
def test_a_stray_percent_sign_is_refused_as_by_envoy(value: str) -> None:
    with pytest.raises(ResourceError, match="written %%") as refused:
        decoded(headers(value))
    assert refused.value.path == "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value"


def test_what_is_kept_in_the_model_and_not_acted_on_is_told() -> None:
    policies = [{"connection_properties": {"source_ip": True}}]
    action = {"cluster": "a", "cluster_not_found_response_code": "NOT_FOUND", "hash_policy": policies}
    config, found = decoded({"match": {"prefix": "/"}, "route": action})
    kept = config.virtual_hosts[0].routes[0].action
    assert isinstance(kept, RouteAction)
    assert (kept.cluster_not_found_response_code, kept.hash_policies[0].kind) == (404, "source_ip")
    assert [issue.path.rpartition("route.")[2] for issue in found.issues] == ["hash_policy[0].connection_properties"]


def test_where_a_call_passes_through_to_is_its_own_affair() -> None:
    text = {
        "name": "c",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "upstream_port_override": 8080},
    }
    issues = decode_message(xds.message(CLUSTER, text)).issues
    assert [(issue.severity, issue.path.rpartition(".")[2]) for issue in issues] == [
        ("degraded", "use_http_header"),
        ("degraded", "upstream_port_override"),
    ]

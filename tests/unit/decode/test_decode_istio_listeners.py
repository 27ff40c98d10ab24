"""Listeners in the shapes istiod sends: what of them routes calls, and how briefly the rest is told."""

from typing import Any

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.listener import Listener
from meshlib.model.route import RouteAction, RouteConfiguration
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import CLUSTER, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

Json = dict[str, Any]
FILTERS = "type.googleapis.com/envoy.extensions.filters.network"
TCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"


def tcp_chain(cluster: str, **match: Any) -> Json:
    proxy = {"@type": f"type.googleapis.com/{TCP}", "stat_prefix": cluster, "cluster": cluster}
    return {"filter_chain_match": match, "filters": [{"name": "tcp", "typed_config": proxy}]}


def http_chain(**match: Any) -> Json:
    (chain,) = xds.socket_listener("l", 9080, "9080")["filter_chains"]
    return {**chain, "filter_chain_match": match}


def decoded(*chains: Json, **fields: Any) -> tuple[Listener, Decoded]:
    import envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2  # noqa: F401  JSON needs the type

    listener = {**xds.socket_listener("0.0.0.0_9080", 9080, "9080"), "filter_chains": list(chains), **fields}
    found = decode_message(xds.message(LISTENER, listener))
    assert isinstance(found.resource, Listener)
    return found.resource, found


def paths(found: Decoded) -> list[str]:
    return [issue.path for issue in found.issues]


def test_a_port_of_http_passes_what_is_no_http_on_and_says_so_in_a_line() -> None:
    match = {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}
    listener, found = decoded(http_chain(**match), default_filter_chain=tcp_chain("PassthroughCluster"))
    assert [manager.routes for manager in listener.managers] == ["9080"]
    assert paths(found) == ["default_filter_chain.filters"]


@pytest.mark.parametrize(
    "match", [{"server_names": ["a.test"]}, {"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
              {"transport_protocol": "tls"}, {"application_protocols": ["istio"]}]
)  # fmt: skip
def test_a_chain_of_http_that_not_every_call_would_come_to_is_told(match: Json) -> None:
    listener, found = decoded(http_chain(**match))
    assert len(listener.managers) == 1
    assert paths(found) == ["filter_chains[0].filter_chain_match"]


def test_tls_that_is_passed_through_is_routed_by_server_name() -> None:
    listener, found = decoded(tcp_chain("outbound|443||a.test", server_names=["a.test", "*.b.test"]))
    (manager,) = listener.managers
    assert isinstance(manager.routes, RouteConfiguration)
    (host,) = manager.routes.virtual_hosts
    (route,) = host.routes
    assert host.domains == ("a.test", "*.b.test")
    assert route.action == RouteAction("outbound|443||a.test", timeout=None)
    assert found.references.clusters == {"outbound|443||a.test"}
    assert found.issues == ()


@pytest.mark.parametrize("cluster", ["PassthroughCluster", "BlackHoleCluster"])
def test_what_no_listener_takes_goes_where_the_last_one_says(cluster: str) -> None:
    chains = (tcp_chain("BlackHoleCluster", destination_port=15001), tcp_chain(cluster))
    listener, found = decoded(*chains, use_original_dst=True)
    (manager,) = listener.managers
    assert isinstance(manager.routes, RouteConfiguration)
    assert [host.domains for host in manager.routes.virtual_hosts] == [("*",)]
    assert found.references.clusters == {cluster}
    assert paths(found) == ["filter_chains[0].filters"]


def test_a_listener_of_connections_routes_nothing() -> None:
    listener, found = decoded(tcp_chain("outbound|27017||mongo.test"))
    assert listener.managers == ()
    assert paths(found) == ["filter_chains[0].filters"]


@pytest.mark.parametrize("fields, bound", [({}, True), ({"bind_to_port": False}, False), ({"bind_to_port": True}, True),
                                           ({"deprecated_v1": {"bind_to_port": False}}, False)])  # fmt: skip
def test_whether_a_listener_has_a_port_of_its_own(fields: Json, bound: bool) -> None:
    assert decoded(http_chain(), **fields)[0].bound is bound


def test_of_a_server_s_listener_one_line_is_told() -> None:
    tls = {"name": "tls", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
    chain = {**http_chain(destination_port=15006), "transport_socket": tls}
    listener, found = decoded(chain, traffic_direction="INBOUND", listener_filters=[{"name": "x", "typed_config": {
        "@type": "type.googleapis.com/google.protobuf.Empty"}}])  # fmt: skip
    assert listener.direction == "INBOUND"
    assert len(listener.managers) == 1
    assert paths(found) == ["traffic_direction"]


def test_names_for_metrics_may_be_empty_as_for_proxyless_clients() -> None:
    found = decode_message(xds.message(LISTENER, xds.api_listener(stat_prefix="")))
    assert found.issues == ()
    table = xds.route_configuration()
    table["virtual_hosts"][0]["name"] = ""
    assert decode_message(xds.message(ROUTE_CONFIGURATION, table)).issues == ()


@pytest.mark.parametrize("timeout, limit, kept", [("0s", "0s", None), ("2s", "2s", None), ("2s", "0s", 0.0),
                                                  ("0s", "2s", 2.0)])  # fmt: skip
def test_a_bound_of_grpc_deadlines_that_says_nothing_new_is_not_kept(
    timeout: str, limit: str, kept: float | None
) -> None:
    action = {"cluster": "a", "timeout": timeout, "max_grpc_timeout": limit}
    table = xds.route_configuration("r", {"match": {"prefix": "/"}, "route": action})
    found = decode_message(xds.message(ROUTE_CONFIGURATION, table))
    assert found.issues == ()
    assert isinstance(found.resource, RouteConfiguration)
    (route,) = found.resource.virtual_hosts[0].routes
    assert isinstance(route.action, RouteAction)
    bound = route.action.grpc_timeout
    assert (bound and (bound.maximum, bound.instead_of_route)) == (None if kept is None else (kept, True))


def test_a_dynamic_forward_proxy_resolves_what_is_called_as_a_call_does_anyway() -> None:
    import envoy.extensions.clusters.dynamic_forward_proxy.v3.cluster_pb2  # noqa: F401  JSON needs the type

    kind = "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
    config = {"@type": kind, "dns_cache_config": {"name": "cache"}}
    cluster = {
        "name": "outbound|80||*.test",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": config},
    }
    found = decode_message(xds.message(CLUSTER, cluster))
    assert isinstance(found.resource, Cluster)
    assert found.resource.type == "ORIGINAL_DST"
    assert found.issues == ()

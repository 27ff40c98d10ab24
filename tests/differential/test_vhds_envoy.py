"""Virtual hosts on demand: what Envoy and we ask a control plane for, and what calls then get."""

import http.client
from collections.abc import Callable
from typing import Any

import pytest

from meshlib import Mesh, NoRouteError
from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.node import Node
from meshlib.sources.xds.source import XdsSource
from meshlib.sources.xds.types import ROUTE_CONFIGURATION, VIRTUAL_HOST
from parts import xds_resources as xds
from parts.envoy_server import EnvoyServer
from parts.fixtures import Servers
from parts.vhds_server import VhdsServer
from parts.xds import eventually

Json = dict[str, Any]
EXTENSIONS = "type.googleapis.com/envoy.extensions"
H2 = f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"
HOSTS = (
    "own.test",
    "A.test",
    "alias.test",
    "none.test",
    "none.test",
    "a.test",
    "own.test:81",
    "p.test:81",
    "sent.test",
)


def host(name: str, *domains: str) -> Json:
    return {
        "name": name,
        "domains": list(domains),
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": name}}}],
    }


def plane(ignore_port: bool) -> VhdsServer:
    routes = {
        "name": "routes",
        "virtual_hosts": [host("own", "own.test")],
        "vhds": {"config_source": {"ads": {}, "resource_api_version": "V3"}},
        "ignore_port_in_host_matching": ignore_port,
    }
    server = VhdsServer({(ROUTE_CONFIGURATION, "routes"): xds.message(ROUTE_CONFIGURATION, routes)})
    shared = xds.message(VIRTUAL_HOST, host("routes/shared", "a.test", "alias.test"))
    port = xds.message(VIRTUAL_HOST, host("routes/port", "p.test"))
    server.hosts = {"routes/a.test": shared, "routes/none.test": None, "routes/p.test:81": port}
    server.hosts["routes/own.test:81"] = None
    return server


def manager() -> Json:
    filters = {"on-demand": "on_demand.v3.OnDemand", "router": "router.v3.Router"}
    return {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "rds": {"route_config_name": "routes", "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [
            {"name": name, "typed_config": {"@type": f"{EXTENSIONS}.filters.http.{kind}"}}
            for name, kind in filters.items()
        ],
    }


def listener(port: int) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    chain = {"filters": [{"name": "http", "typed_config": manager()}]}
    return {"name": "out", "address": address, "filter_chains": [chain]}


def bootstrap(port: int) -> Json:
    place = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    http2 = {"@type": H2, "explicit_http_config": {"http2_protocol_options": {}}}
    cluster = {
        "name": "xds",
        "type": "STATIC",
        "typed_extension_protocol_options": {H2.rpartition("/")[2]: http2},
        "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": place}]}]},
    }
    ads = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    }
    return {
        "node": {"id": "envoy", "cluster": "tests"},
        "dynamic_resources": {"ads_config": ads},
        "static_resources": {"listeners": [listener(0)], "clusters": [cluster]},
    }


@pytest.mark.parametrize("ignore_port", [False, True], ids=["with-port", "without-port"])
def test_the_same_names_are_asked_for_and_the_same_calls_answered(
    servers: Servers, envoy: Callable[..., EnvoyServer], ignore_port: bool
) -> None:
    sent = xds.message(VIRTUAL_HOST, host("routes/sent", "sent.test"))
    theirs = servers.keep(plane(ignore_port))
    proxy = envoy(bootstrap(theirs.port), live=False)
    proxy.wait_for(lambda: theirs.asked, "Envoy asks for virtual hosts")
    theirs.push(sent)  # Envoy listens only once some have come
    connection = http.client.HTTPConnection(proxy.host, proxy.listener_port("out"), timeout=10)
    proxy.wait_for(lambda: _asked(connection, "sent.test") == "routes/sent" or None, "the one that was sent")
    expected = [_asked(connection, name) for name in HOSTS]
    connection.close()

    ours = servers.keep(plane(ignore_port))
    from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2  # noqa: F401  so that it is known to json_format

    for port in (80, 81):  # a call to another port goes to that port's listener; here one has both
        ours.update(
            xds.message(
                "type.googleapis.com/envoy.config.listener.v3.Listener", {**listener(port), "name": f"out-{port}"}
            )
        )
    source = XdsSource(Bootstrap((XdsServer(f"127.0.0.1:{ours.port}"),), Node("ours")), mode="sidecar")
    with Mesh(source) as mesh, mesh.http.client() as client:
        assert mesh.wait_ready(10)
        ours.push(sent)
        eventually(lambda: mesh.runtime.plan.find("http", "sent.test"), "the one that was sent")

        def asked(name: str) -> str:
            try:
                return client.get(f"http://{name}/").text
            except NoRouteError:
                return "NR"

        assert [asked(name) for name in HOSTS] == expected
    assert ours.asked == theirs.asked
    assert expected[:5] == ["own", "routes/shared", "routes/shared", "NR", "NR"]


def _asked(connection: http.client.HTTPConnection, name: str) -> str:
    connection.request("GET", "/", headers={"host": name})
    response = connection.getresponse()
    body = response.read().decode()
    return body if response.status == 200 else {404: "NR"}.get(response.status, str(response.status))

"""Virtual hosts on demand over a real delta stream, by calls of httpx and gRPC; scopes by SRDS, SotW and delta."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest

from meshlib import Mesh, NoRouteError
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.node import Node
from meshlib.sources.xds.source import XdsSource
from meshlib.sources.xds.types import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    ROUTE_CONFIGURATION,
    SCOPED_ROUTE_CONFIGURATION,
    VIRTUAL_HOST,
)
from parts import xds_resources as xds
from parts.fast_backend import FastBackend
from parts.fixtures import Servers
from parts.vhds_server import VhdsServer
from parts.xds import eventually

Json = dict[str, Any]


def host(name: str, *domains: str, cluster: str = "payments") -> Any:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]
    return xds.message(VIRTUAL_HOST, {"name": name, "domains": list(domains), "routes": routes})


def base(backend: FastBackend, **changes: Any) -> dict[tuple[str, str], Any]:
    """A sidecar's listener on port 80 whose routes have a virtual host of their own and others on demand."""
    own = {"name": "own", "domains": ["own.example"], "routes": [xds.route()]}
    routes = {"name": "routes", "virtual_hosts": [own], "vhds": {"config_source": {"ads": {}}}, **changes}
    items = (
        (LISTENER, xds.socket_listener("0.0.0.0_80", 80, "routes")),
        (ROUTE_CONFIGURATION, routes),
        (CLUSTER, xds.eds_cluster()),
        (CLUSTER_LOAD_ASSIGNMENT, xds.assignment("payments", xds.endpoint(backend.host, backend.port))),
    )
    return {(kind, item.get("name") or item["cluster_name"]): xds.message(kind, item) for kind, item in items}


@pytest.fixture
def server(servers: Servers, fast_backend: Callable[..., FastBackend]) -> VhdsServer:
    return servers.keep(VhdsServer(base(fast_backend("payments"))))


@pytest.fixture
def mesh(server: VhdsServer) -> Iterator[Mesh]:
    with Mesh(source(server.port), fetch_timeout=2.0) as mesh:
        assert mesh.wait_ready(10)
        yield mesh


def source(port: int, **options: Any) -> XdsSource:
    bootstrap = Bootstrap((XdsServer(f"127.0.0.1:{port}"),), Node("vhds"))
    return XdsSource(bootstrap, mode="sidecar", **options)


def test_a_virtual_host_comes_when_a_call_wants_it(server: VhdsServer, mesh: Mesh) -> None:
    server.hosts["routes/a.example"] = host("routes/first", "a.example", "b.example")
    with mesh.http.client() as client:
        assert client.get("http://own.example/").status_code == 200
        eventually(
            lambda: server.asked == [""], "the first request"
        )  # all that the control plane wants to send at once, as Envoy asks
        assert client.get("http://A.example/").status_code == 200
        assert client.get("http://b.example/").status_code == 200  # the one that came speaks for it, too
    assert server.asked == ["", "routes/a.example"]


@pytest.mark.parametrize("said", ["removed", "empty"])
def test_what_does_not_exist_is_refused_at_once_and_remembered(server: VhdsServer, mesh: Mesh, said: str) -> None:
    if said == "empty":
        server.hosts["routes/no.example"] = None
    with mesh.http.client() as client:
        for _ in range(3):
            with pytest.raises(NoRouteError, match=r"no virtual host 'routes/no\.example'") as refused:
                client.get("http://no.example/")
            assert refused.value.flag == "NR"
    assert server.asked == ["", "routes/no.example"]


def test_updates_and_removals_are_live(server: VhdsServer, mesh: Mesh) -> None:
    server.push(host("routes/unasked", "u.example"))
    with mesh.http.client() as client:
        eventually(lambda: mesh.runtime.plan.find("http", "u.example"), "the virtual host that nobody asked for")
        assert client.get("http://u.example/").status_code == 200
        server.hosts["routes/a.example"] = host("routes/first", "a.example")
        assert client.get("http://a.example/").status_code == 200
        server.push(host("routes/first", "a.example", "more.example"))
        eventually(lambda: mesh.runtime.plan.find("http", "more.example"), "the update")
        assert client.get("http://own.example/").status_code == 200
        server.push(removed=["routes/first"])
        eventually(lambda: mesh.runtime.plan.find("http", "more.example") is None, "the removal")
        with pytest.raises(NoRouteError):  # still subscribed to, so that the control plane will say when it is back
            client.get("http://a.example/")
        server.push(host("routes/first", "a.example"))
        eventually(lambda: mesh.runtime.plan.find("http", "a.example"), "its return")
        assert client.get("http://a.example/").status_code == 200
    assert server.asked.count("routes/a.example") == 1


def test_a_call_waits_no_longer_than_the_fetch_timeout(server: VhdsServer) -> None:
    server.silent.add("routes/slow.example")
    with Mesh(source(server.port), fetch_timeout=0.2) as mesh:
        assert mesh.wait_ready(10)
        with mesh.http.client() as client:
            with pytest.raises(httpx.HTTPError, match=r"arrived within 0\.2 s") as late:
                client.get("http://slow.example/")
            assert getattr(late.value, "flag", None) == "NFCF"
            server.push(host("routes/slow", "slow.example"))
            eventually(lambda: mesh.runtime.plan.find("http", "slow.example"), "the late answer")
            assert client.get("http://slow.example/").status_code == 200


async def test_asyncio_and_grpc_wait_as_well(
    server: VhdsServer, mesh: Mesh, echo_backends: Any, grpc_stubs: Any
) -> None:
    (backend,) = echo_backends(1)
    items = xds.eds_cluster("echo"), xds.assignment("echo", xds.endpoint(backend.host, backend.port))
    server.update(xds.message(CLUSTER, items[0]), xds.message(CLUSTER_LOAD_ASSIGNMENT, items[1]))
    server.hosts["routes/a.example"] = host("routes/first", "a.example")
    server.hosts["routes/echo.example:80"] = host("routes/echo", "echo.example:80", cluster="echo")
    async with mesh.http.async_client() as client:
        assert (await client.get("http://a.example/")).status_code == 200
        with pytest.raises(NoRouteError):
            await client.get("http://no.example/")
    with mesh.grpc.channel("echo.example:80") as channel:
        assert grpc_stubs.echo(channel).Unary(grpc_stubs.ask("hi")).text == "hi"
    with mesh.grpc.channel("nobody.example:80") as channel, pytest.raises(grpc.RpcError) as refused:
        grpc_stubs.echo(channel).Unary(grpc_stubs.ask("x"))
    assert isinstance(refused.value, NoRouteError)
    assert "routes/nobody.example:80" in server.asked


def test_a_domain_that_is_taken_is_left_out_and_reported(
    server: VhdsServer, mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    server.push(host("routes/twice", "own.example"), host("routes/u", "u.example"))
    eventually(lambda: mesh.runtime.plan.find("http", "u.example"), "the other one")
    found = mesh.runtime.plan.find("http", "own.example")
    assert found is not None
    assert found.table.config.name == "own"
    assert "VirtualHost routes/twice" in caplog.text


def test_state_of_the_world_has_none_and_says_so(
    servers: Servers, fast_backend: Callable[..., FastBackend], caplog: pytest.LogCaptureFixture
) -> None:
    store = ResourceStore(Resource.of_message(item) for item in base(fast_backend("payments")).values())
    with AdsServer(store) as server, Mesh(source(server.port, delta=False)) as mesh:
        assert mesh.wait_ready(10)
        with mesh.http.client() as client:
            assert client.get("http://own.example/").status_code == 200
            began = time.monotonic()
            with pytest.raises(NoRouteError):
                client.get("http://a.example/")
            assert time.monotonic() - began < 10  # not the 15 s after which silence means that there is nothing
    assert "virtual hosts on demand need delta xDS" in caplog.text


def test_our_own_control_plane_serves_virtual_hosts(servers: Servers, fast_backend: Callable[..., FastBackend]) -> None:
    items = [*base(fast_backend("payments")).values(), host("routes/a.example", "a.example")]
    store = ResourceStore(Resource.of_message(item) for item in items)
    with AdsServer(store) as server, Mesh(source(server.port)) as mesh:
        assert mesh.wait_ready(10)
        with mesh.http.client() as client:
            assert client.get("http://a.example/").status_code == 200
            with pytest.raises(NoRouteError):
                client.get("http://b.example/")


# ------------------------------------------------------------------------------------------------------------- scopes


def scoped(backends: dict[str, FastBackend]) -> list[Any]:
    listener = xds.socket_listener("0.0.0.0_80", 80, "")
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    fragment = {"header_value_extractor": {"name": "x-tenant", "index": 0}}
    manager["scoped_routes"] = {
        "name": "tenants",
        "scope_key_builder": {"fragments": [fragment]},
        "rds_config_source": {"ads": {}},
        "scoped_rds": {"scoped_rds_config_source": {"ads": {}}},
    }
    items: list[tuple[str, Json]] = [(LISTENER, listener)]
    for name, backend in backends.items():
        to = {"match": {"prefix": "/"}, "route": {"cluster": name}}
        items += [
            (CLUSTER, xds.eds_cluster(name)),
            (CLUSTER_LOAD_ASSIGNMENT, xds.assignment(name, xds.endpoint(backend.host, backend.port))),
            (ROUTE_CONFIGURATION, xds.route_configuration(f"routes-{name}", to)),
        ]
    return [xds.message(*item) for item in items]


def tenant(name: str, routes: str) -> Any:
    key = {"fragments": [{"string_key": name}]}
    return xds.message(
        SCOPED_ROUTE_CONFIGURATION, {"name": name, "key": key, "route_configuration_name": f"routes-{routes}"}
    )


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_scopes_come_and_go_by_srds(fast_backend: Callable[..., FastBackend], delta: bool) -> None:
    backends = {name: fast_backend(name) for name in ("one", "two")}
    resources = scoped(backends)

    def serve(*scopes: Any) -> None:
        store.replace(Resource.of_message(item) for item in (*resources, *scopes))

    store = ResourceStore()
    serve(tenant("a", "one"), tenant("b", "two"))
    with AdsServer(store) as server, Mesh(source(server.port, delta=delta)) as mesh:
        assert mesh.wait_ready(10)
        with mesh.http.client() as client:

            def served(name: str) -> str:
                try:
                    return client.get("http://any.example/", headers={"x-tenant": name}).headers["x-backend"]
                except NoRouteError as refused:
                    return "NR" if "no scope of 'tenants'" in str(refused) else str(refused)

            assert [served(name) for name in ("a", "b", "c")] == ["one", "two", "NR"]
            serve(tenant("a", "two"), tenant("c", "one"))
            eventually(lambda: served("c") == "one", "the new scope")
            assert [served(name) for name in ("a", "b")] == ["two", "NR"]
            serve()
            # a listener without a scope speaks for nobody: the call passes through as to any unknown host
            eventually(lambda: mesh.runtime.plan.find("http", "any.example") is None, "the end of all scopes")

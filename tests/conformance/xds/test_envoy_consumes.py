"""Real Envoy configured by our ADS server: requests through it reach what the store says, before and after a change."""

import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError

import pytest

from meshlib.control.ads_server import AdsServer, ResourceStore
from parts.backend import Backend
from parts.envoy_server import EnvoyServer
from parts.xds import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    ROUTE_CONFIGURATION,
    api_listener,
    cluster,
    endpoints,
    eventually,
    resources,
    routes,
    socket_listener,
)

pytestmark = pytest.mark.needs("envoy")


def bootstrap(port: int, api_type: str) -> dict[str, Any]:
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": "envoy-1", "cluster": "tests"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "ads",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "ads",
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {
                                        "endpoint": {
                                            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}
                                        }
                                    }
                                ]
                            }
                        ],
                    },
                }
            ]
        },
    }


def world(name: str, backend: Backend) -> list[Any]:
    return resources(
        socket_listener("http", "routes"),
        api_listener("for-proxyless-only", "routes"),
        routes("routes", name),
        cluster(name),
        endpoints(name, (backend.host, backend.port)),
    )


@pytest.fixture
def store() -> ResourceStore:
    return ResourceStore()


@pytest.fixture
def server(store: ResourceStore) -> Iterator[AdsServer]:
    with AdsServer(store) as server:
        yield server


@pytest.fixture(params=["GRPC", "DELTA_GRPC"])
def proxy(
    request: pytest.FixtureRequest, server: AdsServer, store: ResourceStore, backend: Any, envoy: Any
) -> tuple[EnvoyServer, Backend]:
    first: Backend = backend("first")
    store.replace(world("first", first))
    running: EnvoyServer = envoy(bootstrap(server.port, request.param))
    return running, first


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
        answered_by: str = response.headers["x-backend"]
    return answered_by


def test_requests_follow_the_store_without_one_failing(
    proxy: tuple[EnvoyServer, Backend], server: AdsServer, store: ResourceStore, backend: Callable[[str], Backend]
) -> None:
    running, _ = proxy
    port = running.listener_port("http")
    assert get(port) == "first"
    second = backend("second")
    outcomes: list[str | Exception] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                outcomes.append(get(port))
            except OSError as error:
                outcomes.append(error)

    loader = threading.Thread(target=load)
    loader.start()
    try:
        # The old cluster goes in the same edit in which the route moves to a new one.
        store.replace(world("second", second))
        eventually(lambda: outcomes and outcomes[-1] == "second", "the route to move")
        eventually(lambda: "first" not in {c["name"] for c in running.clusters()["cluster_statuses"]}, "first to go")
    finally:
        stop.set()
        loader.join()
    assert set(outcomes) <= {"first", "second"}, [o for o in outcomes if not isinstance(o, str)][:3]


def test_envoy_refuses_nothing_and_is_listed_as_a_subscriber(
    proxy: tuple[EnvoyServer, Backend], server: AdsServer
) -> None:
    (subscriber,) = server.subscribers()
    assert (subscriber.node_id, subscriber.user_agent) == ("envoy-1", "envoy")
    types = {held.type_url: held for held in subscriber.types}
    assert set(types) == {CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION}
    assert types[CLUSTER].is_wildcard
    assert types[CLUSTER_LOAD_ASSIGNMENT].names == ("first",)
    eventually(lambda: all(t.acked_version for t in server.subscribers()[0].types), "all ACKs")
    assert [held.nacks for held in server.subscribers()[0].types] == [0, 0, 0, 0]


def test_what_envoy_refuses_is_told_with_its_reason(
    proxy: tuple[EnvoyServer, Backend], server: AdsServer, store: ResourceStore, backend: Any
) -> None:
    running, first = proxy
    bad = cluster("first")
    bad.connect_timeout.seconds = -1
    good = world("first", first)
    store.replace([*(r for r in good if r.type_url != CLUSTER), *resources(bad)])

    def nack() -> str | None:
        return next((t.last_nack for t in server.subscribers()[0].types if t.type_url == CLUSTER), None)

    assert "positive duration" in str(eventually(nack, "Envoy's NACK"))
    assert get(running.listener_port("http")) == "first", "Envoy keeps the last good one, as we do"
    store.replace(good)
    eventually(lambda: nack() is None, "the ACK of the good one")


def test_envoy_keeps_serving_without_us_and_takes_the_change_when_we_are_back(
    proxy: tuple[EnvoyServer, Backend], server: AdsServer, store: ResourceStore, backend: Any
) -> None:
    running, _ = proxy
    port = running.listener_port("http")
    server.stop()
    assert get(port) == "first"
    store.replace(world("second", backend("second")))

    def has_moved() -> bool:
        try:
            return get(port) == "second"
        except HTTPError as error:
            # A new server does not know what Envoy was shown before, so there is no order to keep: see push_order.
            if error.code != 503:
                raise
            return False

    with AdsServer(store, f"127.0.0.1:{server.port}"):
        eventually(has_moved, "the change made while we were away", timeout=30.0)

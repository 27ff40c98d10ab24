"""Our client against go-control-plane, the reference implementation of the server's side."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.events import (
    ResourceRejected,
    ResourceRemoved,
    ResourceUpdate,
    StreamEnded,
)
from meshlib.sources.xds.node import Node
from meshlib.sources.xds.transport import XdsClient
from parts.go_control_plane import GoControlPlane
from parts.xds import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    ROUTE_CONFIGURATION,
    Events,
    api_listener,
    as_json,
    cluster,
    endpoints,
    eventually,
    routes,
)

pytestmark = pytest.mark.needs("go_control_plane")
EDS = CLUSTER_LOAD_ASSIGNMENT


def world(port: int = 1, timeout: float = 1.0) -> list[dict[str, Any]]:
    return as_json(
        api_listener("greeter", "routes"),
        routes("routes", "stable"),
        cluster("stable", connect_timeout=timeout),
        endpoints("stable", ("127.0.0.1", port)),
    )


@pytest.fixture
def control_plane(go_control_plane: Callable[..., GoControlPlane]) -> GoControlPlane:
    server = go_control_plane()
    server.write(world())
    return server


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def client_of(
    request: pytest.FixtureRequest, control_plane: GoControlPlane
) -> Iterator[Callable[..., tuple[XdsClient, Events]]]:
    clients: list[XdsClient] = []

    def start(refused: str = "") -> tuple[XdsClient, Events]:
        events = Events()
        bootstrap = Bootstrap((XdsServer(control_plane.target),), Node(id="node-1"))
        client = XdsClient(
            bootstrap, lambda t, n, b: "refused by the test" if n == refused else None, events, delta=request.param
        )
        clients.append(client)
        return client, events

    yield start
    for client in clients:
        client.close()


def subscribe_all(client: XdsClient, events: Events) -> None:
    wanted = ((LISTENER, "greeter"), (ROUTE_CONFIGURATION, "routes"), (CLUSTER, "stable"), (EDS, "stable"))
    for type_url, name in wanted:
        client.subscribe(type_url, name)
    for type_url, name in wanted:
        events.wait_for(ResourceUpdate, type_url=type_url, name=name)


def test_all_types_by_name_and_a_change(client_of: Any, control_plane: GoControlPlane) -> None:
    client, events = client_of()
    subscribe_all(client, events)
    events.forget()
    control_plane.write(world(port=2))
    events.wait_for(ResourceUpdate, type_url=EDS, name="stable")
    assert client.stats().connected


def test_wildcards_and_removal(client_of: Any, control_plane: GoControlPlane) -> None:
    client, events = client_of()
    control_plane.write(world() + as_json(cluster("other"), endpoints("other")), "resources.json")
    client.subscribe(CLUSTER, "*")
    client.subscribe(LISTENER, "*")
    events.wait_for(ResourceUpdate, type_url=CLUSTER, name="other")
    events.wait_for(ResourceUpdate, type_url=LISTENER, name="greeter")
    control_plane.write(world(), "resources.json")
    events.wait_for(ResourceRemoved, type_url=CLUSTER, name="other")


def test_a_nack_is_understood_and_the_next_good_one_used(client_of: Any, control_plane: GoControlPlane) -> None:
    client, events = client_of(refused="newcomer")
    client.subscribe(CLUSTER, "*")
    events.wait_for(ResourceUpdate, name="stable")
    newcomer = as_json(cluster("newcomer"), endpoints("newcomer"))
    control_plane.write(world(timeout=2.0) + newcomer)
    events.wait_for(ResourceRejected, name="newcomer")
    events.wait_for(ResourceUpdate, name="stable", count=2)
    control_plane.wait_line("(?m)^nack .*refused by the test")
    control_plane.write(world(timeout=3.0))
    events.wait_for(ResourceUpdate, name="stable", count=3)


def test_killed_and_back_on_the_same_port(client_of: Any, control_plane: GoControlPlane) -> None:
    client, events = client_of()
    subscribe_all(client, events)
    control_plane.kill()
    events.wait_for(StreamEnded)
    events.forget()
    control_plane.restart()
    eventually(lambda: client.stats().connected, "the stream to be back")
    control_plane.write(world(port=3))
    update = events.wait_for(ResourceUpdate, type_url=EDS, name="stable")
    assert update.body
    names = [event.name for event in events.all if isinstance(event, ResourceUpdate) and event.type_url != EDS]
    assert names == [], "what did not change is not told again"


def test_subscriptions_made_while_it_was_frozen(client_of: Any, control_plane: GoControlPlane) -> None:
    client, events = client_of()
    client.subscribe(CLUSTER, "stable")
    events.wait_for(ResourceUpdate, name="stable")
    control_plane.pause()
    client.subscribe(EDS, "stable")
    client.subscribe(LISTENER, "greeter")
    client.unsubscribe(LISTENER, "greeter")
    client.subscribe(LISTENER, "greeter")
    control_plane.resume()
    events.wait_for(ResourceUpdate, type_url=EDS, name="stable")
    events.wait_for(ResourceUpdate, type_url=LISTENER, name="greeter")

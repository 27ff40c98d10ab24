"""Our client against our server over real sockets, in both variants of the protocol."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib.control.ads_server import AdsServer, ResourceStore, SubscriberInfo
from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.events import (
    ResourceDoesNotExist,
    ResourceRejected,
    ResourceRemoved,
    ResourceUpdate,
    ResponseProcessed,
    StreamConnected,
    StreamEnded,
)
from meshlib.sources.xds.node import Node
from meshlib.sources.xds.transport import XdsClient
from parts.xds import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    Events,
    cluster,
    endpoints,
    eventually,
    resources,
    socket_listener,
)

EDS = CLUSTER_LOAD_ASSIGNMENT
Connect = Callable[..., tuple[XdsClient, Events]]


def accept(type_url: str, name: str, body: bytes) -> str | None:
    return "connect_timeout: must be greater than 0s" if name == "bad" else None


@pytest.fixture
def store() -> ResourceStore:
    return ResourceStore(resources(cluster("a"), cluster("b"), endpoints("a", ("127.0.0.1", 1))))


@pytest.fixture
def server(store: ResourceStore) -> Iterator[AdsServer]:
    with AdsServer(store) as server:
        yield server


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def delta(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value


@pytest.fixture
def connect(delta: bool) -> Iterator[Connect]:
    clients: list[XdsClient] = []

    def start(*ports: int, **options: Any) -> tuple[XdsClient, Events]:
        servers = tuple(XdsServer(f"127.0.0.1:{port}") for port in ports)
        events = Events()
        client = XdsClient(Bootstrap(servers, Node(id="me")), accept, events, **{"delta": delta, **options})
        clients.append(client)
        return client, events

    yield start
    for client in clients:
        started = time.monotonic()
        client.close()
        assert time.monotonic() - started < 2.0, "close hangs"


def only_subscriber(server: AdsServer) -> SubscriberInfo:
    (subscriber,) = server.subscribers()
    return subscriber


def test_subscribe_change_remove(server: AdsServer, store: ResourceStore, connect: Connect, delta: bool) -> None:
    client, events = connect(server.port)
    client.subscribe(CLUSTER, "*")
    client.subscribe(EDS, "a")
    events.wait_for(ResourceUpdate, type_url=EDS, name="a")
    events.wait_for(ResourceUpdate, type_url=CLUSTER, name="b")
    events.forget()
    store.replace(resources(cluster("a"), endpoints("a", ("127.0.0.1", 2))))
    update = events.wait_for(ResourceUpdate, type_url=EDS, name="a")
    assert b"127.0.0.1" in update.body
    events.wait_for(ResourceRemoved, type_url=CLUSTER, name="b")
    assert not [event for event in events.all if isinstance(event, ResourceUpdate) and event.type_url == CLUSTER]
    subscriber = only_subscriber(server)
    assert (subscriber.node_id, subscriber.user_agent, subscriber.delta) == ("me", "meshlib", delta)
    assert events.threads == {"meshlib-xds"}, "one source thread"


def test_a_nack_reaches_the_operator_and_the_rest_is_used(
    server: AdsServer, store: ResourceStore, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client, events = connect(server.port)
    client.subscribe(CLUSTER, "*")
    events.wait_for(ResourceUpdate, name="b")
    store.replace(resources(cluster("a"), cluster("b", connect_timeout=2.0), cluster("bad")))
    events.wait_for(ResourceRejected, name="bad")
    assert events.wait_for(ResourceUpdate, name="b", count=2)
    reason = "Cluster 'bad': connect_timeout: must be greater than 0s"
    eventually(lambda: only_subscriber(server).types[0].last_nack == reason, "the NACK at the server")
    assert sum(reason in record.getMessage() for record in caplog.records) == 1
    assert client.stats().types[CLUSTER].rejected[0][0] == "bad"
    store.replace(resources(cluster("a"), cluster("b")))
    eventually(lambda: only_subscriber(server).types[0].last_nack is None, "the ACK after it")


def test_a_missing_resource(server: AdsServer, connect: Connect, delta: bool) -> None:
    client, events = connect(server.port, does_not_exist_after=0.3)
    client.subscribe(EDS, "nowhere")
    event = events.wait_for(ResourceDoesNotExist, name="nowhere", timeout=0.2 if delta else 5.0)
    assert event.type_url == EDS


def test_unsubscribe_is_told_to_the_server(server: AdsServer, connect: Connect) -> None:
    client, events = connect(server.port)
    client.subscribe(EDS, "a")
    client.subscribe(EDS, "x")
    events.wait_for(ResourceUpdate, name="a")
    client.unsubscribe(EDS, "a")
    eventually(lambda: only_subscriber(server).types[0].names == ("x",), "the new subscription")


def test_reconnect_resumes_and_hears_only_of_changes(store: ResourceStore, connect: Connect, delta: bool) -> None:
    server = AdsServer(store).start()
    client, events = connect(server.port)
    client.subscribe(CLUSTER, "*")
    client.subscribe(EDS, "a")
    events.wait_for(ResourceUpdate, type_url=EDS)
    events.wait_for(ResourceUpdate, type_url=CLUSTER, name="b")
    server.stop()
    events.wait_for(StreamEnded)
    events.forget()
    store.replace(resources(cluster("a", connect_timeout=9.0), cluster("c"), endpoints("a", ("127.0.0.1", 1))))
    with AdsServer(store, f"127.0.0.1:{server.port}"):
        events.wait_for(ResourceUpdate, name="c")
        events.wait_for(ResourceRemoved, name="b")
        updated = [event.name for event in events.all if isinstance(event, ResourceUpdate)]
        assert sorted(updated) == ["a", "c"]
        assert not [event for event in events.all if isinstance(event, ResourceUpdate) and event.type_url == EDS]
        assert client.stats().connected
        assert client.stats().reconnects >= 1


def test_the_fallback_serves_until_the_primary_is_back(
    store: ResourceStore, connect: Connect, free_port: Callable[[], int]
) -> None:
    primary_port = free_port()
    second = ResourceStore(resources(cluster("a", connect_timeout=7.0)))
    with AdsServer(second) as fallback:
        client, events = connect(primary_port, fallback.port)
        client.subscribe(CLUSTER, "a")
        assert events.wait_for(StreamConnected).fallback
        first = events.wait_for(ResourceUpdate, name="a")
        with AdsServer(store, f"127.0.0.1:{primary_port}"):
            events.wait_for(StreamConnected, fallback=False)
            assert events.wait_for(ResourceUpdate, name="a", count=2).body != first.body
            eventually(lambda: not fallback.subscribers(), "the fallback's stream closed")
            assert client.stats().server.endswith(str(primary_port))


def test_a_known_configuration_survives_its_server_without_a_fallback(store: ResourceStore, connect: Connect) -> None:
    server = AdsServer(store).start()
    with AdsServer(store) as fallback:
        client, events = connect(server.port, fallback.port)
        client.subscribe(CLUSTER, "a")
        events.wait_for(ResourceUpdate, name="a")
        server.stop()
        events.wait_for(StreamEnded, is_failure=True)
        assert fallback.subscribers() == ()
        assert not client.stats().connected
        client.subscribe(CLUSTER, "b")
        events.wait_for(ResourceUpdate, name="b")
        assert len(fallback.subscribers()) == 1


def test_auto_finds_delta(server: AdsServer, connect: Connect) -> None:
    client, events = connect(server.port, delta="auto")
    client.subscribe(CLUSTER, "a")
    events.wait_for(ResourceUpdate, name="a")
    assert only_subscriber(server).delta


def test_the_clients_own_bug_does_not_end_the_source(server: AdsServer, store: ResourceStore) -> None:
    events = Events()
    calls: list[int] = []

    def owner(happened: Any) -> None:
        events(happened)
        calls.append(len(happened))
        if len(calls) == 1:
            raise RuntimeError("owner's bug")

    client = XdsClient(Bootstrap((XdsServer(f"127.0.0.1:{server.port}"),)), accept, owner)
    try:
        client.subscribe(CLUSTER, "*")
        events.wait_for(ResourceUpdate, name="a")
        store.replace(resources(cluster("new")))
        events.wait_for(ResourceUpdate, name="new")
    finally:
        client.close()


def test_a_thousand_clusters_and_a_change_of_one(connect: Connect) -> None:
    many = {f"c{number}": cluster(f"c{number}") for number in range(1000)}
    store = ResourceStore(resources(*many.values()))
    with AdsServer(store) as server:
        client, events = connect(server.port)
        client.subscribe(CLUSTER, "*")
        events.wait_for(ResponseProcessed, type_url=CLUSTER)
        assert client.stats().types.get(CLUSTER) is not None
        many["c7"] = cluster("c7", connect_timeout=3.0)
        events.forget()
        store.replace(resources(*many.values()))
        events.wait_for(ResponseProcessed, type_url=CLUSTER)
        assert [event.name for event in events.all if isinstance(event, ResourceUpdate)] == ["c7"]


def test_listeners_by_wildcard_and_a_stop_with_streams_open(store: ResourceStore, connect: Connect) -> None:
    store.replace(resources(socket_listener("l", "r")))
    server = AdsServer(store).start()
    client, events = connect(server.port)
    client.subscribe(LISTENER, "*")
    events.wait_for(ResourceUpdate, type_url=LISTENER, name="l")
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 2.0
    assert events.wait_for(StreamEnded).is_failure is False


def test_a_taken_port_is_an_error(server: AdsServer, store: ResourceStore) -> None:
    with pytest.raises(OSError, match="cannot serve ADS"):
        AdsServer(store, f"127.0.0.1:{server.port}")

"""The embedded control plane under many subscribers, and under one that does not read."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from meshlib.control.ads_server import AdsServer, ResourceStore
from meshlib.control.ads_stream import AdsStream
from meshlib.control.subscriber import MAX_TYPES
from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.events import ResourceUpdate
from meshlib.sources.xds.request_rate import RequestRate
from meshlib.sources.xds.transport import XdsClient
from parts.xds import CLUSTER, Events, cluster, eventually, resources

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[XdsClient, Events]]]:
    clients: list[XdsClient] = []

    def start(port: int, **options: Any) -> tuple[XdsClient, Events]:
        events = Events()
        client = XdsClient(Bootstrap((XdsServer(f"127.0.0.1:{port}"),)), lambda *_: None, events, **options)
        clients.append(client)
        return client, events

    yield start
    for client in clients:
        client.close()


def test_every_one_of_150_subscribers_gets_every_change_and_leaves_nothing_behind(connect: Any) -> None:
    others = set(threading.enumerate())
    store = ResourceStore(resources(*(cluster(f"c{number}") for number in range(20))))
    with AdsServer(store) as server:
        connected = [connect(server.port, delta=bool(number % 2)) for number in range(150)]
        for client, _ in connected:
            client.subscribe(CLUSTER, "*")
        for _, events in connected:
            events.wait_for(ResourceUpdate, name="c19", timeout=30)
        for round_ in (2, 3):
            store.replace(resources(*(cluster(f"c{n}", connect_timeout=round_ if n == 7 else 1) for n in range(20))))
            for _, events in connected:
                events.wait_for(ResourceUpdate, name="c7", count=round_, timeout=30)
        assert len(server.subscribers()) == 150
        for client, _ in connected:
            client.close()
        eventually(lambda: not server.subscribers(), "all to be gone")
    eventually(lambda: not own_threads(others), "all threads to end")


def own_threads(others: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("meshlib-") and thread not in others]


def test_a_subscriber_that_does_not_read_holds_nobody_up(connect: Any) -> None:
    from envoy.service.discovery.v3 import discovery_pb2

    def world(round_: int) -> list[Any]:
        return resources(cluster("a", connect_timeout=round_), cluster("big", eds_service_name="x" * 1_000_000))

    store = ResourceStore(world(1))
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    requests.put(discovery_pb2.DiscoveryRequest(type_url=CLUSTER).SerializeToString())
    with AdsServer(store) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        deaf = channel.stream_stream(METHOD)(iter(requests.get, None))
        eventually(server.subscribers, "the one that does not read")
        client, events = connect(server.port)
        client.subscribe(CLUSTER, "*")
        events.wait_for(ResourceUpdate, name="a")
        for round_ in range(2, 12):
            store.replace(world(round_))
            events.wait_for(ResourceUpdate, name="a", count=round_, timeout=5)
        deaf.cancel()
        requests.put(None)


def test_requests_are_not_read_ahead_of_the_responses() -> None:
    from envoy.service.discovery.v3 import discovery_pb2

    pulled: queue.SimpleQueue[int] = queue.SimpleQueue()

    def requests() -> Iterator[Any]:
        for number in range(1_000):
            pulled.put(number)
            yield discovery_pb2.DiscoveryRequest(type_url=CLUSTER)

    stream = AdsStream(1, "deaf", ResourceStore(resources(cluster("a"))), delta=False, only_type=None)
    reader = threading.Thread(target=stream.read, args=(requests(),), daemon=True)
    reader.start()
    reader.join(0.3)
    held_back = pulled.qsize()
    next(stream.responses())
    eventually(lambda: pulled.qsize() > held_back, "room for more")
    reader.join(0.3)
    assert (held_back, pulled.qsize(), reader.is_alive()) == (17, 33, True)
    stream.end()
    reader.join(5)
    assert (pulled.qsize(), reader.is_alive()) == (33, False)


def test_a_stream_that_makes_up_types_ends_with_an_error() -> None:
    from envoy.service.discovery.v3 import discovery_pb2

    asked = [discovery_pb2.DiscoveryRequest(type_url=f"made.up/{n}").SerializeToString() for n in range(MAX_TYPES + 1)]
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    for request in asked:
        requests.put(request)
    with AdsServer(ResourceStore()) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.stream_stream(METHOD)(iter(requests.get, None), timeout=10)
        with pytest.raises(grpc.RpcError) as ended:
            list(call)
        requests.put(None)
        assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        eventually(lambda: not server.subscribers(), "it to be gone")


def test_a_request_limit_gathers_subscriptions_and_loses_none(connect: Any) -> None:
    store = ResourceStore(resources(*(cluster(f"c{number}") for number in range(50))))
    with AdsServer(store) as server:
        client, events = connect(server.port, delta=False, rate=RequestRate(max_tokens=1, fill_rate=20))
        for number in range(50):
            client.subscribe(CLUSTER, f"c{number}")
        events.wait_for(ResourceUpdate, count=50)
        (subscriber,) = server.subscribers()
        assert len(subscriber.types[0].names) == 50
        assert subscriber.types[0].nacks == 0


@pytest.mark.parametrize("variant", ["Stream", "Delta"])
def test_the_services_of_one_type_need_no_type_url(variant: str) -> None:
    from envoy.service.discovery.v3 import discovery_pb2

    is_delta = variant == "Delta"
    request = discovery_pb2.DeltaDiscoveryRequest if is_delta else discovery_pb2.DiscoveryRequest
    response = discovery_pb2.DeltaDiscoveryResponse if is_delta else discovery_pb2.DiscoveryResponse
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    requests.put(request().SerializeToString())
    store = ResourceStore(resources(cluster("a")))
    with AdsServer(store) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.stream_stream(f"/envoy.service.cluster.v3.ClusterDiscoveryService/{variant}Clusters")
        stream = call(iter(requests.get, None), timeout=10)
        answer = response.FromString(next(stream))
        assert (answer.type_url, len(answer.resources)) == (CLUSTER, 1)
        requests.put(None)

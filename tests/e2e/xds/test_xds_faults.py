"""Control planes that misbehave: the client says so, keeps what it has, and comes back. Real sockets throughout."""

import itertools
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from meshlib.control.ads_server import AdsServer, ResourceStore
from meshlib.model.backoff import BackoffPolicy
from meshlib.sources.xds.bootstrap import Bootstrap, Credentials, XdsServer
from meshlib.sources.xds.events import (
    ProtocolWarning,
    ResourceDoesNotExist,
    ResourceUpdate,
    ResponseProcessed,
    StreamEnded,
)
from meshlib.sources.xds.transport import ChannelOptions, XdsClient
from parts.go_control_plane import GoControlPlane
from parts.xds import CLUSTER, Events, as_json, cluster, endpoints, eventually, resources

FAST = BackoffPolicy(base=0.05, maximum=0.2)
Script = Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]


@pytest.fixture
def scripted() -> Iterator[Callable[[Script], int]]:
    """A gRPC server whose ADS methods yield the raw bytes a script makes."""
    running: list[grpc.Server] = []

    def start(script: Script) -> int:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        handler = grpc.stream_stream_rpc_method_handler(script)
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    service, {"StreamAggregatedResources": handler, "DeltaAggregatedResources": handler}
                ),
            )
        )
        port: int = server.add_insecure_port("127.0.0.1:0")
        server.start()
        running.append(server)
        return port

    yield start
    for server in running:
        server.stop(None).wait(5)


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[XdsClient, Events]]]:
    clients: list[XdsClient] = []

    def start(port: int | str, **options: Any) -> tuple[XdsClient, Events]:
        events = Events()
        target = port if isinstance(port, str) else f"127.0.0.1:{port}"
        settings = {"delta": False, "backoff": FAST, **options}
        client = XdsClient(Bootstrap((XdsServer(target),)), lambda *_: None, events, **settings)
        clients.append(client)
        return client, events

    yield start
    for client in clients:
        started = time.monotonic()
        client.close()
        assert time.monotonic() - started < 2.0, "close hangs"


def response(version: str, *messages: Any, type_url: str = CLUSTER, nonce: str = "n") -> bytes:
    from envoy.service.discovery.v3 import discovery_pb2

    made = discovery_pb2.DiscoveryResponse(type_url=type_url, version_info=version, nonce=nonce)
    for message in messages:
        made.resources.add().Pack(message)
    return bytes(made.SerializeToString())


def parsed(request: bytes) -> Any:
    from envoy.service.discovery.v3 import discovery_pb2

    return discovery_pb2.DiscoveryRequest.FromString(request)


def test_bytes_that_are_no_response_end_the_stream_with_back_off(connect: Any, scripted: Any) -> None:
    streams: list[float] = []

    def garbage_at_first(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        streams.append(time.monotonic())
        next(requests)
        if len(streams) < 3:
            yield b"\xff\xff\xff garbage"
        yield response("1", cluster("a"))
        list(requests)

    client, events = connect(scripted(garbage_at_first))
    client.subscribe(CLUSTER, "a")
    ended = events.wait_for(StreamEnded)
    assert ended.is_failure
    assert "no DiscoveryResponse" in ended.reason
    events.wait_for(ResourceUpdate, name="a")
    assert len(streams) == 3


def test_oddities_are_refused_or_passed_over_on_a_living_stream(connect: Any, scripted: Any) -> None:
    answers: list[Any] = []

    def odd(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        from envoy.service.discovery.v3 import discovery_pb2

        next(requests)
        yield response("0", type_url="type.googleapis.com/nobody.Asked")
        malformed = discovery_pb2.DiscoveryResponse(type_url=CLUSTER, version_info="1", nonce="n1")
        malformed.resources.add(type_url=CLUSTER, value=b"\xff\xff")
        malformed.resources.add(type_url="type.googleapis.com/some.Other", value=b"\x0a\x01x")
        malformed.resources.add().Pack(cluster("a"))
        yield malformed.SerializeToString()
        answers.append(parsed(next(requests)))
        for _ in range(2):  # the same nonce twice
            yield response("2", cluster("a"), nonce="same")
            answers.append(parsed(next(requests)))
        yield b""  # an empty message is a response for no type
        yield response("3", cluster("a", connect_timeout=3.0), nonce="n3")
        answers.append(parsed(next(requests)))
        list(requests)

    client, events = connect(scripted(odd))
    client.subscribe(CLUSTER, "a")
    events.wait_for(ResourceUpdate, name="a", count=2)
    eventually(lambda: len(answers) == 4, "four answers")
    assert [(a.response_nonce, a.version_info, a.HasField("error_detail")) for a in answers] == [
        ("n1", "", True),
        ("same", "2", False),
        ("same", "2", False),
        ("n3", "3", False),
    ]
    assert "resources[0]" in answers[0].error_detail.message
    assert "resources[1]" in answers[0].error_detail.message
    assert events.wait_for(ProtocolWarning, count=2)
    assert not [event for event in events.all if isinstance(event, StreamEnded)]


def test_a_huge_response(connect: Any, scripted: Any) -> None:
    def huge(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)
        big = cluster("a", eds_service_name="x" * (20 * 1024 * 1024))
        yield response("1", big)
        list(requests)

    port = scripted(huge)
    client, events = connect(port)
    client.subscribe(CLUSTER, "a")
    assert len(events.wait_for(ResourceUpdate, name="a").body) > 20 * 1024 * 1024
    client, events = connect(port, options=ChannelOptions(max_receive_message_bytes=1024 * 1024))
    client.subscribe(CLUSTER, "a")
    assert "RESOURCE_EXHAUSTED" in events.wait_for(StreamEnded).reason


def test_one_answer_and_a_hang_up_each_time_is_no_hot_loop(connect: Any, scripted: Any) -> None:
    streams: list[float] = []

    def hang_up(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        streams.append(time.monotonic())
        next(requests)
        yield response("1", cluster("a"))

    client, events = connect(scripted(hang_up), backoff=BackoffPolicy(base=0.2))
    client.subscribe(CLUSTER, "a")
    events.wait_for(StreamEnded, count=4)
    gaps = [later - earlier for earlier, later in itertools.pairwise(streams)]
    assert min(gaps) > 0.15, gaps
    assert not [event for event in events.all if isinstance(event, StreamEnded) and event.is_failure]


def test_a_silent_server_makes_a_resource_missing_and_a_closed_port_does_not(
    connect: Any, scripted: Any, free_port: Callable[[], int]
) -> None:
    def silent(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        list(requests)
        yield from ()

    client, events = connect(scripted(silent), does_not_exist_after=0.3)
    client.subscribe(CLUSTER, "a")
    events.wait_for(ResourceDoesNotExist, name="a")
    client, events = connect(free_port(), does_not_exist_after=0.3)
    client.subscribe(CLUSTER, "a")
    events.wait_for(StreamEnded, count=5)
    assert not [event for event in events.all if isinstance(event, ResourceDoesNotExist)]


def test_a_port_that_accepts_and_never_speaks_is_neither_an_answer_nor_a_hang(connect: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client, events = connect(port, does_not_exist_after=0.2, options=ChannelOptions(connect_timeout=1.0))
        client.subscribe(CLUSTER, "a")
        events.wait_for(StreamEnded, is_failure=True, timeout=15.0)
        assert not [event for event in events.all if isinstance(event, ResourceDoesNotExist)]
        assert not client.stats().connected


def test_a_slow_owner_holds_the_stream_back_and_loses_nothing(connect: Any, scripted: Any) -> None:
    def fast(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)
        for number in range(1, 101):
            yield response(str(number), cluster("a", connect_timeout=number), nonce=str(number))
        list(requests)

    client, events = connect(scripted(fast))
    client.subscribe(CLUSTER, "a")
    events.wait_for(ResponseProcessed, version="100")
    versions = [event.version for event in events.all if isinstance(event, ResourceUpdate)]
    assert versions == [str(number) for number in range(1, 101)]


def test_killed_while_pushing_and_restarted_many_times(connect: Any, free_port: Callable[[], int]) -> None:
    port = free_port()
    client, events = connect(port, delta=True)
    client.subscribe(CLUSTER, "*")
    for number in range(1, 6):
        with AdsServer(ResourceStore(resources(cluster("a", connect_timeout=number))), f"127.0.0.1:{port}"):
            events.wait_for(ResourceUpdate, name="a", count=number)
    assert client.stats().reconnects >= 4


def test_what_the_server_sees_of_a_resumed_delta_stream(connect: Any, scripted: Any) -> None:
    from envoy.service.discovery.v3 import discovery_pb2

    streams: list[list[Any]] = []

    def script(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        seen: list[Any] = []
        streams.append(seen)
        seen.append(discovery_pb2.DeltaDiscoveryRequest.FromString(next(requests)))
        made = discovery_pb2.DeltaDiscoveryResponse(type_url=CLUSTER, nonce=f"n{len(streams)}")
        for name, version in (("a", "7"), ("b", "9")):
            made.resources.add(name=name, version=version).resource.Pack(cluster(name))
        yield made.SerializeToString()
        seen.append(discovery_pb2.DeltaDiscoveryRequest.FromString(next(requests)))

    client, events = connect(scripted(script), delta=True)
    client.subscribe(CLUSTER, "*")
    eventually(lambda: len(streams) > 2, "two streams")
    (opened, answered), (resumed, _) = streams[:2]
    assert opened.HasField("node")
    assert not answered.HasField("node")
    assert not opened.initial_resource_versions
    assert answered.response_nonce == "n1"
    assert resumed.HasField("node")
    assert dict(resumed.initial_resource_versions) == {"a": "7", "b": "9"}
    assert (resumed.response_nonce, list(resumed.resource_names_subscribe)) == ("", [])
    assert len([event for event in events.all if isinstance(event, ResourceUpdate)]) == 2


def test_subscriptions_from_many_threads(connect: Any) -> None:
    store = ResourceStore(resources(*(cluster(f"c{number}") for number in range(200))))
    with AdsServer(store) as server:
        client, events = connect(server.port, delta=True)
        threads = [
            threading.Thread(target=lambda n=n: [client.subscribe(CLUSTER, f"c{i}") for i in range(n, 200, 8)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events.wait_for(ResourceUpdate, count=200)
        assert len(server.subscribers()) == 1


def test_a_unix_socket(connect: Any, tmp_path: Any) -> None:
    path = tmp_path / "ads.sock"
    with AdsServer(ResourceStore(resources(cluster("a"))), f"unix:{path}"):
        client, events = connect(f"unix:{path}")
        client.subscribe(CLUSTER, "a")
        events.wait_for(ResourceUpdate, name="a")


def test_credentials_that_cannot_be_read_are_said_and_retried(tmp_path: Any) -> None:
    events = Events()
    creds = Credentials("tls", {"ca_certificate_file": str(tmp_path / "missing.pem")})
    client = XdsClient(Bootstrap((XdsServer("127.0.0.1:1", creds),)), lambda *_: None, events, backoff=FAST)
    try:
        client.subscribe(CLUSTER, "a")
        ended = events.wait_for(StreamEnded, count=2)
        assert "missing.pem: No such file" in ended.reason
        assert ended.is_failure
    finally:
        client.close()


def test_close_before_start_and_twice_and_while_connecting(connect: Any) -> None:
    client, _ = connect(1)
    client.close()
    client.close()
    client.subscribe(CLUSTER, "a")
    assert client.stats().servers[0].streams == 0, "a closed client stays closed"
    client, _ = connect("10.255.255.1:1")
    client.subscribe(CLUSTER, "a")
    eventually(lambda: client.stats().servers[0].streams == 1, "the attempt")


def _child(client: XdsClient, events: Events, answers: Any) -> None:
    events.forget()
    client.subscribe(CLUSTER, "b")
    events.wait_for(ResourceUpdate, name="b")
    answers.put((os.getpid(), [type(event).__name__ for event in events.all if getattr(event, "name", "") == "a"]))
    client.close()


@pytest.mark.needs("go_control_plane")  # a server in this process would keep gRPC from preparing for the fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_children_of_a_connected_process_open_their_own_stream_and_keep_what_was_known(
    connect: Any, go_control_plane: Callable[..., GoControlPlane]
) -> None:
    server = go_control_plane()
    server.write(as_json(cluster("a"), cluster("b"), endpoints("a"), endpoints("b")))
    client, events = connect(server.port, delta=True)
    client.subscribe(CLUSTER, "a")
    events.wait_for(ResourceUpdate, name="a")
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=_child, args=(client, events, answers)) for _ in range(4)]
    for child in children:
        child.start()
    told = dict(answers.get(timeout=20) for _ in children)
    for child in children:
        child.join(10)
        assert child.exitcode == 0
    assert set(told) == {child.pid for child in children}
    assert list(told.values()) == [[]] * 4, "the parent's knowledge is the child's"
    server.write(as_json(cluster("a", connect_timeout=2.0), cluster("b"), endpoints("a"), endpoints("b")))
    events.wait_for(ResourceUpdate, name="a", count=2)

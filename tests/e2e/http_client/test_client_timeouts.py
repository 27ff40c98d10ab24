"""`timeout=` as httpx means it, and how it meets the mesh's own limits: whichever is earlier ends the call."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from e2e.http_client.conftest import still_held
from e2e.http_client.doors import Door
from e2e.wire.raw_server import Peer, RawServer
from meshlib import Mesh, UpstreamTimeoutError
from meshlib.context import CallContext, current
from meshlib.model.cluster import CircuitBreakers, Thresholds
from meshlib.sources.static import static_cluster
from parts.fast_backend import FastBackend, Reply

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
Raw = Callable[..., RawServer]
SOON = 2.0
"""What "at once" may take on a busy machine."""


@contextmanager
def within(low: float, high: float = SOON) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert low <= time.monotonic() - began < high


@pytest.fixture
def full_listener() -> Iterator[str]:
    """An address whose accept queue is full: connecting to it neither succeeds nor fails."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        waiting.append(client)
    host, port = listener.getsockname()
    time.sleep(0.05)
    yield f"{host}:{port}"
    for each in (*waiting, listener):
        each.close()


def test_a_mesh_client_has_no_timeout_of_its_own_and_another_client_keeps_its_default(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    mesh = static({"payments": [fast_backend().address]})
    assert door.client(mesh).client.timeout == door.library.Timeout(None)
    assert door.own_client(mesh).client.timeout == door.library.Timeout(5.0)


def test_read_timeout_before_the_head(door: Door, static: Static, fast_backend: Fast) -> None:
    mesh = static({"payments": [fast_backend("slow", Reply(delay=5.0)).address]})
    client = door.client(mesh, timeout=door.library.Timeout(None, read=0.1))
    with within(0.1), pytest.raises(door.error("ReadTimeout")) as failed:
        client.get("/")
    assert isinstance(failed.value, UpstreamTimeoutError)
    assert failed.value.flag == "UT"
    assert still_held(mesh) == {}


def test_read_timeout_between_pieces_of_the_body(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ")
        peer.wait()

    mesh = static({"payments": [f"127.0.0.1:{raw(script).port}"]})
    client = door.client(mesh)
    with within(0.1), pytest.raises(door.error("ReadTimeout")) as failed:
        client.get("/", timeout=door.library.Timeout(None, read=0.1))
    assert isinstance(failed.value, UpstreamTimeoutError)
    assert failed.value.flag == "UT"
    assert failed.value.request.url.host == "payments"


def test_the_read_timeout_is_for_each_read_not_for_the_whole(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            time.sleep(0.1)
            peer.send(b"x")

    client = door.client(static({"payments": [f"127.0.0.1:{raw(script).port}"]}))
    assert client.get("/", timeout=door.library.Timeout(None, read=0.4)).text == "x" * 8


def test_write_timeout(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        time.sleep(1.0)

    mesh = static({"payments": [f"127.0.0.1:{raw(script).port}"]})
    client = door.client(mesh, timeout=door.library.Timeout(None, write=0.2))
    with within(0.2), pytest.raises(door.error("WriteTimeout")) as failed:
        client.post("/", content=b"x" * 30_000_000)
    assert isinstance(failed.value, UpstreamTimeoutError)
    assert still_held(mesh) == {}


def test_connect_timeout(door: Door, static: Static, full_listener: str) -> None:
    mesh = static({"payments": [full_listener]})
    client = door.client(mesh, timeout=door.library.Timeout(None, connect=0.2))
    with within(0.2), pytest.raises(door.error("ConnectTimeout")) as failed:
        client.get("/")
    assert failed.value.flag == "UF"  # type: ignore[attr-defined]  it is ours as well
    assert still_held(mesh) == {}


def test_the_clusters_connect_timeout_bounds_the_callers(door: Door, static: Static, full_listener: str) -> None:
    mesh = static({"payments": static_cluster("payments", [full_listener], connect_timeout=0.2)})
    client = door.client(mesh, timeout=door.library.Timeout(None, connect=30))
    with within(0.2), pytest.raises(door.error("ConnectTimeout")):
        client.get("/")


def test_pool_timeout(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ")
        peer.wait()

    cluster = static_cluster("payments", [f"127.0.0.1:{raw(script).port}"])
    one = CircuitBreakers(default=Thresholds(max_connections=1))
    mesh = static({"payments": replace(cluster, circuit_breakers=one)})
    client = door.client(mesh)
    busy = client.open("GET", "/")
    with within(0.1), pytest.raises(door.error("PoolTimeout")) as failed:
        client.get("/", timeout=door.library.Timeout(None, pool=0.1))
    assert isinstance(failed.value, UpstreamTimeoutError)
    client.close_response(busy)


def test_a_request_may_override_the_client(door: Door, static: Static, fast_backend: Fast) -> None:
    client = door.client(static({"payments": [fast_backend("slow", Reply(delay=0.3)).address]}), timeout=0.05)
    with pytest.raises(door.error("TimeoutException")):
        client.get("/")
    assert client.get("/", timeout=5.0).status_code == 200
    assert client.get("/", timeout=None).status_code == 200


@pytest.mark.parametrize("seconds", [3e11, 1e10, 2.0**32 / 1000 + 0.05])
def test_a_time_out_of_centuries_is_none_to_speak_of(
    door: Door, static: Static, fast_backend: Fast, seconds: float
) -> None:
    """Sockets refuse such numbers, or take them modulo 2^32 milliseconds: 49.7 days and a bit are a bit."""
    backend = fast_backend("slow", Reply(delay=0.2))
    mesh = static({"payments": [backend.address]}, timeout=seconds)
    client = door.client(mesh)
    assert client.get("/").status_code == 200
    asked = {"x-envoy-upstream-rq-timeout-ms": f"{seconds * 1000:.0f}", "x-envoy-upstream-stream-duration-ms": "9" * 18}
    assert client.get("/", headers=asked).status_code == 200


def test_the_routes_timeout_ends_a_patient_callers_call(door: Door, static: Static, fast_backend: Fast) -> None:
    mesh = static({"payments": [fast_backend("slow", Reply(delay=5.0)).address]}, timeout=0.15)
    with within(0.15), pytest.raises(door.error("ReadTimeout")) as failed:
        door.client(mesh, timeout=60).get("/")
    assert failed.value.flag == "UT"  # type: ignore[attr-defined]
    assert mesh.stats()["cluster.payments.upstream_rq_timeout"] == 1


def test_the_routes_timeout_covers_the_body(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            peer.send(b"x")
            time.sleep(0.02)

    mesh = static({"payments": [f"127.0.0.1:{raw(script).port}"]}, timeout=0.3)
    client = door.client(mesh)
    response = client.open("GET", "/")
    assert response.status_code == 200
    with within(0.1), pytest.raises(door.error("ReadTimeout")) as failed:
        client.read(response)
    assert isinstance(failed.value, UpstreamTimeoutError)
    assert still_held(mesh) == {}


def test_the_deadline_of_an_incoming_request_is_inherited(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("slow", Reply(delay=5.0))
    mesh = static({"payments": [backend.address]}, retries=3)
    client = door.client(mesh)
    token = current.set(CallContext(deadline=time.monotonic() + 0.2))
    try:
        with within(0.15), pytest.raises(door.error("TimeoutException")) as failed:
            client.get("/")
        assert failed.value.flag == "UT"  # type: ignore[attr-defined]
        with within(0.0, 0.1), pytest.raises(UpstreamTimeoutError, match="before the attempt"):
            client.get("/too-late")
    finally:
        current.reset(token)
    assert backend.count == 1
    told = int(backend.requests[0].header("x-envoy-expected-rq-timeout-ms", ""))
    assert 100 <= told <= 200
    assert still_held(mesh) == {}

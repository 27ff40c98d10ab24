"""Every failure the mesh can make, provoked for real: its class, ours and the library's, and what it says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import httpx2
import pybreaker
import pytest

import meshlib
from e2e.http_client.conftest import still_held
from e2e.http_client.doors import Door
from e2e.wire.raw_server import Peer, RawServer
from meshlib import Mesh, errors
from meshlib.http.errors import _THEIRS
from meshlib.model.cluster import CircuitBreaker, CircuitBreakers, Thresholds, UpstreamTls
from meshlib.model.endpoint import ClusterLoadAssignment, DropOverload
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import RetryPolicy, Route, RouteAction
from meshlib.model.snapshot import Snapshot
from meshlib.policy.shared_limit import SharedRateLimit
from meshlib.sources.static import static_cluster, static_snapshot
from parts.fast_backend import FastBackend, Reply

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
Raw = Callable[..., RawServer]


@dataclass
class World:
    """What a row may use to bring its failure about."""

    door: Door
    static: Static
    fast: Fast
    raw: Raw
    closed_port: int
    client: Any = None

    def serve(self, clusters: Mapping[str, Any], **options: Any) -> None:
        self.client = self.door.client(self.static(clusters, **options))

    def script(self, script: Callable[[Peer], None], **options: Any) -> None:
        self.serve({"payments": [f"127.0.0.1:{self.raw(script).port}"]}, **options)

    def behaving(self, **options: Any) -> None:
        self.serve({"payments": [self.fast("b", Reply(**options)).address]})


def no_route(world: World) -> None:
    only = Route(RouteMatch(PathMatcher("prefix", "/other")), RouteAction("payments"))
    world.serve({"payments": [world.fast().address]}, routes={"payments": (only,)})


def no_cluster(world: World) -> None:
    lost = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("gone"))
    world.serve({"other": [world.fast().address]}, routes={"payments": (lost,)})


def no_endpoint(world: World) -> None:
    world.serve({"payments": []})


def too_many_requests(world: World) -> None:
    cluster = static_cluster("payments", [world.fast().address])
    world.serve({"payments": replace(cluster, circuit_breakers=CircuitBreakers(default=Thresholds(max_requests=0)))})


def too_many_pending(world: World) -> None:
    cluster = static_cluster("payments", [world.fast().address])
    none = CircuitBreakers(default=Thresholds(max_pending_requests=0))
    world.serve({"payments": replace(cluster, circuit_breakers=none)})


def open_circuit(world: World) -> None:
    down = world.fast("down", Reply(503))
    breaker = CircuitBreaker(fail_max=1, reset_timeout=600)
    world.serve({"payments": static_cluster("payments", [down.address], circuit_breaker=breaker)})
    assert world.client.get("/charge").status_code == 503


def refused(world: World) -> None:
    world.serve({"payments": [f"127.0.0.1:{world.closed_port}"]})


def no_tls(world: World) -> None:
    cluster = static_cluster("payments", [world.fast().address])
    world.serve({"payments": replace(cluster, tls=UpstreamTls(sni="payments"))})


def unusable_tls(world: World) -> None:
    cluster = static_cluster("payments", [world.fast().address])
    world.serve({"payments": replace(cluster, tls=UpstreamTls(unusable="certificates by SDS"))})


def reset(world: World) -> None:
    world.behaving(fault="reset")


def closed(world: World) -> None:
    world.behaving(fault="close")


def route_timeout(world: World) -> None:
    world.serve({"payments": [world.fast("slow", Reply(delay=5)).address]}, timeout=0.1)


def read_timeout(world: World) -> None:
    world.behaving(delay=5)
    world.client.client.timeout = world.door.library.Timeout(None, read=0.1)


def silent(world: World) -> None:
    quick = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("payments", idle_timeout=0.1))
    world.serve({"payments": [world.fast("slow", Reply(delay=5)).address]}, routes={"payments": (quick,)})


def half_a_head(world: World) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")

    world.script(script)


def garbage(world: World) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"this is not HTTP\r\n\r\n")

    world.script(script)


def limited(world: World) -> None:
    limit = world.door.keep(SharedRateLimit("1/hour", "memory://", name="quota"))
    mesh = world.static({"payments": [world.fast().address]}, rate_limits={"payments": limit})
    world.client = world.door.client(mesh)
    assert world.client.get("/charge").status_code == 200


def store_gone(world: World) -> None:
    limit = world.door.keep(SharedRateLimit("1/hour", f"redis://127.0.0.1:{world.closed_port}", on_error="closed"))
    mesh = world.static({"payments": [world.fast().address]}, rate_limits={"payments": limit})
    world.client = world.door.client(mesh)


def dropped(world: World) -> None:
    full = static_cluster("payments", [world.fast().address])
    assert isinstance(full.load_assignment, ClusterLoadAssignment)
    all_of_it = replace(full.load_assignment, drop_overloads=(DropOverload("load", 1.0),))
    world.serve({"payments": replace(full, load_assignment=all_of_it)})


def broken_body(world: World) -> None:
    world.behaving(body=b"x" * 100, fault="truncate")


def reset_body(world: World) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        peer.reset()

    world.script(script)


def garbled_body(world: World) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nno length\r\n")
        peer.wait()

    world.script(script)


@dataclass(frozen=True)
class Row:
    """What a failure is: our class, the library's, the flag, a word of the message, whether the wire is its cause."""

    provoke: Callable[[World], None]
    ours: type[errors.CallError]
    theirs: str
    flag: str
    says: str
    wire: bool = False
    attempts: int = field(default=0)


ROWS = [
    Row(no_route, errors.NoRouteError, "TransportError", "NR", "no route of virtual host 'payments'"),
    Row(no_cluster, errors.ClusterNotFoundError, "TransportError", "NC", "'gone' does not exist"),
    Row(no_endpoint, errors.NoHealthyUpstreamError, "ConnectError", "UH", "no healthy endpoint in cluster 'payments'"),
    Row(too_many_requests, errors.UpstreamOverflowError, "PoolTimeout", "UO", "max_requests", attempts=1),
    Row(too_many_pending, errors.UpstreamOverflowError, "PoolTimeout", "UO", "pending requests", True, attempts=1),
    Row(
        open_circuit, errors.CircuitOpenError, "ConnectError", "UO", "circuit breaker of cluster 'payments'", attempts=1
    ),
    Row(refused, errors.UpstreamConnectError, "ConnectError", "UF", "connect", True, attempts=1),
    Row(no_tls, errors.UpstreamConnectError, "ConnectError", "UF", "127.0.0.1", True, attempts=1),
    Row(unusable_tls, errors.UpstreamConnectError, "ConnectError", "UF", "certificates by SDS", True, attempts=1),
    Row(reset, errors.UpstreamResetError, "ReadError", "UC", "reset", True, attempts=1),
    Row(closed, errors.UpstreamResetError, "ReadError", "UC", "closed by the peer before a response", True, attempts=1),
    Row(route_timeout, errors.UpstreamTimeoutError, "ReadTimeout", "UT", "deadline", True, attempts=1),
    Row(
        read_timeout,
        errors.UpstreamTimeoutError,
        "ReadTimeout",
        "UT",
        "waiting for the response head",
        True,
        attempts=1,
    ),
    Row(silent, errors.UpstreamTimeoutError, "ReadTimeout", "SI", "waiting for the response head", True, attempts=1),
    Row(half_a_head, errors.UpstreamProtocolError, "RemoteProtocolError", "UPE", "in the middle of", True, attempts=1),
    Row(garbage, errors.UpstreamProtocolError, "RemoteProtocolError", "UPE", "response", True, attempts=1),
    Row(limited, errors.RateLimitedError, "TransportError", "RL", "rate limit 'quota'"),
    Row(store_gone, errors.RateLimitedError, "TransportError", "RLSE", "rate limit"),
    Row(dropped, errors.CallError, "TransportError", "DO", "drop_overload category 'load'"),
    Row(broken_body, errors.UpstreamProtocolError, "RemoteProtocolError", "UPE", "in the middle of", True, attempts=1),
    Row(reset_body, errors.UpstreamResetError, "ReadError", "UC", "reset", True, attempts=1),
    Row(garbled_body, errors.UpstreamProtocolError, "RemoteProtocolError", "UPE", "response", True, attempts=1),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.provoke.__name__)
def test_what_a_failure_is(
    row: Row, door: Door, static: Static, fast_backend: Fast, raw: Raw, free_port: Callable[[], int], meshes: list[Mesh]
) -> None:
    world = World(door, static, fast_backend, raw, free_port())
    row.provoke(world)
    with pytest.raises(door.error("HTTPError")) as caught:
        world.client.get("/charge?card=1")
    error: Any = caught.value
    assert isinstance(error, row.ours)
    assert isinstance(error, door.error(row.theirs))
    assert isinstance(error, meshlib.MeshError)
    other = httpx2 if door.library is httpx else httpx
    assert not isinstance(error, other.HTTPError)
    assert error.flag == error.failure.flag == row.flag
    assert row.says in str(error)
    assert str(error).startswith(f"{row.flag}: ")
    assert error.request.url == "http://payments/charge?card=1"
    assert (type(error.__cause__).__name__ == "WireError") is row.wire
    assert error.failure.attempts == row.attempts
    assert "card" not in str(error), "a query string may hold what no log should"
    assert still_held(meshes[-1], connections=False) == {}


def test_an_open_circuit_is_pybreakers_error_too(
    door: Door, static: Static, fast_backend: Fast, raw: Raw, free_port: Callable[[], int]
) -> None:
    world = World(door, static, fast_backend, raw, free_port())
    open_circuit(world)
    with pytest.raises(pybreaker.CircuitBreakerError):
        world.client.get("/")
    with pytest.raises(errors.UpstreamOverflowError) as caught:
        world.client.get("/")
    assert caught.value.failure.circuit_open


def test_a_per_try_timeout_that_no_retry_helps(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("slow", Reply(delay=5))
    policy = RetryPolicy(("5xx",), num_retries=1, per_try_timeout=0.1)
    mesh = static({"payments": [backend.address]}, retries=policy)
    with pytest.raises(door.error("ReadTimeout"), match="URX") as caught:
        door.client(mesh).get("/")
    assert isinstance(caught.value, errors.UpstreamTimeoutError)
    assert caught.value.failure.attempts == backend.count == 2
    assert mesh.stats()["cluster.payments.upstream_rq_per_try_timeout"] == 2


@pytest.mark.parametrize("name", ["x-bad\r\nx", "bad name"])
def test_a_request_that_cannot_be_sent_is_the_callers_mistake(
    door: Door, static: Static, fast_backend: Fast, name: str
) -> None:
    backend = fast_backend()
    mesh = static({"payments": [backend.address]}, retries=3)
    with pytest.raises(door.error("LocalProtocolError")):
        door.client(mesh).get("/", headers={name: "value"})
    assert backend.count == 0
    assert mesh.stats()["cluster.payments.upstream_rq_retry"] == 0
    assert still_held(mesh) == {}


def test_a_failure_is_one_except_clause_away(door: Door, static: Static) -> None:
    """The three ways people catch: by the library, by us, by kind."""
    client = door.client(static({"payments": []}))
    for kind in (
        door.error("HTTPError"),
        door.error("ConnectError"),
        meshlib.CallError,
        meshlib.NoHealthyUpstreamError,
    ):
        with pytest.raises(kind):
            client.get("/")


class LateSource:
    """Knows what `snapshot` says once it is told to, and nothing before."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.asked: list[str] = []
        self.answers = False

    def start(self, sink: Any) -> None:
        self._sink = sink

    def request(self, authority: str) -> None:
        self.asked.append(authority)
        if self.answers:
            threading.Timer(0.05, self._sink.publish, (self._snapshot,)).start()

    def close(self) -> None:
        """Nothing runs."""

    def forget(self) -> None:
        """Nothing is kept."""


def test_configuration_that_is_late_or_never_comes(door: Door, meshes: list[Mesh], fast_backend: Fast) -> None:
    source = LateSource(replace(static_snapshot({"payments": [fast_backend().address]}), on_demand=True))
    meshes.append(Mesh(source, fetch_timeout=0.2))
    client = door.client(meshes[0])
    with pytest.raises(errors.NoRouteError, match=r"^NFCF: no configuration for 'payments'") as caught:
        client.get("/")
    assert isinstance(caught.value, door.error("TransportError"))
    source.answers = True
    answers = client.together([("GET", "/")] * 5)
    assert [answer.status_code for answer in answers] == [200] * 5
    assert set(source.asked) == {"payments"}
    assert meshes[0]._waiting == {}, "nobody is woken for ever after"


def test_every_flag_with_a_class_of_its_own_has_a_row() -> None:
    provoked = {row.flag for row in ROWS}
    assert {str(flag) for flag in _THEIRS} - provoked == {"NFCF", "UR"}, "NFCF has a test of its own, UR needs HTTP/2"

"""TCP health checks of servers that answer, say nothing, or are not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2e.health.checked import attempts, becomes, health, often
from e2e.wire.raw_server import Peer, RawServer
from meshlib import Mesh
from meshlib.model.health import TcpHealthCheck
from meshlib.sources.static import static_cluster
from parts.xds import eventually

Static = Callable[..., Mesh]
PING = TcpHealthCheck(b"PING", (b"PO", b"NG"))


def pong(peer: Peer) -> None:
    while peer.sock.recv(100) == b"PING":
        peer.send(b"PO")
        peer.send(b"NG")


def test_an_answer_over_one_connection(static: Static, raw: Any) -> None:
    server: RawServer = raw(pong)
    mesh = static({"up": static_cluster("up", [f"127.0.0.1:{server.port}"], health_checks=[often(PING)])})
    assert health(mesh) == {server.port: "healthy"}
    eventually(lambda: attempts(mesh) >= 5, "several checks")
    assert server.connections == 1
    server.stop()
    becomes(mesh, {server.port: "unhealthy"})


def test_silence(static: Static, raw: Any) -> None:
    server: RawServer = raw(lambda peer: peer.wait())
    check = often(PING, timeout=0.1)
    mesh = static({"up": static_cluster("up", [f"127.0.0.1:{server.port}"], health_checks=[check])})
    assert health(mesh) == {server.port: "unhealthy"}
    assert mesh.stats()["cluster.up.health_check.network_failure"] >= 1


def test_a_connection_is_enough_and_is_closed_again(static: Static, raw: Any) -> None:
    server: RawServer = raw(lambda peer: peer.wait())
    check = often(TcpHealthCheck())
    mesh = static({"up": static_cluster("up", [f"127.0.0.1:{server.port}"], health_checks=[check])})
    assert health(mesh) == {server.port: "healthy"}
    assert server.closed.acquire(timeout=5)
    server.stop_listening()
    becomes(mesh, {server.port: "unhealthy"})


def test_a_server_that_closes_after_its_answer_is_well(static: Static, raw: Any) -> None:
    def once(peer: Peer) -> None:
        peer.sock.recv(100)
        peer.send(b"PONG")

    server: RawServer = raw(once)
    mesh = static({"up": static_cluster("up", [f"127.0.0.1:{server.port}"], health_checks=[often(PING)])})
    eventually(lambda: server.connections >= 4, "several connections")
    assert mesh.stats()["cluster.up.health_check.failure"] == 0


def test_a_unix_socket(static: Static, raw: Any, tmp_path: Any) -> None:
    raw(pong, path=str(tmp_path / "s"))
    mesh = static({"up": static_cluster("up", [f"unix:{tmp_path}/s"], health_checks=[often(PING)])})
    (host,) = mesh.plan.clusters["up"].balancer.hosts
    assert host.availability == "healthy"
    assert host.cell.probed is not None

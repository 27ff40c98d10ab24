"""HTTP health checks of real servers that fail, hang, say the wrong thing, or speak TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.health.checked import attempts, becomes, health, often
from e2e.wire.raw_server import Peer, RawServer
from meshlib import Mesh, NoHealthyUpstreamError
from meshlib.engine.events import EndpointHealthChanged
from meshlib.engine.readings import read
from meshlib.identity.dev_ca import DevCA
from meshlib.model.cluster import UpstreamTls
from meshlib.model.endpoint import EndpointHealthCheck, LbEndpoint
from meshlib.model.health import HttpHealthCheck, TcpHealthCheck
from meshlib.sources.static import parse_address, static_cluster
from parts.fast_backend import FastBackend, Reply
from parts.xds import eventually

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]


def gauges(mesh: Mesh) -> dict[str, float]:
    """What is read of the cluster's health."""
    prefix, names = "meshlib.cluster.", ("membership_healthy", "health_check.healthy", "health_check.degraded")
    read_now = {sample.metric.name.removeprefix(prefix): sample.value for sample in read(mesh.runtime)}
    return {name: read_now[name] for name in names}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(503),
        Reply(404),
        Reply(302, headers=(("location", "/"),)),
        Reply(fault="reset"),
        Reply(fault="close"),
        Reply(fault="truncate"),
    ],
    ids=str,
)
def test_whoever_fails_gets_no_calls_until_it_passes(static: Static, fast_backend: Fast, reply: Reply) -> None:
    sick, well = fast_backend("sick"), fast_backend("well")
    mesh = static({"up": static_cluster("up", [sick.address, well.address], health_checks=[often()])})
    assert health(mesh) == {sick.port: "healthy", well.port: "healthy"}
    seen: list[Any] = []
    mesh.on_event(seen.append)
    sick.behave(reply)
    becomes(mesh, {sick.port: "unhealthy", well.port: "healthy"})
    with mesh.http.client() as client:
        assert {client.get("http://up/").headers["x-backend"] for _ in range(20)} == {"well"}
        assert gauges(mesh) == {"membership_healthy": 1, "health_check.healthy": 1, "health_check.degraded": 0}
        sick.behave()
        becomes(mesh, {sick.port: "healthy", well.port: "healthy"})
        assert {client.get("http://up/").headers["x-backend"] for _ in range(20)} == {"sick", "well"}
        assert gauges(mesh) == {"membership_healthy": 2, "health_check.healthy": 2, "health_check.degraded": 0}
    changes = [event for event in seen if isinstance(event, EndpointHealthChanged)]
    assert [(event.endpoint, event.old, event.new) for event in changes] == [
        (sick.address, "healthy", "unhealthy"),
        (sick.address, "unhealthy", "healthy"),
    ]
    assert changes[0].reason
    assert changes[1].reason == "passed"


def test_whoever_hangs_is_out_after_the_threshold(static: Static, fast_backend: Fast) -> None:
    mute, well = fast_backend("mute"), fast_backend("well")
    check = often(timeout=0.1, unhealthy_threshold=3)
    mesh = static({"up": static_cluster("up", [mute.address, well.address], health_checks=[check])})
    before = mute.count
    mute.behave(fault="hang")
    becomes(mesh, {mute.port: "unhealthy", well.port: "healthy"})
    assert mute.count - before >= 3
    cell = mesh.runtime.state.clusters["up"].endpoints[mute.address]
    assert cell.probed is not None
    assert cell.probed.flags() == ("failed_active_hc", "active_hc_timeout")
    assert mesh.stats()["cluster.up.health_check.network_failure"] >= 3


def test_the_first_check_of_all_is_waited_for(static: Static, fast_backend: Fast) -> None:
    sick = fast_backend("sick", Reply(503, delay=0.3))
    cluster = replace(static_cluster("up", [sick.address], health_checks=[often()]), healthy_panic_threshold=0.0)
    mesh = static({"up": cluster})
    assert health(mesh) == {sick.port: "unhealthy"}
    with mesh.http.client() as client, pytest.raises(NoHealthyUpstreamError):
        client.get("http://up/")


def test_bodies_are_looked_at(static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("up", Reply(body=b"status: ok"))
    check = often(HttpHealthCheck("/healthz", receive=(b"status", b"ok")))
    mesh = static({"up": static_cluster("up", [backend.address], health_checks=[check])})
    assert health(mesh) == {backend.port: "healthy"}
    backend.behave(body=b"ok status")
    becomes(mesh, {backend.port: "unhealthy"})


def test_connections_are_kept_or_not(static: Static, fast_backend: Fast) -> None:
    kept, fresh = fast_backend("kept"), fast_backend("fresh")
    mesh = static(
        {
            "kept": static_cluster("kept", [kept.address], health_checks=[often()]),
            "fresh": static_cluster("fresh", [fresh.address], health_checks=[often(reuse_connection=False)]),
        }
    )
    eventually(lambda: min(attempts(mesh, "kept"), attempts(mesh, "fresh")) >= 6, "several checks")
    assert kept.connections_made == 1
    assert fresh.connections_made >= 5
    eventually(lambda: len(fresh.open_connections) <= 1, "and each is closed")


def test_a_kept_connection_that_was_closed_is_not_held_against_its_endpoint(static: Static, raw: Any) -> None:
    def once(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        peer.head()  # and closes without a word

    server: RawServer = raw(once)
    mesh = static({"up": static_cluster("up", [f"127.0.0.1:{server.port}"], health_checks=[often()])})
    eventually(lambda: server.connections >= 4, "several connections")
    assert mesh.stats()["cluster.up.health_check.failure"] == 0


def test_where_and_as_whom_an_endpoint_is_checked(static: Static, fast_backend: Fast) -> None:
    traffic, admin = fast_backend("traffic", Reply(500)), fast_backend("admin")
    place = LbEndpoint(parse_address(traffic.address), health_check=EndpointHealthCheck(admin.port, "admin.test"))
    mesh = static({"up": static_cluster("up", [place], health_checks=[often()])})
    assert health(mesh) == {traffic.port: "healthy"}
    assert {request.header("host") for request in admin.requests} == {"admin.test"}
    assert traffic.count == 0


def test_an_endpoint_may_be_left_unchecked(static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("up", Reply(503))
    place = LbEndpoint(parse_address(backend.address), health_check=EndpointHealthCheck(disabled=True))
    mesh = static({"up": static_cluster("up", [place], health_checks=[often()])})
    assert health(mesh) == {backend.port: "healthy"}
    assert backend.count == 0


def test_several_checks_must_all_pass(static: Static, fast_backend: Fast) -> None:
    state = {"/live": 200, "/ready": 200}
    backend = fast_backend("up", lambda request: Reply(state[request.target]))
    checks = [often(HttpHealthCheck("/live")), often(HttpHealthCheck("/ready"))]
    mesh = static({"up": static_cluster("up", [backend.address], health_checks=checks)})
    assert health(mesh) == {backend.port: "healthy"}
    state["/ready"] = 503
    becomes(mesh, {backend.port: "unhealthy"})
    state["/ready"] = 200
    becomes(mesh, {backend.port: "healthy"})


def test_every_result_may_be_logged(static: Static, fast_backend: Fast, caplog: Any) -> None:
    backend = fast_backend("up")
    caplog.set_level("INFO", "meshlib")
    check = often(always_log_health_check_failures=True, always_log_health_check_success=True)
    mesh = static({"up": static_cluster("up", [backend.address], health_checks=[check])})
    passed, failed = (f"health check of {backend.address} {what}" for what in ("passed", "failed: status 503"))
    eventually(lambda: caplog.messages.count(passed) > 1, "passes")
    backend.behave(status=503)
    eventually(lambda: caplog.messages.count(failed) > 1, "failures")
    changed = f"endpoint {backend.address} of up: healthy -> isolated by health checks (status 503)"
    assert caplog.messages.count(changed) == 1
    assert mesh.ready


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_the_clusters_own(static: Static, raw: Any, tmp_path: Path, trusted: bool) -> None:
    authority, other = DevCA.new("one"), DevCA.new("other")
    issued = authority.issue("spiffe://test/up")
    folder = issued.write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(peer: Peer) -> None:
        while peer.head():
            peer.send(OK)

    server: RawServer = raw(serve, context=context)
    tls = UpstreamTls(
        trusted_ca_pem=(authority if trusted else other).pem,
        certificate_chain_pem=issued.certificate,
        private_key_pem=issued.key,
    )
    cluster = static_cluster("up", [f"127.0.0.1:{server.port}"], health_checks=[often()])
    mesh = static({"up": replace(cluster, tls=tls)})
    assert health(mesh) == {server.port: "healthy" if trusted else "unhealthy"}
    tcp = static_cluster("up", [f"127.0.0.1:{server.port}"], health_checks=[often(TcpHealthCheck())])
    mesh = static({"up": replace(tcp, tls=tls)})
    assert health(mesh) == {server.port: "healthy" if trusted else "unhealthy"}

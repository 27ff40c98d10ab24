"""Sub-channels: one per endpoint, shared, drained when the endpoint goes, closed with the last channel; and what else
an attempt's connection is made of (authority, options, TLS).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
import trustme

from meshlib import Mesh, UpstreamResetError
from meshlib.grpc.subchannels import MAX_AUTHORITIES, SubChannels
from meshlib.model.cluster import UpstreamTls
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import HostRewrite, Route, RouteAction
from meshlib.sources.static import StaticSource, static_cluster, static_snapshot
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

PATIENCE = 10.0
Backends = Callable[[int], list[GrpcBackend]]


@pytest.fixture
def source(echo_backends: Backends) -> StaticSource:
    return StaticSource(static_snapshot({"payments": [backend.address for backend in echo_backends(2)]}))


@pytest.fixture
def mesh(source: StaticSource) -> Iterator[Mesh]:
    with Mesh(source) as made:
        yield made


def sub_channels(mesh: Mesh) -> SubChannels:
    return mesh.grpc._shared.sync()


def test_channels_of_a_mesh_share_their_connections(mesh: Mesh, grpc_stubs: Stubs) -> None:
    with mesh.grpc.channel("payments") as one, mesh.grpc.channel("xds:///payments") as other:
        for channel in (one, other):
            for _ in range(4):
                grpc_stubs.echo(channel).Unary(grpc_stubs.ask())
        assert len(sub_channels(mesh)) == 2
        one.close()
        assert len(sub_channels(mesh)) == 2
        assert grpc_stubs.echo(other).Unary(grpc_stubs.ask("still")).text == "still"
    assert len(sub_channels(mesh)) == 0


def test_an_endpoint_that_goes_finishes_its_calls_and_is_closed(
    mesh: Mesh, source: StaticSource, echo_backends: Backends, grpc_stubs: Stubs
) -> None:
    first, second = echo_backends(2)
    with mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        source.replace(static_snapshot({"payments": [first.address]}))
        stream = echo.ServerStream(grpc_stubs.ask(answers=2, pause=0.5))
        assert next(stream).backend == first.name
        (leaving,) = _by_address(mesh, first.address)
        source.replace(static_snapshot({"payments": [second.address]}))
        assert {echo.Unary(grpc_stubs.ask()).backend for _ in range(4)} == {second.name}
        assert (leaving.draining, leaving.closed) == (True, False)
        assert next(stream).number == 2
        assert list(stream) == []
        _until(lambda: leaving.closed)
        assert len(sub_channels(mesh)) == 1


async def test_an_endpoint_that_goes_with_asyncio(
    mesh: Mesh, source: StaticSource, echo_backends: Backends, grpc_stubs: Stubs
) -> None:
    first, second = echo_backends(2)
    async with mesh.grpc.aio_channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        source.replace(static_snapshot({"payments": [first.address]}))
        stream = echo.ServerStream(grpc_stubs.ask(answers=2, pause=0.3))
        assert (await stream.read()).backend == first.name
        found = mesh.grpc._shared.aio()
        (leaving,) = [entry[1] for entry in found._found.values()]
        source.replace(static_snapshot({"payments": [second.address]}))
        assert (await echo.Unary(grpc_stubs.ask())).backend == second.name
        assert (leaving.draining, leaving.closed) == (True, False)
        assert (await stream.read()).number == 2
        assert await stream.read() is grpc.aio.EOF
        assert leaving.closed
    assert len(found) == 0


def test_endpoints_come_and_go_under_load_without_a_failed_call(
    mesh: Mesh, source: StaticSource, echo_backends: Backends, grpc_stubs: Stubs
) -> None:
    backends = echo_backends(3)
    stop = threading.Event()

    def call(echo: Any) -> int:
        made = 0
        while not stop.is_set():
            echo.Unary(grpc_stubs.ask(), timeout=PATIENCE)
            made += 1
        return made

    with mesh.grpc.channel("payments") as channel, ThreadPoolExecutor(4) as pool:
        echo = grpc_stubs.echo(channel)
        callers = [pool.submit(call, echo) for _ in range(4)]
        for number in range(60):
            kept = [backend.address for index, backend in enumerate(backends) if index != number % 3]
            source.replace(static_snapshot({"payments": kept}))
            time.sleep(0.01)
        stop.set()
        assert all(caller.result(PATIENCE) > 0 for caller in callers)
        echo.Unary(grpc_stubs.ask())
        assert len(sub_channels(mesh)) <= 2


def test_authorities_of_one_endpoint_have_an_end(mesh: Mesh, source: StaticSource, grpc_stubs: Stubs) -> None:
    action = RouteAction("payments", host_rewrite=HostRewrite("header", "x-host"))
    source.replace(
        static_snapshot(
            {"payments": _addresses(source)[:1]},
            routes={"payments": [Route(RouteMatch(PathMatcher("prefix", "/")), action)]},
        )
    )
    with mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        for number in range(MAX_AUTHORITIES + 3):
            echo.Unary(grpc_stubs.ask(), metadata=(("x-host", f"host-{number}"),))
        assert len(sub_channels(mesh)) == MAX_AUTHORITIES


def test_a_child_of_a_fork_has_connections_of_its_own(mesh: Mesh, grpc_stubs: Stubs) -> None:
    with mesh.grpc.channel("payments") as channel:
        grpc_stubs.echo(channel).Unary(grpc_stubs.ask())
        parents = sub_channels(mesh)
        mesh.generation += 1  # what a fork does, without one
        grpc_stubs.echo(channel).Unary(grpc_stubs.ask())
        assert sub_channels(mesh) is not parents
        assert not any(entry[1].closed for entry in parents._found.values())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA, grpc_stubs: Stubs) -> Iterator[str]:
    """A server that wants a client certificate; its own is for payments.test."""

    class Echo(grpc_stubs.services.EchoServicer):  # type: ignore[misc, name-defined]
        def Unary(self, ask: Any, context: Any) -> Any:  # noqa: N802
            peers = context.auth_context().get("x509_common_name", [])
            return grpc_stubs.messages.Answer(text=ask.text, backend=b",".join(peers).decode())

    issued = authority.issue_cert("payments.test")
    pair = (issued.private_key_pem.bytes(), b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        grpc_stubs.services.add_EchoServicer_to_server(Echo(), server)
        credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def client_tls(authority: trustme.CA) -> UpstreamTls:
    issued = authority.issue_cert("orders.test", common_name="orders")
    return UpstreamTls(
        sni="payments.test",
        trusted_ca_pem=authority.cert_pem.bytes(),
        certificate_chain_pem=b"".join(pem.bytes() for pem in issued.cert_chain_pems),
        private_key_pem=issued.private_key_pem.bytes(),
        subject_alt_names=(("DNS", "exact", "payments.test"),),
    )


def _secured(address: str, tls: UpstreamTls) -> Mesh:
    return Mesh.static({"payments": replace(static_cluster("payments", [address]), tls=tls)})


def test_a_cluster_with_tls_is_called_by_it(secure: str, client_tls: UpstreamTls, grpc_stubs: Stubs) -> None:
    with _secured(secure, client_tls) as mesh, mesh.grpc.channel("payments") as channel:
        assert grpc_stubs.echo(channel).Unary(grpc_stubs.ask("hi")).backend == "orders"
        token = grpc.access_token_call_credentials("secret")
        assert grpc_stubs.echo(channel).Unary(grpc_stubs.ask("hi"), credentials=token).text == "hi"


def test_the_callers_credentials_are_for_clusters_without_tls(
    secure: str, client_tls: UpstreamTls, grpc_stubs: Stubs
) -> None:
    credentials = grpc.ssl_channel_credentials(
        client_tls.trusted_ca_pem, client_tls.private_key_pem, client_tls.certificate_chain_pem
    )
    with (
        Mesh.static({"payments.test": [secure]}) as mesh,
        mesh.grpc.channel("payments.test", credentials=credentials) as channel,
    ):
        assert grpc_stubs.echo(channel).Unary(grpc_stubs.ask("hi")).backend == "orders"


def test_channel_options_reach_the_connections(mesh: Mesh, grpc_stubs: Stubs) -> None:
    options = [("grpc.max_receive_message_length", 100)]
    with mesh.grpc.channel("payments", options=options) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            grpc_stubs.echo(channel).Unary(grpc_stubs.ask(size=1000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert mesh.stats()["cluster.payments.upstream_rq_5xx"] == 0


async def test_a_frozen_peer_is_found_by_its_silence(
    grpc_backend: Callable[..., GrpcBackend], grpc_stubs: Stubs
) -> None:
    backend = grpc_backend("frozen")
    silence = [("grpc.keepalive_time_ms", 500), ("grpc.keepalive_timeout_ms", 500), ("grpc.http2.ping_timeout_ms", 500)]
    async with (
        Mesh.static({"payments": [backend.address]}, timeout=None) as mesh,
        mesh.grpc.aio_channel("payments", options=silence) as channel,
    ):
        echo = grpc_stubs.echo(channel)
        await echo.Unary(grpc_stubs.ask())
        backend.pause()
        try:
            with pytest.raises(UpstreamResetError):
                await asyncio.wait_for(echo.Unary(grpc_stubs.ask()), PATIENCE)
        finally:
            backend.resume()


def _addresses(source: StaticSource) -> list[str]:
    (cluster,) = source._snapshot.clusters.values()
    assert cluster.load_assignment is not None
    return [str(item.address) for group in cluster.load_assignment.localities for item in group.endpoints]


def _by_address(mesh: Mesh, address: str) -> list[Any]:
    return [entry[1] for key, entry in sub_channels(mesh)._found.items() if key[1] == address]


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)

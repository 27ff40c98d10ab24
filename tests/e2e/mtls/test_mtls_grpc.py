"""gRPC by mutual TLS, blocking and asyncio: SPIFFE IDs on both ends, and the caller known to the service."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from e2e.mtls.workloads import CLIENT_ID, SERVER_ID, Pair, mesh_to, pair_of_workloads
from meshlib import Mesh, UpstreamConnectError, UpstreamResetError, context
from meshlib.grpc import secure
from meshlib.grpc.aio_server import AioServerInterceptor
from meshlib.grpc.server import ServerInterceptor
from meshlib.identity import ServerTls
from meshlib.identity.dev_ca import DevCA

METHOD = "/shop.Payments/Who"


class Who(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers with the caller, as the interceptor and as the transport know it."""

    def service(self, handler_call_details: Any) -> Any:
        def who(request: bytes, call: Any) -> bytes:
            found = secure.peer(call)
            return f"{context.peer()} {found.spiffe_id if found else None}".encode()

        def stream(requests: Iterator[bytes], call: Any) -> Iterator[bytes]:
            yield from requests

        if handler_call_details.method == METHOD:
            return grpc.unary_unary_rpc_method_handler(who)
        return grpc.stream_stream_rpc_method_handler(stream)


@contextlib.contextmanager
def grpc_server(identity: Any) -> Iterator[int]:
    mesh = Mesh.static({})
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[ServerInterceptor(mesh)])
    server.add_generic_rpc_handlers((Who(),))
    port = secure.add_mtls_port(server, "127.0.0.1:0", identity)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


class AioWho(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, handler_call_details: Any) -> Any:
        async def who(request: bytes, call: Any) -> bytes:
            found = secure.peer(call)
            return f"{context.peer()} {found.spiffe_id if found else None}".encode()

        return grpc.unary_unary_rpc_method_handler(who)


@contextlib.asynccontextmanager
async def aio_grpc_server(identity: Any) -> AsyncIterator[int]:
    mesh = Mesh.static({})
    server = grpc.aio.server(interceptors=[AioServerInterceptor(mesh)])
    server.add_generic_rpc_handlers((AioWho(),))
    port = secure.add_mtls_port(server, "127.0.0.1:0", identity)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with pair_of_workloads() as made:
        yield made


@pytest.fixture(scope="module")
def port(pair: Pair) -> Iterator[int]:
    with grpc_server(pair.server.identity) as port:
        yield port


KNOWN = f"{CLIENT_ID} {CLIENT_ID}".encode()


def test_both_ends_know_each_other(pair: Pair, port: int) -> None:
    with mesh_to(port, pair.client.identity) as mesh, mesh.grpc.channel("payments") as channel:
        assert channel.unary_unary(METHOD)(b"", timeout=10) == KNOWN


async def test_both_ends_know_each_other_on_asyncio(pair: Pair) -> None:
    async with (
        aio_grpc_server(pair.server.identity) as port,
        mesh_to(port, pair.client.identity) as mesh,
        mesh.grpc.aio_channel("payments") as channel,
    ):
        assert await channel.unary_unary(METHOD)(b"", timeout=10) == KNOWN


def test_much_goes_both_ways_at_once(pair: Pair, port: int) -> None:
    """More than any buffer on the way holds."""
    messages = [bytes([number]) * 1_000_000 for number in range(40)]
    with mesh_to(port, pair.client.identity) as mesh, mesh.grpc.channel("payments") as channel:
        assert list(channel.stream_stream("/shop.Payments/Echo")(iter(messages), timeout=60)) == messages


def test_a_server_that_is_somebody_else_is_refused(pair: Pair, port: int) -> None:
    other = "spiffe://demo.test/ns/shop/sa/billing"
    with (
        mesh_to(port, pair.client.identity, other) as mesh,
        mesh.grpc.channel("payments") as channel,
        pytest.raises(UpstreamConnectError, match=f"it has: URI:{SERVER_ID}") as caught,
    ):
        channel.unary_unary(METHOD)(b"", timeout=10)
    assert isinstance(caught.value, grpc.RpcError)
    with mesh_to(port, pair.client.identity, "spiffe://demo.test/ns/shop/*") as mesh:
        assert mesh.grpc.channel("payments").unary_unary(METHOD)(b"", timeout=10) == KNOWN


def test_a_client_of_another_authority_is_refused(pair: Pair, port: int) -> None:
    issued = DevCA.new().issue(CLIENT_ID)
    stranger = DevCA.new().issue(CLIENT_ID).identity()
    stranger.replace(issued.certificate, issued.key, pair.authority.pem)
    with (
        mesh_to(port, stranger) as mesh,
        mesh.grpc.channel("payments") as channel,
        pytest.raises(UpstreamConnectError, match=f"127.0.0.1:{port}"),
    ):
        channel.unary_unary(METHOD)(b"", timeout=10)


def test_only_those_allowed_reach_the_service(pair: Pair) -> None:
    tls = ServerTls(pair.server.identity, allow=["spiffe://demo.test/ns/tools/*"], alpn=("h2",))
    with (
        grpc_server(tls) as port,
        mesh_to(port, pair.client.identity) as mesh,
        mesh.grpc.channel("payments") as channel,
        pytest.raises(grpc.RpcError),
    ):
        channel.unary_unary(METHOD)(b"", timeout=10)


def test_a_plain_grpc_client_with_the_right_certificate_is_served(pair: Pair) -> None:
    """Whoever speaks TLS and gRPC is served: nothing of the mesh is needed on the other side."""
    authority = pair.authority
    server = authority.issue(SERVER_ID, dns_names=["payments.test"]).identity()
    ours = authority.issue(CLIENT_ID)
    credentials = grpc.ssl_channel_credentials(authority.pem, ours.key, ours.certificate)
    options = [("grpc.ssl_target_name_override", "payments.test")]
    with (
        grpc_server(server) as port,
        grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel,
    ):
        assert channel.unary_unary(METHOD)(b"", timeout=10) == KNOWN


def test_call_credentials_go_by_mutual_tls(pair: Pair, port: int) -> None:
    with mesh_to(port, pair.client.identity) as mesh, mesh.grpc.channel("payments") as channel:
        token = grpc.access_token_call_credentials("secret")
        assert channel.unary_unary(METHOD)(b"", timeout=10, credentials=token) == KNOWN


def _until_the_end_is_seen(channel: Any) -> None:
    while True:
        with contextlib.suppress(UpstreamResetError):  # of the old connection, whose end is on its way still
            channel.unary_unary(METHOD)(b"", timeout=10)


def test_a_server_that_went_and_came_back_is_found_again(pair: Pair) -> None:
    with grpc_server(pair.server.identity) as port:
        mesh = mesh_to(port, pair.client.identity)
        channel = mesh.grpc.channel("payments")
        assert channel.unary_unary(METHOD)(b"", timeout=10) == KNOWN
    with pytest.raises(UpstreamConnectError, match=f"127.0.0.1:{port}"):
        _until_the_end_is_seen(channel)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Who(),))
    assert secure.add_mtls_port(server, f"127.0.0.1:{port}", pair.server.identity) == port
    server.start()
    answer = channel.unary_unary(METHOD)(b"", timeout=10, wait_for_ready=True)
    assert answer.endswith(CLIENT_ID.encode())
    server.stop(None).wait()
    channel.close()
    mesh.close()


def test_a_client_that_never_finishes_its_handshake_holds_up_nobody(pair: Pair, port: int) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(b"\x16\x03\x01")
        with mesh_to(port, pair.client.identity) as mesh, mesh.grpc.channel("payments") as channel:
            assert channel.unary_unary(METHOD)(b"", timeout=10) == KNOWN


def test_tls_without_h2_is_no_grpc(pair: Pair, port: int) -> None:
    issued = pair.authority.issue(CLIENT_ID)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.load_verify_locations(cadata=pair.authority.pem.decode())
    identity = issued.identity()
    assert identity.current.pair is not None
    identity.current.pair.load_into(tls)

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(b"GET / HTTP/1.1\r\nhost: payments\r\n\r\n" + bytes(64))
        try:
            return await asyncio.wait_for(reader.read(100_000), 10)
        except OSError:
            return b""
        finally:
            writer.transport.abort()

    assert KNOWN not in asyncio.run(ask())

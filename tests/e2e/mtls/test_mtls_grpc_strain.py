"""The tunnel of gRPC's TLS when the process runs short of file descriptors, and when one of its connections is odd."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from e2e.mtls.test_mtls_grpc import METHOD, grpc_server
from e2e.mtls.workloads import CLIENT_ID, mesh_to, pair_of_workloads
from meshlib.grpc.secure import add_mtls_port
from meshlib.grpc.tunnel import client as client_module
from meshlib.grpc.tunnel.client import ClientTunnel
from meshlib.grpc.tunnel.places import PLACES
from meshlib.grpc.tunnel.pump import PUMP
from meshlib.grpc.tunnel.server import ServerTunnel
from meshlib.identity import Identity, ServerTls
from meshlib.identity.dev_ca import DevCA
from meshlib.identity.upstream import Secured
from meshlib.model.endpoint import Address
from parts.xds import eventually

AUTHORITY = DevCA.new()


@pytest.fixture
def identity() -> Identity:
    return AUTHORITY.issue("spiffe://demo.test/server").identity()


class Dialled:
    """What a client tunnel dials: tells that it was asked, and refuses."""

    def __init__(self, error: Exception) -> None:
        self.times = 0
        self._error = error

    def __call__(self, _left: float) -> socket.socket:
        self.times += 1
        raise self._error


@contextlib.contextmanager
def client_tunnel(dial: Dialled) -> Iterator[ClientTunnel]:
    secured = Secured(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "payments")
    tunnel = ClientTunnel(Address("payments", 443), lambda: secured, dial, 1.0)
    yield tunnel
    tunnel.close()


def knock(path: str) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
        return True


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """No file or socket can be opened within."""
    gc.collect()  # what is garbage already must not make room in between
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    held: list[int] = []
    over = threading.Event()

    def fill() -> None:
        """Take what others in this process give back meanwhile."""
        while not over.wait(0.001):
            with contextlib.suppress(OSError):
                held.append(os.dup(0))

    filler = threading.Thread(target=fill)
    filler.start()
    try:
        yield
    finally:
        over.set()
        filler.join()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


def pumping() -> float:
    """Seconds of CPU the tunnels' own thread has used; the tests before this one may have left others at work."""
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "meshlib-grpc-tls")
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def told(caplog: pytest.LogCaptureFixture) -> int:
    return sum("cannot accept" in record.getMessage() for record in caplog.records)


def test_a_client_dials_again_when_there_are_descriptors_again() -> None:
    dial = Dialled(ConnectionRefusedError("nobody there"))
    with client_tunnel(dial) as tunnel, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as early:
        path = tunnel.target.removeprefix("unix:")
        with no_descriptors_left():
            early.connect(path)
            threading.Event().wait(0.2)  # the pump tries to accept it
            assert dial.times == 0
        assert knock(path), "the channel's target is there as long as the channel"
        eventually(lambda: dial.times == 2, "both connections are served")


def test_a_server_that_cannot_accept_says_so_now_and_then(identity: Identity, caplog: pytest.LogCaptureFixture) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as grpc_server,
        socket.socket() as client,
        caplog.at_level(logging.WARNING, "meshlib.grpc"),
    ):
        path = PLACES.new()
        grpc_server.bind(path)
        grpc_server.listen()
        front = ServerTunnel(ServerTls(identity, alpn=("h2",)), ("127.0.0.1", 0), path, 1.0)
        with no_descriptors_left():
            client.connect(("127.0.0.1", front.port))
            spent = pumping()
            threading.Event().wait(0.8)
            spent = pumping() - spent
        assert 1 <= told(caplog) <= 3, "not once a microsecond"
        assert spent < 0.4, "and the thread does not spin"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        client_pair = AUTHORITY.issue("spiffe://demo.test/client").identity().current
        assert client_pair.pair is not None
        assert client_pair.bundle is not None
        client_pair.pair.load_into(context)
        client_pair.bundle.load_into(context)
        context.set_alpn_protocols(["h2"])
        client.settimeout(10)
        with context.wrap_socket(client) as connection:  # it has waited in the listener's queue
            assert connection.selected_alpn_protocol() == "h2"
        front.close()


class Odd:
    """A connection whose time limit goes wrong."""

    def __init__(self) -> None:
        self.failed = threading.Event()

    def ready(self, sock: object) -> None:
        raise AssertionError("nothing comes")

    def fail(self, error: Exception) -> None:
        self.failed.set()

    def tick(self, now: float) -> None:
        raise PermissionError("the folder is not ours any more")


def test_one_connection_that_goes_wrong_takes_no_other_along(caplog: pytest.LogCaptureFixture) -> None:
    odd = Odd()
    mine, theirs = socket.socketpair()
    with mine, theirs, caplog.at_level(logging.ERROR, "meshlib.grpc"):
        PUMP.call_soon(lambda: PUMP.want(mine, odd, 1))
        assert odd.failed.wait(5)
        PUMP.call_soon(lambda: PUMP.want(mine, odd, 0))
        done = threading.Event()
        PUMP.call_soon(done.set)
        assert done.wait(5), "the thread serves all connections"


@pytest.mark.parametrize("error", [UnicodeError("label too long"), TypeError("null bytes")])
def test_a_name_that_cannot_be_dialled_is_why_the_call_fails(error: Exception) -> None:
    dial = Dialled(error)
    with client_tunnel(dial) as tunnel:
        path = tunnel.target.removeprefix("unix:")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(path)
            assert sock.recv(1) == b""
        assert str(error) in tunnel.failure


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs a network of both kinds")
def test_the_address_that_grpcs_examples_use_is_ipv4_as_well(identity: Identity) -> None:
    """`[::]:50051` means every address of the machine to grpcio."""

    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = add_mtls_port(server, "[::]:0", identity)
    server.start()
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), 5).close()
    server.stop(None).wait()


def test_event_loops_that_end_leave_no_tunnel_behind() -> None:
    """A channel of the whole process, and an `asyncio.run` for each job: nobody closes a loop's connections."""
    with pair_of_workloads() as pair, grpc_server(pair.server.identity) as port:
        mesh = mesh_to(port, pair.client.identity)
        channel = mesh.grpc.aio_channel("payments")

        async def job() -> bytes:
            return bytes(await channel.unary_unary(METHOD)(b"", timeout=10))

        for _ in range(6):
            assert CLIENT_ID.encode() in asyncio.run(job())
            gc.collect()
        to_here = [tunnel for tunnel in list(client_module._tunnels.values()) if tunnel.address.port == port]
        assert len(to_here) <= 2, "the last loop's, and perhaps the one before it"
        del to_here
        mesh.close()


def test_a_forked_child_does_not_close_its_parents_tunnel() -> None:
    dial = Dialled(ConnectionRefusedError("nobody there"))
    with client_tunnel(dial) as tunnel:
        child = multiprocessing.get_context("fork").Process(target=_close_and_wait, args=(tunnel,))
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert knock(tunnel.target.removeprefix("unix:"))


def _close_and_wait(tunnel: ClientTunnel) -> None:
    tunnel.close()
    done = threading.Event()
    PUMP.call_soon(done.set)
    assert done.wait(10)

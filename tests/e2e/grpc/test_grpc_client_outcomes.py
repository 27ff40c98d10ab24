"""What grpcio says when something goes wrong on the wire, and what we take it for: these fail when a new version words
it otherwise. The peers are written by hand, frame by frame.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc import aio

from meshlib.grpc.outcome import failed
from meshlib.grpc.subchannels import COMMON_OPTIONS
from meshlib.grpc.target import dialled
from meshlib.model.endpoint import Address
from meshlib.model.outcome import Failure, Outcome
from parts.ports import free_port

UNAVAILABLE, RESOURCE_EXHAUSTED, INTERNAL, CANCELLED = 14, 8, 13, 1
_SETTINGS, _SETTINGS_ACK = b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0"
_PREFACE = 24


class Peer:
    """The server's end of one HTTP/2 connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.stream = 0

    def await_call(self) -> None:
        """Shake hands and wait for the headers of a call."""
        self._take(_PREFACE)
        self._connection.sendall(_SETTINGS)
        kind = 0
        while kind != 1:
            head = self._take(9)
            kind, flags, self.stream = head[3], head[4], int.from_bytes(head[5:9], "big")
            self._take(int.from_bytes(head[:3], "big"))
            if kind == 4 and not flags & 1:
                self._connection.sendall(_SETTINGS_ACK)

    def frame(self, kind: int, flags: int, payload: bytes, stream: int | None = None) -> None:
        number = self.stream if stream is None else stream
        head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big")
        self._connection.sendall(head + payload)

    def headers(self, *pairs: tuple[bytes, bytes], end: bool = True) -> None:
        block = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in pairs)
        self.frame(1, 5 if end else 4, block)

    def goaway(self, last: int) -> None:
        self.frame(7, 0, last.to_bytes(4, "big") + bytes(4), stream=0)

    def wait_for_the_end(self) -> None:
        with contextlib.suppress(OSError):
            while self._connection.recv(4096):
                pass

    def reset(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = self._connection.recv(4096)
            if not piece:
                raise ConnectionError("the client left")
            self._buffer += piece
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


Behaviour = Callable[[Peer], None]


@pytest.fixture
def peer() -> Iterator[Callable[[Behaviour], Address]]:
    """`peer(behaviour)`: the address of a server that does that with each connection."""
    listeners: list[socket.socket] = []

    def serve(listener: socket.socket, behaviour: Behaviour) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    behaviour(Peer(connection))
                except OSError:
                    continue

    def start(behaviour: Behaviour) -> Address:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=serve, args=(listener, behaviour), daemon=True).start()
        return Address("127.0.0.1", listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def hang_up(peer: Peer) -> None:
    peer.await_call()


def reset(peer: Peer) -> None:
    peer.await_call()
    peer.reset()


def speak_http1(peer: Peer) -> None:
    peer._connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    peer.wait_for_the_end()


def leave_without_serving(peer: Peer) -> None:
    peer.await_call()
    peer.goaway(0)
    peer.wait_for_the_end()


def leave_in_the_middle(peer: Peer) -> None:
    peer.await_call()
    peer.goaway(peer.stream)


def refuse(code: int) -> Behaviour:
    def behaviour(peer: Peer) -> None:
        peer.await_call()
        peer.frame(3, 0, code.to_bytes(4, "big"))
        peer.wait_for_the_end()

    return behaviour


def answer_with_http(peer: Peer) -> None:
    peer.await_call()
    peer.headers((b":status", b"503"), (b"content-type", b"text/plain"))
    peer.wait_for_the_end()


def say(status: bytes, message: bytes = b"", *more: tuple[bytes, bytes]) -> Behaviour:
    def behaviour(peer: Peer) -> None:
        peer.await_call()
        grpc_status = ((b"grpc-status", status), (b"grpc-message", message))
        peer.headers((b":status", b"200"), (b"content-type", b"application/grpc"), *grpc_status, *more)
        peer.wait_for_the_end()

    return behaviour


def stay_silent(peer: Peer) -> None:
    peer.await_call()
    peer.wait_for_the_end()


CASES = [
    pytest.param(hang_up, (Failure.RESET, UNAVAILABLE, True), id="connection closed"),
    pytest.param(reset, (Failure.RESET, UNAVAILABLE, True), id="connection reset"),
    pytest.param(speak_http1, (Failure.CONNECT, UNAVAILABLE, False), id="no HTTP/2"),
    pytest.param(leave_without_serving, (Failure.REFUSED_STREAM, UNAVAILABLE, True), id="GOAWAY, not processed"),
    pytest.param(leave_in_the_middle, (Failure.RESET, UNAVAILABLE, True), id="GOAWAY, connection closed"),
    pytest.param(refuse(7), (Failure.REFUSED_STREAM, UNAVAILABLE, True), id="REFUSED_STREAM"),
    pytest.param(refuse(2), (Failure.RESET, INTERNAL, True), id="INTERNAL_ERROR"),
    pytest.param(refuse(8), (Failure.RESET, CANCELLED, True), id="CANCEL"),
    pytest.param(refuse(11), (Failure.RESET, RESOURCE_EXHAUSTED, True), id="ENHANCE_YOUR_CALM"),
    pytest.param(stay_silent, (Failure.TIMEOUT, None, True), id="deadline"),
    pytest.param(answer_with_http, (503, UNAVAILABLE), id="HTTP 503"),
    pytest.param(say(b"14", b"busy"), (200, UNAVAILABLE), id="server says UNAVAILABLE"),
    pytest.param(say(b"4", b"mine ran out"), (200, 4), id="server says DEADLINE_EXCEEDED"),
    pytest.param(say(b"77"), (200, 2), id="a status gRPC does not have"),
    pytest.param(
        say(b"14", b"failed to connect to all addresses; last error: UNKNOWN: ipv4:10.9.8.7:1: Connection refused"),
        (200, UNAVAILABLE),
        id="server passes on what happened behind it",
    ),
    pytest.param(
        say(b"14", b"Stream removed (Socket closed)", (b"x-trace", b"1")),
        (200, UNAVAILABLE),
        id="trailing metadata come from a server",
    ),
]


@pytest.mark.parametrize(("behaviour", "expected"), CASES)
def test_blocking(peer: Any, behaviour: Behaviour, expected: Any) -> None:
    address = peer(behaviour)
    limit = 0.2 if expected[0] is Failure.TIMEOUT else 5.0
    with grpc.insecure_channel(_target(address), options=COMMON_OPTIONS) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a/b")(b"", timeout=limit)
        assert _told(failed(caught.value, address, None)) == expected, caught.value
    with grpc.insecure_channel(_target(address), options=COMMON_OPTIONS) as channel:
        future = channel.unary_unary("/a/b").future(b"", timeout=limit)
        future.code()
        assert _told(failed(future, address, None)) == expected, future


@pytest.mark.parametrize(("behaviour", "expected"), CASES)
async def test_asyncio(peer: Any, behaviour: Behaviour, expected: Any) -> None:
    address = peer(behaviour)
    async with aio.insecure_channel(_target(address), options=COMMON_OPTIONS) as channel:
        limit = 0.2 if expected[0] is Failure.TIMEOUT else 5.0
        with pytest.raises(aio.AioRpcError) as caught:
            await channel.unary_unary("/a/b")(b"", timeout=limit)
        assert _told(failed(caught.value, address, None)) == expected, caught.value


@pytest.mark.parametrize(
    "address",
    [
        Address("127.0.0.1", 0),
        Address("::1", 0),
        Address("localhost", 0),
        Address("", 0, "/nonexistent/socket"),
        Address("no-such-host.invalid", 80),
    ],
    ids=str,
)
def test_nobody_listens(address: Address) -> None:
    if not address.path and not address.port:
        address = Address(address.host, free_port())
    with grpc.insecure_channel(_target(address), options=COMMON_OPTIONS) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a/b")(b"", timeout=5)
        assert _told(failed(caught.value, address, None)) == (Failure.CONNECT, UNAVAILABLE, False), caught.value


def test_what_never_left_is_the_callers_own() -> None:
    with grpc.insecure_channel(f"127.0.0.1:{free_port()}") as channel:
        for call, options in (
            (channel.unary_unary("/a/b"), {"metadata": (("Not Allowed", "x"),)}),
            (channel.unary_unary("/a/b", request_serializer=lambda _: None), {}),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", **options)
            outcome = failed(caught.value, None, None)
            assert (outcome.failure, outcome.request_sent) == (Failure.LOCAL, False), caught.value


def _told(outcome: Outcome) -> Any:
    if outcome.failure is not None:
        return outcome.failure, outcome.grpc_status, outcome.request_sent
    return outcome.status, outcome.grpc_status


def _target(address: Address) -> str:
    return dialled(address.host, address.port, address.path)

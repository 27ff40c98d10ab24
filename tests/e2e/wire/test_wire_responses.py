"""Every kind of response, well-formed or not, through both pools from a server that follows a script."""

import socket
import threading
from typing import Any

import pytest

from e2e.wire.doors import PATIENT, SyncDoor, request
from e2e.wire.raw_server import Peer
from meshlib.http.wire import FailureKind, PoolStats, Timeouts, WireError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def says(*answers: bytes, then_wait: bool = True) -> Any:
    """A script: one answer for each request."""

    def script(peer: Peer) -> None:
        for answer in answers:
            if not peer.head():
                return
            peer.send(answer)
        if then_wait:
            peer.wait()

    return script


@pytest.mark.parametrize(
    "answer, status, body",
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n", 200, b"ok!"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", 404, b""),
        (b"HTTP/1.1 204 X\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 X\r\nContent-Length: 10\r\n\r\n", 304, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000, 200, b"x" * 1_000_000),
    ],
)
def test_a_framed_response_is_read_and_its_connection_used_again(
    door: Any, raw: Any, answer: bytes, status: int, body: bytes
) -> None:
    server = raw(says(answer, answer))
    pool: SyncDoor = door(server)
    for _ in range(2):
        reply = pool.fetch()
        assert (reply.status, reply.body) == (status, body)
    assert server.connections == 1
    assert (pool.stats().active, pool.stats().idle) == (0, 1)


def test_a_response_that_comes_byte_by_byte(door: Any, raw: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        for part in (
            b"100 Continue\r\n\r\n",
            b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",
        ):
            for byte in b"HTTP/1.1 " + part:
                peer.send(bytes([byte]))
        peer.wait()

    reply = door(raw(script)).fetch()
    assert (reply.body, reply.trailers) == (b"ok", [(b"T", b"1")])


def test_a_response_to_head_leaves_the_connection_usable(door: Any, raw: Any) -> None:
    server = raw(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", OK))
    pool = door(server)
    assert pool.fetch(request(b"HEAD")).body == b""
    assert pool.fetch().body == b"ok"
    assert server.connections == 1


def test_a_body_without_length_ends_with_the_connection(door: Any, raw: Any) -> None:
    server = raw(says(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000, then_wait=False))
    pool = door(server)
    reply = pool.fetch()
    assert (len(reply.body), reply.http_version) == (100_000, b"HTTP/1.0")
    assert pool.fetch().status == 200
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nsurplus",
    ],
)
def test_a_connection_that_cannot_be_trusted_is_not_used_again(door: Any, raw: Any, answer: bytes) -> None:
    server = raw(says(answer))
    pool = door(server)
    for _ in range(3):
        assert pool.fetch().body == b"ok"
    assert server.connections == 3
    assert pool.stats().idle == 0


def test_a_caller_that_asks_to_close_gets_its_connection_closed(door: Any, raw: Any) -> None:
    server = raw(says(OK, OK))
    pool = door(server)
    assert pool.fetch(request(b"GET", None, (b"Connection", b"close"))).body == b"ok"
    assert pool.stats().idle == 0


def test_bytes_on_an_idle_connection_end_it_and_are_never_an_answer(door: Any, raw: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        if peer.number == 0:
            assert go.acquire(timeout=10)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            sent.release()
        peer.wait()

    go, sent = threading.Semaphore(0), threading.Semaphore(0)
    server = raw(script)
    pool = door(server)
    assert pool.fetch().body == b"ok"
    go.release()
    assert sent.acquire(timeout=10)
    pool.settle()
    assert pool.fetch().body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x00\x00\x04",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n" * 5000,
    ],
    ids=lambda answer: repr(answer[:40]),
)
def test_what_is_not_a_response_is_a_protocol_error(door: Any, raw: Any, answer: bytes) -> None:
    pool = door(raw(says(answer)))
    with pytest.raises(WireError) as caught:
        pool.fetch()
    assert caught.value.kind is FailureKind.PROTOCOL_ERROR
    assert caught.value.request_sent
    assert "127.0.0.1" in str(caught.value)
    assert pool.stats() == PoolStats(0, 0, 0)


@pytest.mark.parametrize(
    "answer, kind, started",
    [
        (b"", FailureKind.RESET, False),
        (b"HTTP/1.1 20", FailureKind.PROTOCOL_ERROR, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", FailureKind.PROTOCOL_ERROR, True),
    ],
)
@pytest.mark.parametrize("how", ["close", "reset", "half close"])
def test_a_connection_that_ends_before_the_head_is_whole(
    door: Any, raw: Any, answer: bytes, kind: FailureKind, started: bool, how: str
) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(answer)
        if how == "half close":
            peer.sock.shutdown(socket.SHUT_WR)
            peer.wait()
        elif how == "reset":
            peer.reset()

    pool = door(raw(script))
    with pytest.raises(WireError) as caught:
        pool.fetch()
    if how == "reset":
        assert caught.value.kind is FailureKind.RESET
    else:
        assert (caught.value.kind, caught.value.response_started) == (kind, started)
    assert caught.value.request_sent


@pytest.mark.parametrize("start", [b"Content-Length: 10\r\n\r\n12345", b"Transfer-Encoding: chunked\r\n\r\nA\r\n12345"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_body_cut_short_gives_what_came_and_then_an_error(door: Any, raw: Any, start: bytes, how: str) -> None:

    read = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n" + start)
        assert read.wait(10)
        if how == "reset":
            peer.reset()

    pool = door(raw(script))
    response = pool.open(request())
    chunks = pool.chunks(response)
    assert next(chunks) == b"12345"
    ended: list[Any] = []
    response.on_done = ended.append
    read.set()
    with pytest.raises(WireError) as caught:
        next(chunks)
    assert caught.value.kind is (FailureKind.RESET if how == "reset" else FailureKind.PROTOCOL_ERROR)
    assert caught.value.response_started
    assert ended == [caught.value]
    pool.close_response(response)
    assert ended == [caught.value], "once"


def test_a_server_that_does_not_answer(door: Any, raw: Any) -> None:
    pool = door(raw(says(b"")))
    with pytest.raises(WireError) as caught:
        pool.fetch(request(), Timeouts(read=0.05))
    assert (caught.value.kind, caught.value.response_started) == (FailureKind.READ_TIMEOUT, False)
    with pytest.raises(WireError) as caught:
        pool.fetch(request(), Timeouts(read=5.0, deadline=pool.now() + 0.05))
    assert caught.value.kind is FailureKind.DEADLINE
    assert pool.stats().active == 0


def test_a_body_that_stops_coming(door: Any, raw: Any) -> None:
    pool = door(raw(says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")))
    for timeouts, kind in (
        (Timeouts(read=0.05), FailureKind.READ_TIMEOUT),
        (Timeouts(read=5.0, deadline=pool.now() + 0.3), FailureKind.DEADLINE),
    ):
        chunks = pool.chunks(pool.open(request(), timeouts))
        assert next(chunks) == b"12345"
        with pytest.raises(WireError) as caught:
            next(chunks)
        assert caught.value.kind is kind


def test_a_deadline_can_be_moved_for_the_body(door: Any, raw: Any) -> None:
    pool = door(raw(says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")))
    response = pool.open(request(), Timeouts(deadline=pool.now() + 60))
    response.set_deadline(pool.now() + 0.05)
    chunks = pool.chunks(response)
    assert next(chunks) == b"12345"
    with pytest.raises(WireError) as caught:
        next(chunks)
    assert caught.value.kind is FailureKind.DEADLINE


def test_a_deadline_that_has_passed_already_sends_nothing(door: Any, raw: Any) -> None:
    server = raw(says(OK, OK))
    pool = door(server)
    for _ in range(2):  # on no connection, then on a kept one
        with pytest.raises(WireError) as caught:
            pool.fetch(request(), Timeouts(deadline=pool.now() - 1))
        assert caught.value.kind is FailureKind.DEADLINE
        assert not caught.value.request_sent
        assert pool.fetch().status == 200
    assert len(server.heads) == 2


def test_on_done_is_told_of_the_end_even_when_it_is_set_after_it(door: Any, raw: Any) -> None:
    pool = door(raw(says(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")))
    ended: list[Any] = []
    response = pool.open(request())
    response.on_done = ended.append
    assert ended == [None]
    assert b"".join(pool.chunks(response)) == b"ok"
    assert ended == [None]
    unfinished = pool.open(request())
    unfinished.on_done = ended.append
    assert ended == [None]
    pool.close_response(unfinished)
    assert ended == [None, None]
    with pytest.raises(WireError):
        list(pool.chunks(unfinished))  # buffered bytes may come, the end must not


def test_the_peer_is_known(door: Any, raw: Any) -> None:
    server = raw(says(OK))
    network = door(server).open(request(), PATIENT).network
    assert network.get_extra_info("server_addr") == network.peer == ("127.0.0.1", server.port)
    assert network.get_extra_info("client_addr")[0] == network.local[0] == "127.0.0.1"
    assert network.tls is network.get_extra_info("nonsense") is None

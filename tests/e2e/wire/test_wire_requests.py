"""What is sent: bodies of every kind, servers that answer early, servers that do not read, stale connections, TLS."""

import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from e2e.wire.doors import SyncDoor, request
from e2e.wire.raw_server import Peer
from meshlib.http.wire import (
    Address,
    ConnectionEvent,
    ConnectionEventKind,
    FailureKind,
    PoolStats,
    Timeouts,
    WireError,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = bytes(range(256)) * 40_000  # 10 MB: more than the kernel's buffers


def length(count: int) -> tuple[bytes, bytes]:
    return b"Content-Length", b"%d" % count


def test_bodies_arrive_as_given(door: Any, raw: Any) -> None:
    received: list[bytes] = []

    def script(peer: Peer) -> None:
        for size in (5, len(LARGE), 10):
            peer.head()
            received.append(peer.exactly(size))
            peer.send(OK)
        peer.head()
        received.append(peer.until(b"0\r\n\r\n"))
        peer.send(OK)
        peer.wait()

    server = raw(script)
    pool: SyncDoor = door(server)
    pool.fetch(request(b"POST", b"hello"))
    pool.fetch(request(b"POST", LARGE))
    pool.fetch(request(b"POST", pool.body([b"hello", b"", b"world"]), length(10)))
    pool.fetch(request(b"POST", pool.body([b"hello", b"", b"world!"])))
    assert received == [b"hello", LARGE, b"helloworld", b"5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n"]
    assert server.connections == 1


def test_a_plain_iterator_is_a_body_everywhere(door: Any, raw: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        assert peer.until(b"0\r\n\r\n") == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
        peer.send(OK)

    assert door(raw(script)).fetch(request(b"POST", iter([b"a", b"b"]))).body == b"ok"


def test_an_early_answer_stops_the_upload_and_costs_the_connection(door: Any, raw: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        peer.wait()

    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        for taken in range(1, 100_000):  # noqa: B007  how far it got is the point
            yield bytes(10_000)

    server = raw(script)
    pool: SyncDoor = door(server)
    reply = pool.fetch(request(b"POST", pool.body(pieces())))
    assert (reply.status, reply.body) == (413, b"big")
    assert taken < 99_999
    assert (pool.stats().active, pool.stats().idle) == (0, 0)
    assert pool.fetch(request(b"POST", LARGE)).status == 413


def test_an_early_answer_reaches_a_caller_whose_body_waits_for_something_else(raw: Any, door: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        peer.wait()

    pool = door(raw(script))
    if pool.kind == "sync":
        return  # a blocking iterator cannot be interrupted
    import asyncio

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    assert pool.fetch(request(b"POST", stuck())).status == 403

    def silent(peer: Peer) -> None:
        peer.wait()

    pool = door(raw(silent))
    with pytest.raises(WireError) as caught:
        pool.fetch(request(b"POST", stuck()), Timeouts(deadline=pool.now() + 0.1))
    assert caught.value.kind is FailureKind.DEADLINE
    assert pool.stats().active == 0


def test_a_server_that_answers_and_closes_without_reading(door: Any, raw: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        peer.sock.shutdown(socket.SHUT_WR)
        peer.wait()

    assert door(raw(script)).fetch(request(b"POST", LARGE)).status == 413


def reset_once_connected(raw: Any, answer: bytes) -> tuple[Any, Any]:
    """A server that answers and resets between the client's connect and its request, and the hook that makes it so."""
    connected = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        assert connected.acquire(timeout=10)
        peer.send(answer)
        peer.reset()

    def hook(event: ConnectionEvent) -> None:
        if event.kind is ConnectionEventKind.CONNECTED:
            connected.release()
            assert server.closed.acquire(timeout=10)

    server = raw(script)
    return server, hook


def test_an_answer_that_came_before_the_request_could_be_sent_is_taken(raw: Any) -> None:
    server, hook = reset_once_connected(raw, b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    pool = SyncDoor(Address("127.0.0.1", server.port), on_connection=hook)
    assert pool.fetch(request(b"POST", b"x")).status == 503
    assert pool.stats() == PoolStats(0, 0, 0)


def test_a_connection_reset_before_the_request_says_what_is_known_of_it(door: Any, raw: Any) -> None:
    server, hook = reset_once_connected(raw, b"")
    pool: SyncDoor = door(server, on_connection=hook)
    with pytest.raises(WireError) as caught:
        pool.fetch(request(b"POST", b"x"))
    if pool.kind == "sync":
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.RESET_BEFORE_REQUEST, False)
    else:  # a transport does not say whether the kernel took anything: the cautious answer
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.RESET, True)
    assert pool.stats() == PoolStats(0, 0, 0)


def test_a_server_that_does_not_read(door: Any, raw: Any) -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        release.wait(20)

    pool = door(raw(script))
    huge = LARGE * 3
    with pytest.raises(WireError) as caught:
        pool.fetch(request(b"POST", huge), Timeouts(write=0.1))
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.WRITE_TIMEOUT, True)
    with pytest.raises(WireError) as caught:
        pool.fetch(request(b"POST", pool.body([huge])), Timeouts(write=5.0, deadline=pool.now() + 0.1))
    assert caught.value.kind is FailureKind.DEADLINE
    release.set()
    assert pool.stats().active == 0


def test_a_body_that_raises_is_the_callers_error(door: Any, raw: Any) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("no more")

    pool: SyncDoor = door(raw(lambda peer: peer.wait()))
    with pytest.raises(WireError) as caught:
        pool.fetch(request(b"POST", pool.body(pieces())))
    assert caught.value.kind is FailureKind.REQUEST_BODY_FAILED
    assert isinstance(caught.value.__cause__, ValueError)
    assert pool.stats().active == 0


@pytest.mark.parametrize("pieces", [[b"x"], [b"xx", b"x"], [b"xxx", b"xxx"]])
def test_a_body_that_breaks_its_length_never_reaches_the_next_request(door: Any, raw: Any, pieces: list[bytes]) -> None:
    pool: SyncDoor = door(raw(lambda peer: peer.wait()))
    declared = 2 if len(b"".join(pieces)) != 2 else 3
    with pytest.raises(WireError) as caught:
        pool.fetch(request(b"POST", pool.body(pieces), length(declared)))
    assert caught.value.kind is FailureKind.INVALID_REQUEST
    assert pool.stats().idle == 0


# Connections that went stale while they were idle.


def stale(how: str) -> Any:
    """The first connection answers once, then takes a request and ends without a word."""

    def script(peer: Peer) -> None:
        while peer.head():
            if peer.number == 0 and len(peer.server.heads) == 2:
                if how == "reset":
                    peer.reset()
                return
            peer.send(OK)

    return script


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method, body", [(b"GET", None), (b"PUT", b"hello"), (b"DELETE", None)])
def test_an_idempotent_request_on_a_stale_connection_is_sent_again_once(
    door: Any, raw: Any, how: str, method: bytes, body: bytes | None
) -> None:
    server = raw(stale(how))
    pool = door(server)
    pool.fetch()
    assert pool.fetch(request(method, body)).body == b"ok"
    assert server.connections == 2
    assert (pool.stats().active, pool.stats().idle) == (0, 1)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_post_on_a_stale_connection_is_not_sent_again(door: Any, raw: Any, how: str) -> None:
    server = raw(stale(how))
    pool: SyncDoor = door(server)
    pool.fetch()
    with pytest.raises(WireError) as caught:
        pool.fetch(request(b"POST", b"charge"))
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.RESET, True)
    assert (server.connections, pool.stats().active) == (1, 0)
    pool.fetch()


def test_a_streamed_body_on_a_stale_connection_is_not_sent_again(door: Any, raw: Any) -> None:
    server = raw(stale("close"))
    pool: SyncDoor = door(server)
    pool.fetch()
    with pytest.raises(WireError) as caught:
        pool.fetch(request(b"PUT", pool.body([b"x"])))
    assert caught.value.request_sent
    assert server.connections == 1


def test_once_a_byte_of_the_answer_came_nothing_is_sent_again(door: Any, raw: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.head()
        peer.send(b"HTTP/1.1 20")
        assert received.acquire(timeout=10)
        peer.reset()

    received = threading.Semaphore(0)
    server = raw(script)
    pool: SyncDoor = door(server)
    pool.fetch()
    threading.Timer(0.1, received.release).start()
    with pytest.raises(WireError) as caught:
        pool.fetch()
    assert (caught.value.kind, caught.value.response_started) == (FailureKind.RESET, True)
    assert server.connections == 1


def test_once_means_once(door: Any, raw: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        if peer.number == 0:
            peer.send(OK)
            peer.head()

    server = raw(script)
    pool = door(server)
    pool.fetch()
    with pytest.raises(WireError) as caught:
        pool.fetch()
    assert caught.value.kind is FailureKind.RESET
    assert server.connections == 2


def test_a_second_connection_that_fails_tells_that_something_was_sent(door: Any, raw: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.head()
        peer.server.stop_listening()

    server = raw(script)
    pool = door(server)
    pool.fetch()
    with pytest.raises(WireError) as caught:
        pool.fetch()
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.CONNECT_FAILURE, True)
    assert pool.stats().active == 0


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_connection_closed_while_idle_is_noticed_and_not_used(door: Any, raw: Any, method: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)

    server = raw(script)
    pool = door(server)
    for _ in range(3):
        assert pool.fetch(request(method, b"x" if method == b"POST" else None)).body == b"ok"
        assert server.closed.acquire(timeout=10)
        pool.settle()
    assert server.connections == 3


# Opening connections.


def test_nobody_listens(door: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pool = door(Address("127.0.0.1", port))
    with pytest.raises(WireError) as caught:
        pool.fetch()
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.CONNECT_FAILURE, False)
    assert f"127.0.0.1:{port}" in str(caught.value)


def test_a_name_that_does_not_exist(door: Any) -> None:
    with pytest.raises(WireError) as caught:
        door(Address("does-not-exist.invalid", 80)).fetch()
    assert caught.value.kind is FailureKind.CONNECT_FAILURE


def test_a_server_that_does_not_accept(door: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        pool = door(Address("127.0.0.1", listener.getsockname()[1]))
        with pytest.raises(WireError) as caught:
            pool.fetch(request(), Timeouts(connect=0.1))
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.CONNECT_TIMEOUT, False)
        with pytest.raises(WireError) as caught:
            pool.fetch(request(), Timeouts(connect=10.0, deadline=pool.now() + 0.1))
        assert caught.value.kind is FailureKind.DEADLINE
        for filler in fillers:
            filler.close()


def test_a_unix_socket(door: Any, raw: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "s")

    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(OK)

    raw(script, path=path)
    pool = door(Address(path=path))
    assert pool.fetch().body == pool.fetch().body == b"ok"


# TLS.


def answers(peer: Peer) -> None:
    while peer.head():
        peer.send(OK)


@pytest.mark.parametrize("name", [None, "localhost"])
def test_tls_is_spoken_and_kept_alive(door: Any, raw: Any, certificates: Any, name: str | None) -> None:
    server = raw(answers, context=certificates.server)
    pool = door(server, ssl_context=certificates.client, server_hostname=name)
    for _ in range(3):
        response = pool.open(request())
        assert response.network.tls.version().startswith("TLSv1.")
        assert b"".join(pool.chunks(response)) == b"ok"
    assert server.connections == 1


def test_large_bodies_both_ways_over_tls(door: Any, raw: Any, certificates: Any) -> None:
    def script(peer: Peer) -> None:
        for _ in range(2):
            peer.head()
            body = peer.exactly(len(LARGE))
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        peer.wait()

    pool: SyncDoor = door(raw(script, context=certificates.server), ssl_context=certificates.client)
    assert pool.fetch(request(b"PUT", LARGE)).body == LARGE
    pieces = [LARGE[at : at + 50_000] for at in range(0, len(LARGE), 50_000)]
    assert pool.fetch(request(b"PUT", pool.body(pieces), length(len(LARGE)))).body == LARGE


def test_tls_failures_are_told_apart(door: Any, raw: Any, certificates: Any) -> None:
    cases = [
        (raw(answers, context=certificates.server), {"ssl_context": ssl.create_default_context()}),
        (raw(answers, context=certificates.server), {"ssl_context": certificates.client, "server_hostname": "other"}),
        (raw(lambda peer: peer.send(b"not TLS at all\r\n")), {"ssl_context": certificates.client}),
    ]
    for server, options in cases:
        pool = door(server, **options)
        with pytest.raises(WireError) as caught:
            pool.fetch()
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.TLS_FAILURE, False)
    silent = door(raw(lambda peer: peer.wait()), ssl_context=certificates.client)
    with pytest.raises(WireError) as caught:
        silent.fetch(request(), Timeouts(connect=0.1))
    assert caught.value.kind is FailureKind.CONNECT_TIMEOUT


def test_a_tls_connection_closed_while_idle_is_noticed(door: Any, raw: Any, certificates: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)

    server = raw(script, context=certificates.server)
    pool = door(server, ssl_context=certificates.client)
    for _ in range(3):
        assert pool.fetch(request(b"POST", b"x")).body == b"ok"
        assert server.closed.acquire(timeout=10)
        pool.settle()
    assert server.connections == 3

"""Bodies that come and go in pieces, and bodies that are given up halfway."""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from e2e.http_client.conftest import held, still_held
from e2e.http_client.doors import Door
from e2e.wire.raw_server import Peer, RawServer
from meshlib import Mesh
from meshlib.model.cluster import CircuitBreakers, Thresholds
from meshlib.sources.static import static_cluster
from parts.fast_backend import FastBackend, Reply, Request

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
Raw = Callable[..., RawServer]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def in_pieces(*pieces: bytes) -> Callable[[Peer], None]:
    """A server that sends each piece as a chunk of its own, for as many requests as come."""

    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(CHUNKED)
            for piece in pieces:
                peer.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            peer.send(b"0\r\n\r\n")

    return script


def endless(peer: Peer) -> None:
    """A server whose body has no end."""
    peer.head()
    peer.send(CHUNKED)
    while True:
        peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")


def address(server: RawServer) -> str:
    return f"127.0.0.1:{server.port}"


def test_a_generator_is_sent_in_chunks(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    client = door.client(static({"payments": [backend.address]}))
    answer = client.post("/up", content=door.body(b"piece %d " % i for i in range(100))).json()
    assert answer["body"] == "".join(f"piece {i} " for i in range(100))
    sent = backend.requests[0]
    assert sent.header("transfer-encoding") == "chunked"
    assert sent.header("content-length") is None


def test_a_stream_of_known_length_keeps_its_length(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    client = door.client(static({"payments": [backend.address]}))
    client.post("/up", content=door.body([b"four", b"five"]), headers={"Content-Length": "8"})
    sent = backend.requests[0]
    assert (sent.header("content-length"), sent.header("transfer-encoding"), sent.body) == ("8", None, b"fourfive")


def test_a_file_is_uploaded(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    content = bytes(range(256)) * 4096
    client = door.client(static({"payments": [backend.address]}))
    file = io.BytesIO(content)
    client.post("/up", content=door.body(iter(lambda: file.read(65536), b"")) if door.asynchronous else file)
    assert backend.requests[0].body == content


def test_a_megabyte_each_way(door: Door, static: Static, fast_backend: Fast) -> None:
    content = bytes(range(256)) * 4096
    backend = fast_backend("echo", lambda request: Reply(200, request.body))
    client = door.client(static({"payments": [backend.address]}))
    assert client.post("/", content=content).content == content


def test_every_way_to_iterate(door: Door, static: Static, raw: Raw) -> None:
    server = raw(in_pieces(b"first\nsec", b"ond\n", "thïrd".encode()))
    client = door.client(static({"payments": [address(server)]}))

    def streamed(kind: str, *args: Any) -> list[Any]:
        return list(client.chunks(client.open("GET", "/"), kind, *args))

    assert b"".join(streamed("bytes")) == "first\nsecond\nthïrd".encode()
    assert b"".join(streamed("raw")) == "first\nsecond\nthïrd".encode()
    assert streamed("lines") == ["first", "second", "thïrd"]
    assert "".join(streamed("text")) == "first\nsecond\nthïrd"
    assert [len(piece) for piece in streamed("bytes", 8)] == [8, 8, 3]
    assert server.connections == 1, "each was read to its end, so the connection served the next"


def test_pieces_come_as_they_are_sent_not_when_all_are_there(door: Door, static: Static, raw: Raw) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(CHUNKED + b"5\r\nearly\r\n")
        while not seen:
            time.sleep(0.005)
        peer.send(b"4\r\nlate\r\n0\r\n\r\n")

    client = door.client(static({"payments": [address(raw(script))]}))
    pieces = client.chunks(client.open("GET", "/"))
    seen.append(next(pieces))
    assert [*seen, *pieces] == [b"early", b"late"]


def test_an_early_close_gives_back_the_load_and_costs_one_connection(door: Door, static: Static, raw: Raw) -> None:
    server = raw(endless)
    mesh = static({"payments": [address(server)]})
    client = door.client(mesh)
    for number in range(1, 4):
        response = client.open("GET", "/")
        pieces = client.chunks(response)
        assert next(pieces).startswith(b"x")
        assert held(mesh, connections=False) != {}, "the body is still coming: the request is in flight"
        client.close_response(response)
        assert still_held(mesh) == {}
        assert server.connections == number


def test_a_response_closed_early_cannot_be_read_as_if_whole(door: Door, static: Static, raw: Raw) -> None:
    client = door.client(static({"payments": [address(raw(endless))]}))
    response = client.open("GET", "/")
    client.close_response(response)
    with pytest.raises((door.error("StreamError"), door.error("HTTPError"))):
        client.read(response)


def test_a_response_nobody_reads_gives_back_its_load_when_it_is_collected(door: Door, static: Static, raw: Raw) -> None:
    server = raw(endless)
    mesh = static({"payments": [address(server)]})
    client = door.client(mesh)
    response = client.open("GET", "/")
    assert held(mesh, connections=False) != {}
    del response
    gc.collect()
    client.settle()
    assert still_held(mesh) == {}
    assert server.closed.acquire(timeout=5), "its connection is closed"


def test_dropped_responses_do_not_block_a_full_pool(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        if peer.number < 2:
            endless(peer)
        else:
            in_pieces(b"fine")(peer)

    server = raw(script)
    cluster = static_cluster("payments", [address(server)])
    limits = CircuitBreakers(default=Thresholds(max_connections=2))
    client = door.client(static({"payments": replace(cluster, circuit_breakers=limits)}))
    for _ in range(2):
        client.open("GET", "/")
        gc.collect()
    assert client.get("/", timeout=5).text == "fine"


def test_what_the_callers_body_raises_is_what_the_caller_sees(door: Door, static: Static, fast_backend: Fast) -> None:
    class MineError(Exception):
        pass

    def pieces() -> Iterator[bytes]:
        yield b"some"
        raise MineError("of my own")

    backend = fast_backend()
    mesh = static({"payments": [backend.address]}, retries=3)
    client = door.client(mesh)
    with pytest.raises(MineError, match="of my own"):
        client.post("/up", content=door.body(pieces()))
    assert still_held(mesh) == {}
    assert mesh.stats()["cluster.payments.upstream_rq_retry"] == 0
    assert client.get("/after").status_code == 200


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes_and_leaves_nothing_behind(
    door: Door, static: Static, fast_backend: Fast, raised: type[BaseException]
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"some"
        raise raised

    mesh = static({"payments": [fast_backend().address]}, retries=3)
    client = door.client(mesh)
    try:
        client.post("/up", content=door.body(pieces()))
    except BaseException as error:  # noqa: BLE001  that is what it is about
        # Inside an async generator Python itself turns none of them into another; GeneratorExit ends it quietly.
        assert isinstance(error, raised)  # noqa: PT017
    assert still_held(mesh, connections=False) == {}
    assert client.get("/after").status_code == 200


def test_an_answer_before_the_end_of_the_body_ends_the_upload(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
        peer.wait()

    def pieces() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    client = door.client(static({"payments": [address(raw(script))]}))
    response = client.post("/up", content=door.body(pieces()))
    assert (response.status_code, response.text) == (413, "no!")


def test_a_body_that_is_no_more_there_is_not_sent_again(door: Door, static: Static, fast_backend: Fast) -> None:
    replies = iter([503, 200])
    backend = fast_backend("flaky", lambda request: Reply(next(replies)))
    client = door.client(static({"payments": [backend.address]}, retries=1))
    assert client.post("/", content=door.body([b"once"])).status_code == 503
    assert [request.body for request in backend.requests] == [b"once"]


def test_a_body_at_hand_is_sent_again(door: Door, static: Static, fast_backend: Fast) -> None:
    def flaky(request: Request) -> Reply:
        return Reply(503 if backend.count == 1 else 200)

    backend = fast_backend("flaky", flaky)
    client = door.client(static({"payments": [backend.address]}, retries=1))
    response = client.post("/", content=b"again and again")
    assert response.status_code == 200
    assert [request.body for request in backend.requests] == [b"again and again"] * 2
    assert response.extensions["meshlib"].attempts == 2


def test_a_stream_not_begun_may_try_another_endpoint(
    door: Door, static: Static, fast_backend: Fast, free_port: Callable[[], int]
) -> None:
    backend = fast_backend()
    mesh = static({"payments": [f"127.0.0.1:{free_port()}", backend.address]}, retries=1)
    client = door.client(mesh)
    for _ in range(4):
        assert client.post("/", content=door.body([b"not ", b"touched"])).json()["body"] == "not touched"
    assert mesh.stats()["cluster.payments.upstream_rq_retry"] > 0

"""Bodies by content: encodings, character sets, responses that have none, uploads of forms and files, large headers."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from e2e.http_client.conftest import still_held
from e2e.http_client.doors import Door
from e2e.wire.raw_server import Peer, RawServer
from meshlib import Mesh
from parts.fast_backend import FastBackend, Reply

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
Raw = Callable[..., RawServer]
TEXT = "Straße " * 500


def deflated(data: bytes) -> bytes:
    raw = zlib.compressobj(wbits=-15)
    return raw.compress(data) + raw.flush()


ENCODINGS = {"gzip": gzip.compress, "deflate": deflated, "identity": lambda data: data}
CHARSETS = ["utf-8", "latin-1", "utf-16"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_content_is_decoded(door: Door, static: Static, fast_backend: Fast, encoding: str) -> None:
    packed = ENCODINGS[encoding](TEXT.encode())
    backend = fast_backend("b", Reply(200, packed, (("content-encoding", encoding),)))
    client = door.client(static({"payments": [backend.address]}))
    assert client.get("/").text == TEXT
    assert b"".join(client.chunks(client.open("GET", "/"), "raw")) == packed


def test_brotli_is_decoded_where_it_is_installed(door: Door, static: Static, fast_backend: Fast) -> None:
    brotli = pytest.importorskip("brotli")
    backend = fast_backend("b", Reply(200, brotli.compress(TEXT.encode()), (("content-encoding", "br"),)))
    assert door.client(static({"payments": [backend.address]})).get("/").text == TEXT


def test_a_broken_encoding_is_httpxs_decoding_error(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(200, b"this is no gzip", (("content-encoding", "gzip"),)))
    mesh = static({"payments": [backend.address]})
    with pytest.raises(door.error("DecodingError")):
        door.client(mesh).get("/")
    assert still_held(mesh, connections=False) == {}


@pytest.mark.parametrize("charset", CHARSETS)
def test_text_follows_the_charset(door: Door, static: Static, fast_backend: Fast, charset: str) -> None:
    content = (("content-type", f"text/plain; charset={charset}"),)
    backend = fast_backend("b", Reply(200, TEXT.encode(charset), content))
    assert door.client(static({"payments": [backend.address]})).get("/").text == TEXT


def test_json_both_ways(door: Door, static: Static, fast_backend: Fast) -> None:
    value = {"amount": 12.5, "to": "Łódź", "items": [1, None, True]}
    backend = fast_backend("echo", lambda request: Reply(200, request.body))
    response = door.client(static({"payments": [backend.address]})).post("/", json=value)
    assert response.json() == value
    assert backend.requests[0].header("content-type") == "application/json"


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(door: Door, static: Static, raw: Raw, status: int) -> None:
    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(b"HTTP/1.1 %d X\r\nContent-Length: 10\r\n\r\n" % status)

    server = raw(script)
    client = door.client(static({"payments": [f"127.0.0.1:{server.port}"]}))
    for _ in range(2):
        response = client.get("/")
        assert (response.status_code, response.content) == (status, b"")
    assert server.connections == 1


def test_head_has_headers_only(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(200, b"x" * 1000))
    client = door.client(static({"payments": [backend.address]}))
    response = client.request("HEAD", "/")
    assert (response.headers["content-length"], response.content) == ("1000", b"")
    assert client.get("/").content == b"x" * 1000
    assert backend.connections_made == 1


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_any_method_with_or_without_a_body(door: Door, static: Static, fast_backend: Fast, method: str) -> None:
    client = door.client(static({"payments": [fast_backend().address]}))
    assert client.request(method, "/").json()["method"] == method
    assert client.request(method, "/", content=b"with one").json()["body"] == "with one"


def test_informational_responses_are_passed_over(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    response = door.client(static({"payments": [f"127.0.0.1:{raw(script).port}"]})).get("/")
    assert (response.status_code, response.text) == (200, "ok")


def test_a_body_that_ends_with_the_connection(door: Door, static: Static, raw: Raw) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

    response = door.client(static({"payments": [f"127.0.0.1:{raw(script).port}"]})).get("/")
    assert (response.http_version, response.text) == ("HTTP/1.0", "until the end")


def test_a_form(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    door.client(static({"payments": [backend.address]})).post("/", data={"a": "1 2", "b": ["x", "y"]})
    sent = backend.requests[0]
    assert (sent.header("content-type"), sent.body) == ("application/x-www-form-urlencoded", b"a=1+2&b=x&b=y")


def test_a_multipart_upload(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    content = bytes(range(256)) * 1024
    files: Any = {"file": ("data.bin", io.BytesIO(content), "application/octet-stream")}
    door.client(static({"payments": [backend.address]})).post("/", files=files, data={"note": "Grüße"})
    sent = backend.requests[0]
    assert sent.header("content-type", "").startswith("multipart/form-data; boundary=")
    assert sent.header("content-length") == str(len(sent.body))
    assert content in sent.body
    assert "Grüße".encode() in sent.body


def test_large_headers_both_ways(door: Door, static: Static, fast_backend: Fast) -> None:
    long = "v" * 16_000
    backend = fast_backend("b", lambda request: Reply(200, b"", (("x-long", request.header("x-long", "")),)))
    response = door.client(static({"payments": [backend.address]})).get("/", headers={"x-long": long})
    assert response.headers["x-long"] == long


def test_many_headers(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    headers = {f"x-h{i}": str(i) for i in range(90)}
    echoed = dict(door.client(static({"payments": [backend.address]})).get("/", headers=headers).json()["headers"])
    assert headers.items() <= echoed.items()


def test_an_empty_body_says_so(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    client = door.client(static({"payments": [backend.address]}))
    client.post("/")
    client.get("/")
    assert [request.header("content-length") for request in backend.requests] == ["0", None]


def test_a_large_json_answer(door: Door, static: Static, fast_backend: Fast) -> None:
    value = [{"id": number, "name": "n" * 50} for number in range(20_000)]
    backend = fast_backend("b", Reply(200, json.dumps(value).encode()))
    assert door.client(static({"payments": [backend.address]})).get("/").json() == value

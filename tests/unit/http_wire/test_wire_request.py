"""Requests as bytes, and the ones that must not become bytes."""

from collections.abc import AsyncIterator

import pytest

from meshlib.http.wire.request import encode, whole_body
from meshlib.http.wire.types import FailureKind, WireError, WireRequest

HOST = (b"Host", b"payments")


async def pieces() -> AsyncIterator[bytes]:
    yield b"x"


def test_a_request_is_written_as_given() -> None:
    encoded = encode(WireRequest(b"GET", b"/a?b=%20", [HOST, (b"X-Two", b"1"), (b"x-two", b"")]))
    assert encoded.head == b"GET /a?b=%20 HTTP/1.1\r\nHost: payments\r\nX-Two: 1\r\nx-two: \r\n\r\n"
    assert (encoded.length, encoded.chunked, encoded.close, encoded.replayable) == (None, False, False, True)


def test_bodies_are_framed_by_their_header() -> None:
    chunked = encode(WireRequest(b"POST", b"/", [HOST, (b"Transfer-Encoding", b"chunked")], b"hello"))
    assert whole_body(chunked, b"hello") == b"5\r\nhello\r\n0\r\n\r\n"
    assert whole_body(chunked, b"") == whole_body(chunked, None) == b"0\r\n\r\n"
    assert chunked.frame(b"") == b"", "an empty chunk would end the body"
    counted = encode(WireRequest(b"POST", b"/", [HOST, (b"content-length", b"5")], b"hello"))
    assert whole_body(counted, b"hello") == b"hello"
    assert counted.length == 5


@pytest.mark.parametrize(
    "method, body, replayable",
    [
        (b"GET", None, True),
        (b"PUT", b"x", True),
        (b"DELETE", None, True),
        (b"POST", None, False),
        (b"PATCH", b"x", False),
        (b"PUT", iter([b"x"]), False),
    ],
)
def test_only_idempotent_requests_with_their_body_at_hand_are_replayable(
    method: bytes, body: bytes | None, replayable: bool
) -> None:
    headers = [HOST] if body is None else [HOST, (b"Content-Length", b"1")]
    assert encode(WireRequest(method, b"/", headers, body)).replayable is replayable


@pytest.mark.parametrize("value, close", [(b"close", True), (b"keep-alive, Close", True), (b"keep-alive", False)])
def test_connection_close_is_noticed(value: bytes, close: bool) -> None:
    assert encode(WireRequest(b"GET", b"/", [HOST, (b"connection", value)])).close is close


@pytest.mark.parametrize(
    "request_",
    [
        WireRequest(b"GET", b"/", [HOST, (b"A", b"b\r\nEvil: 1")]),
        WireRequest(b"GET", b"/", [HOST, (b"A", b"b\nEvil: 1")]),
        WireRequest(b"GET", b"/", [HOST, (b"A", b"b\r")]),
        WireRequest(b"GET", b"/", [HOST, (b"A", b"\0")]),
        WireRequest(b"GET", b"/", [HOST, (b"A b", b"c")]),
        WireRequest(b"GET", b"/", [HOST, (b"A:", b"c")]),
        WireRequest(b"GET", b"/", [HOST, (b"", b"c")]),
        WireRequest(b"GET", b"/ HTTP/1.1\r\nEvil: 1", [HOST]),
        WireRequest(b"GET", b"/a b", [HOST]),
        WireRequest(b"GET", b"", [HOST]),
        WireRequest(b"GE T", b"/", [HOST]),
        WireRequest(b"", b"/", [HOST]),
        WireRequest(b"CONNECT", b"a:1", [HOST]),
        WireRequest(b"GET", b"/", []),
        WireRequest(b"GET", b"/", [HOST, HOST]),
        WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")], b"x"),
        WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"1"), (b"content-length", b"1")], b"x"),
        WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"+1")], b"x"),
        WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"2")], b"x"),
        WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"0")], b"x"),
        WireRequest(b"POST", b"/", [HOST, (b"Content-Length", b"1")]),
        WireRequest(b"POST", b"/", [HOST], b"x"),
        WireRequest(b"POST", b"/", [HOST], iter([b"x"])),
        WireRequest(b"POST", b"/", [HOST], pieces()),
        WireRequest(b"POST", b"/", [HOST, (b"Transfer-Encoding", b"gzip, chunked")], b"x"),
    ],
    ids=lambda request: repr(request.headers)[:60],
)
def test_what_a_server_could_read_in_two_ways_is_never_sent(request_: WireRequest) -> None:
    with pytest.raises(WireError) as caught:
        encode(request_)
    assert caught.value.kind is FailureKind.INVALID_REQUEST
    assert not caught.value.request_sent

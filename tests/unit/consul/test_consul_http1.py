"""The HTTP/1.1 reader towards an agent: every shape of an answer, and any bytes at all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.sources.consul.http1 import Connection, ProtocolError, Response


class Transport:
    """Where nothing goes: what is written is kept."""

    def __init__(self) -> None:
        self.written = b""
        self.transport = self

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.written = b""


async def read(*parts: bytes, closed: bool = True) -> tuple[Response, bool]:
    """The response these bytes make, and whether its connection can be used again."""
    reader, writer = asyncio.StreamReader(limit=1024), Transport()
    for part in parts:
        reader.feed_data(part)
    if closed:
        reader.feed_eof()
    made: Any = Connection(reader, writer, lambda: None)  # type: ignore[arg-type]
    response = await made.get("/v1/x?y=1", {"Host": "h"}, 0.5, 0.5)
    assert writer.written == b"GET /v1/x?y=1 HTTP/1.1\r\nHost: h\r\n\r\n"
    return response, made.reusable


@pytest.mark.parametrize(
    "raw, body, reusable",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"[]", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]", b"[]", False),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\n[\r\n1\r\n]\r\n0\r\nT: 1\r\n\r\n", b"[]", True),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    ],
)
async def test_the_shapes_of_an_answer(raw: bytes, body: bytes, reusable: bool) -> None:
    response, again = await read(raw)
    assert (response.status, response.body, again) == (200, body, reusable)


@pytest.mark.parametrize(
    "raw, error",
    [
        (b"", ConnectionResetError),
        (b"HTTP/1.1 200 OK\r\nContent-Le", ConnectionResetError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[]", ConnectionResetError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"a" * 5000, ProtocolError),
    ],
)
async def test_what_is_no_answer(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await read(raw)


async def test_an_answer_that_does_not_end_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        await read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[]", closed=False)


@given(
    st.lists(st.sampled_from([b"HTTP/1.1 200 OK", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"3", b":", b"\x00\xff"]))
)
def test_any_bytes_are_an_answer_or_one_of_three_errors(parts: list[bytes]) -> None:
    with contextlib.suppress(OSError, ProtocolError, TimeoutError):
        asyncio.run(read(b"".join(parts)))

"""Which engine reads HTTP/1.1 responses: microseconds for one response, best of five runs.

    python -m benchmarks --micro parsers

The wire's own reader stands on httptools and must stay near it; what it adds to a small response is the second look
at the framing headers and its own state. The regular expression is the strictest reader we could write without a C
parser; h11 is the well-kept pure Python engine under httpx's pool.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import h11
import httptools

from benchmarks.worker import run
from meshlib.http.wire.reader import ReaderLimits, ResponseReader

HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 06:26:34 GMT\r\nserver: uvicorn\r\n%b"
    b"content-type: application/json\r\nx-request-id: 0123456789abcdef\r\n\r\n"
)
PIECE = 64 * 1024
Read = Callable[[list[bytes]], int]  # the size of the body


def pieces_of(data: bytes) -> list[bytes]:
    return [data[at : at + PIECE] for at in range(0, len(data), PIECE)]


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


RESPONSES = {
    "small": pieces_of(HEAD % b"content-length: 13\r\n" + b'{"ok": "yes"}'),
    "1 MB, length": pieces_of(HEAD % b"content-length: 1000000\r\n" + bytes(1_000_000)),
    "1 MB, 16 KB chunks": pieces_of(HEAD % b"transfer-encoding: chunked\r\n" + chunked(bytes(1_000_000), 16_384)),
    "64 KB, 64 B chunks": pieces_of(HEAD % b"transfer-encoding: chunked\r\n" + chunked(bytes(64_000), 64)),
}


def whole(complete: bool) -> None:
    """A reader that did not finish was not measured."""
    if not complete:
        raise ValueError("the response is incomplete")


class Collect:
    """The least a user of httptools does: keep headers and body."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """A response begins."""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        """A piece of body."""
        self.body.append(data)

    def on_message_complete(self) -> None:
        """The response ended."""
        self.done = True


def by_httptools() -> Read:
    collect = Collect()

    def read(pieces: list[bytes]) -> int:
        for piece in pieces:
            collect.parser.feed_data(piece)
        whole(collect.done)
        return sum(map(len, collect.body))

    return read


def by_wire() -> Read:
    reader = ResponseReader(ReaderLimits())

    def read(pieces: list[bytes]) -> int:
        reader.begin(without_body=False)
        for piece in pieces:
            reader.feed(piece)
        whole(reader.complete)
        return sum(map(len, iter(reader.body.pop, b"")))

    return read


STATUS = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9][0-9])(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\r\n")
FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[^\x00-\x20\x7f]+(?:[ \t]+[^\x00-\x20\x7f]+)*)?)[ \t]*\r\n"
)
SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\r\n]*)?\r\n")


def by_regex() -> Read:
    def read(pieces: list[bytes]) -> int:
        first, *rest = pieces
        end = first.index(b"\r\n\r\n") + 4
        status = STATUS.match(first)
        headers = {name.lower(): value for name, value in FIELD.findall(first, status.end() if status else 0, end - 2)}
        if b"content-length" in headers:
            size = len(first) - end + sum(map(len, rest))
            whole(size == int(headers[b"content-length"]))
            return size
        return _dechunk(b"".join([first[end:], *rest]))

    return read


def _dechunk(data: bytes) -> int:
    parts, at = [], 0
    while True:
        match = SIZE.match(data, at)
        if match is None:
            raise ValueError("not a chunk")
        size = int(match[1], 16)
        if not size:
            return sum(map(len, parts))
        at = match.end() + size + 2
        parts.append(data[match.end() : at - 2])


def by_h11() -> Read:
    conn = h11.Connection(h11.CLIENT)
    asked = h11.Request(method="GET", target="/", headers=[("host", "a")])

    def read(pieces: list[bytes]) -> int:
        conn.send(asked)
        conn.send(h11.EndOfMessage())
        body = []
        for piece in pieces:
            conn.receive_data(piece)
            while (event := conn.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Data):
                    body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    conn.start_next_cycle()
                    return sum(map(len, body))
        raise AssertionError("incomplete")

    return read


def microseconds(read: Read, pieces: list[bytes], quick: bool) -> float:
    """Best of five runs of at least 20 ms."""
    count = 1
    while _run(read, pieces, count) < (0.002 if quick else 0.02):
        count *= 2
    return min(_run(read, pieces, count) for _ in range(5)) / count * 1e6


def _run(read: Read, pieces: list[bytes], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        read(pieces)
    return time.perf_counter() - began


ENGINES = {"httptools": by_httptools, "the wire's reader": by_wire, "regex": by_regex, "h11": by_h11}


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Microseconds by response and engine."""
    return {
        name: {engine: microseconds(make(), pieces, options["quick"]) for engine, make in ENGINES.items()}
        for name, pieces in RESPONSES.items()
    }


def main() -> None:
    if len(sys.argv) > 1:
        run(measure)
        return
    width = max(map(len, RESPONSES))
    print(" " * width, *(f"{name:>18}" for name in ENGINES))
    for name, costs in measure({"quick": False}).items():
        print(f"{name:<{width}}", *(f"{cost:>15.1f} µs" for cost in costs.values()))


if __name__ == "__main__":
    main()

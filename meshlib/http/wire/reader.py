"""Response bytes in, one response out: a sans-I/O reader shared by both pools.

llhttp (through httptools, in its strict mode: no bare LF, no folded lines, one Content-Length, never both lengths)
reads heads and chunked bodies. What it leaves open is closed here: size limits, the version, the only transfer
coding, the end of a body it cannot see (HEAD, end of stream), bytes after the response. The rest of a body with a
known length, or one ended by the close, is only counted and passed on, without a copy.

Any bytes give a response or `ReadError`; nothing else is raised.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import httptools

from meshlib.http.wire.types import Headers

JOIN_BELOW: Final = 64 * 1024
"""Pieces of a body that together are smaller than this are handed out as one: cheaper for whoever iterates."""
_VERSIONS: Final = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}
_PREFIX: Final = b"HTTP/1."
_UNTIL_CLOSE: Final = -1


class ReadError(Exception):
    """The bytes received are not the HTTP/1.1 response that was asked for."""


class _SurplusError(Exception):
    """A second response began behind the one asked for."""


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """Bounds on a response head (and on trailers); the defaults are Envoy's."""

    max_head_bytes: int = 60 * 1024
    max_headers: int = 100


class ResponseHead:
    """Status line and headers as received; names keep their case."""

    __slots__ = ("headers", "http_version", "reason", "status")

    def __init__(self, status: int, reason: bytes, http_version: bytes, headers: Headers) -> None:
        self.status = status
        self.reason = reason
        self.http_version = http_version
        self.headers = headers


class BodyBuffer:
    """Body bytes received and not yet taken. It belongs to one response and outlives the connection's next one."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.size = 0

    def push(self, data: bytes) -> None:
        """Add one piece."""
        self._pieces.append(data)
        self.size += len(data)

    def pop(self) -> bytes:
        """The next bytes, b"" when there are none now."""
        pieces = self._pieces
        if not pieces:
            return b""
        if len(pieces) == 1 or self.size > JOIN_BELOW:
            data = pieces.popleft()
            self.size -= len(data)
            return data
        data = b"".join(pieces)
        pieces.clear()
        self.size = 0
        return data

    def pop_all(self) -> bytes:
        """Everything that is there now."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        return data


class ResponseReader:
    """Reads the responses of one connection, one after the other: `begin`, then `feed` until `complete`.

    `head` is None until the final head is read (1xx heads are skipped; 101 was not asked for and is an error).
    `complete` tells that the whole response was read, `reusable` that another may follow on the same connection.
    """

    __slots__ = (
        "_counted", "_headers", "_limits", "_parser", "_reason", "_unframed", "_without_body",
        "body", "complete", "head", "reusable", "started", "trailers",
    )  # fmt: skip

    def __init__(self, limits: ReaderLimits) -> None:
        self._limits = limits
        self._parser: httptools.HttpResponseParser | None = None
        self.begin(without_body=False)

    def begin(self, *, without_body: bool) -> None:
        """Expect a new response; `without_body`: the request was a HEAD."""
        self.head: ResponseHead | None = None
        self.body = BodyBuffer()
        self.trailers: Headers = []
        self.started = False
        self.complete = False
        self.reusable = False
        self._without_body = without_body
        self._headers: Headers = []
        self._reason = b""
        self._counted: int | None = None  # bytes still to come past the parser, or _UNTIL_CLOSE; None: the parser reads
        self._unframed = 0  # bytes fed since the last byte of body: bounds heads, chunk extensions and trailers
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes | memoryview) -> None:
        """Take what was received (b"" changes nothing); raises ReadError."""
        if not data:
            return
        if self._counted is not None:
            self._count(bytes(data))
            return
        if self.complete:
            self._surplus(bytes(data))
            return
        if not self.started:
            if data[: len(_PREFIX)] == _PREFIX:
                self.started = True
            else:
                self._check_prefix(data)
        self._unframed += len(data)
        if self._without_body:
            self._parse_lines(bytes(data))
        else:
            self._parse(data)
        if self._unframed > self._limits.max_head_bytes and not self.complete:
            raise ReadError(f"more than {self._limits.max_head_bytes} bytes of head, chunk extension or trailer")

    def feed_eof(self) -> None:
        """The peer will send no more; raises ReadError when that cuts the response short."""
        if self._counted == _UNTIL_CLOSE:
            self._counted = None
            self.complete = True
        elif not self.complete:
            raise ReadError("the peer closed the connection in the middle of the response")
        self.reusable = False

    def discard(self) -> None:
        """Let go of the parser, which refers back to this object."""
        self._parser = None

    def _check_prefix(self, data: bytes | memoryview) -> None:
        # llhttp also reads RTSP and ICE status lines and skips blank lines before them; a response has neither.
        got = bytes(data[: len(_PREFIX)])
        if not _PREFIX.startswith(got):
            raise ReadError(f"not an HTTP/1 response: it begins with {got!r}")
        self.started = True

    def _parse_lines(self, data: bytes) -> None:
        # llhttp cannot be told of HEAD: it would go on into the body that the head announces and that never comes.
        at = 0
        while at < len(data) and not self.complete:
            end = data.find(b"\n", at) + 1 or len(data)
            self._parse(data[at:end])
            at = end
        self._surplus(data[at:])

    def _parse(self, data: bytes | memoryview) -> None:
        parser = self._parser
        if parser is None:
            raise ReadError("the connection is closed")
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not self.complete:
                reason = error.__context__ if isinstance(error.__context__, ReadError) else error
                raise ReadError(str(reason)) from error
            self.reusable = False
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise ReadError(str(error)) from error
            self.reusable = False
        if self._counted is not None or (self.complete and (self._without_body or not self.reusable)):
            self._parser = None  # it stands in the middle of a message: the next response gets a fresh one

    def _count(self, data: bytes) -> None:
        left = self._counted
        if left is None or left == _UNTIL_CLOSE:
            self.body.push(data)
            return
        if len(data) < left:
            self._counted = left - len(data)
            self.body.push(data)
            return
        self._counted = None
        self.complete = True
        if len(data) > left:
            self._surplus(data[left:])
            data = data[:left]
        self.body.push(data)

    def _surplus(self, data: bytes) -> None:
        # llhttp skips line ends between messages, so all the ways to get here do: they carry nothing.
        if data.strip(b"\r\n"):
            self.reusable = False

    # Called by the parser; what is raised here comes out of feed_data as HttpParserCallbackError.

    def on_message_begin(self) -> None:
        """A status line begins: the first, or one after a 1xx, or one nobody asked for."""
        if self.complete:
            raise _SurplusError
        self._headers = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        """A piece of the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the head, or one trailer."""
        (self._headers if self.head is None else self.trailers).append((name, value))

    def on_headers_complete(self) -> None:
        """A head is whole: skip it (1xx), or decide how its body ends."""
        parser = self._parser
        if parser is None:
            raise ReadError("the connection is closed")
        status: int = parser.get_status_code()
        version = _VERSIONS.get(parser.get_http_version())
        if version is None or status < 100:
            raise ReadError(f"version {parser.get_http_version()!r} or status {status} is not HTTP/1.1's")
        if status == 101:
            raise ReadError("101 Switching Protocols, which was not asked for")
        if len(self._headers) > self._limits.max_headers or self._unframed > self._limits.max_head_bytes:
            self._check_head_size()
        if status < 200:
            return
        self.head = ResponseHead(status, self._reason, version, self._headers)
        self._choose_framing(self.head)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._unframed = 0
        self.body.push(data)
        if self._counted is not None and self._counted > 0:
            self._counted -= len(data)

    def on_message_complete(self) -> None:
        """The parser saw the end of the message; that of a 1xx is not ours."""
        if self.head is not None and not self.complete:
            if len(self.trailers) > self._limits.max_headers:
                raise ReadError(f"more than {self._limits.max_headers} trailers")
            self._counted = None
            self.complete = True

    def _check_head_size(self) -> None:
        headers, limits = self._headers, self._limits
        if len(headers) > limits.max_headers:
            raise ReadError(f"{len(headers)} headers, more than {limits.max_headers}")
        if self._unframed > limits.max_head_bytes:  # only then can the head itself be too large
            size = sum(len(name) + len(value) + 4 for name, value in headers)
            if size > limits.max_head_bytes:
                raise ReadError(f"a head of {size} bytes, more than {limits.max_head_bytes}")

    def _choose_framing(self, head: ResponseHead) -> None:
        length, chunked, keep_alive = framing(head)
        self.reusable = keep_alive
        self._unframed = 0
        if self._without_body or head.status in (204, 304):
            self.complete = self._without_body  # llhttp itself ends 204 and 304
        elif chunked:
            return
        elif length is None:
            self.reusable = False
            self._counted = _UNTIL_CLOSE
        else:
            self._counted = length


def framing(head: ResponseHead) -> tuple[int | None, bool, bool]:
    """(Content-Length, chunked, keep-alive) of a head, strictly (RFC 9112 sections 6.3, 9.3); raises ReadError."""
    length: int | None = None
    chunked = False
    keep_alive = head.http_version == b"HTTP/1.1"
    for name, value in head.headers:
        lower = name.lower()
        if lower == b"content-length":
            digits = value.strip(b" \t")
            if length is not None or not digits.isdigit():
                raise ReadError(f"bad or repeated Content-Length {value!r}")
            length = int(digits)
        elif lower == b"transfer-encoding":
            if chunked or value.strip(b" \t").lower() != b"chunked" or head.http_version != b"HTTP/1.1":
                raise ReadError(f"Transfer-Encoding {value!r} is not the single coding chunked")
            chunked = True
        elif lower == b"connection":
            tokens = [token.strip() for token in value.lower().split(b",")]
            keep_alive = (keep_alive or b"keep-alive" in tokens) and b"close" not in tokens
    if chunked and length is not None:
        raise ReadError("both Content-Length and Transfer-Encoding")
    return length, chunked, keep_alive

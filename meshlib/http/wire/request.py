"""A request as bytes, refused when those bytes would not mean the same to every reader (RFC 9112 section 11.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from meshlib.http.wire.types import FailureKind, WireError, WireRequest

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"))  # RFC 9110 section 9.2.2
LAST_CHUNK = b"0\r\n\r\n"

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CACHED_NAMES = 1024  # header names come from code, not from peers, yet a cache without an end is a leak


class _Name(IntEnum):
    """What a header name means for framing."""

    ORDINARY = 0
    LENGTH = 1
    CODING = 2
    HOST = 3
    CONNECTION = 4


_FRAMING = {
    b"content-length": _Name.LENGTH,
    b"transfer-encoding": _Name.CODING,
    b"host": _Name.HOST,
    b"connection": _Name.CONNECTION,
}
_ORDINARY, _HOST = _Name.ORDINARY, _Name.HOST  # looking up a member costs more than the rest of a header does
_names: dict[bytes, _Name] = {}


@dataclass(slots=True)
class EncodedRequest:
    """The head ready to send, and how its body is delimited: by `length`, or `chunked`, or (neither) there is none."""

    head: bytes
    length: int | None
    chunked: bool
    close: bool
    replayable: bool
    """Sending it a second time is safe: nothing in the body was consumed and the method is idempotent."""

    def frame(self, data: bytes) -> bytes:
        """One piece of the body as it goes on the wire; never the empty chunk, which would end the body."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked and data else data


def encode(request: WireRequest) -> EncodedRequest:
    """Head and framing of the request; raises WireError(INVALID_REQUEST) before anything is sent."""
    headers = request.headers
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        raise invalid("a header holds a line break or a NUL")
    encoded = EncodedRequest(b"", None, False, False, False)
    hosts = 0
    for name, value in headers:
        meaning = _names.get(name)
        if meaning is _ORDINARY:
            continue
        if meaning is None:
            meaning = _meaning(name)
        if meaning is _HOST:
            hosts += 1
        else:
            _read_framing(encoded, meaning, value)
    if hosts != 1:
        raise invalid(f"{hosts} Host headers instead of one")
    if encoded.chunked and encoded.length is not None:
        raise invalid("both Content-Length and Transfer-Encoding")
    encoded.head = b"%b %b HTTP/1.1\r\n%b\r\n" % (_method(request.method), _target(request.target), lines)
    _check_body(encoded, request)
    return encoded


def whole_body(encoded: EncodedRequest, body: bytes | None) -> bytes:
    """All of a body that is at hand, framed."""
    if encoded.chunked:
        return encoded.frame(body or b"") + LAST_CHUNK
    return body or b""


def invalid(message: str, *, request_sent: bool = False) -> WireError:
    """The request's own fault."""
    return WireError(FailureKind.INVALID_REQUEST, f"the request cannot be sent: {message}", request_sent=request_sent)


def _meaning(name: bytes) -> _Name:
    if not _TOKEN.fullmatch(name):
        raise invalid(f"bad header name {name!r}")
    meaning = _FRAMING.get(name.lower(), _Name.ORDINARY)
    if len(_names) < _CACHED_NAMES:
        _names[name] = meaning
    return meaning


def _read_framing(encoded: EncodedRequest, meaning: _Name, value: bytes) -> None:
    if meaning is _Name.LENGTH:
        if encoded.length is not None or not _DIGITS.fullmatch(value):
            raise invalid(f"bad or repeated Content-Length {value!r}")
        encoded.length = int(value)
    elif meaning is _Name.CODING:
        if encoded.chunked or value.strip().lower() != b"chunked":
            raise invalid(f"Transfer-Encoding {value!r} is not the single coding chunked")
        encoded.chunked = True
    elif value != b"keep-alive":  # Connection, as httpx always sends it
        encoded.close = encoded.close or b"close" in [token.strip() for token in value.lower().split(b",")]


def _method(method: bytes) -> bytes:
    if method in IDEMPOTENT or (_TOKEN.fullmatch(method) and method != b"CONNECT"):
        return method
    raise invalid(f"method {method!r}")


def _target(target: bytes) -> bytes:
    if _TARGET.fullmatch(target):
        return target
    raise invalid(f"request target {target[:80]!r}")


def _check_body(encoded: EncodedRequest, request: WireRequest) -> None:
    body = request.body
    if body is None or isinstance(body, bytes):
        if not encoded.chunked and (encoded.length or 0) != len(body or b""):
            raise invalid(f"Content-Length {encoded.length} for a body of {len(body or b'')} bytes")
        encoded.replayable = request.method in IDEMPOTENT
    elif not encoded.chunked and encoded.length is None:
        raise invalid("a streamed body without Content-Length or Transfer-Encoding: chunked")

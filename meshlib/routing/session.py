"""The state of a sticky session as it travels: which endpoint, in which words (Envoy's stateful session extensions).

A cookie's value is the base64 of Envoy's `Cookie` message: field 1 the address, field 2 when it expires, in seconds of
the epoch. Plain base64 of an address is read too, as Envoy does, with what gRFC A55 puts behind it (`;cluster`). A
header's value is the base64 of the address.
"""

from __future__ import annotations

import binascii

from meshlib.model.protobuf_wire import LENGTH, VARINT, MalformedMessageError, fields, varint
from meshlib.model.request import RequestHead
from meshlib.model.session import SessionCookie, SessionHeader
from meshlib.routing.cookies import cookie_value
from meshlib.routing.text import as_wire

Header = tuple[bytes, bytes]


class HeaderSession:
    """A session in a header."""

    __slots__ = ("_name",)

    def __init__(self, state: SessionHeader) -> None:
        self._name = as_wire(state.name)

    def applies(self, head: RequestHead) -> bool:
        """Whether the request can be part of a session."""
        return True

    def address(self, head: RequestHead, wall: float) -> str:
        """The endpoint that the request wants; empty when it wants none. `wall` is now, in seconds of the epoch."""
        values = head.get_all(self._name)
        return _text(values[0]) if values else ""

    def header(self, address: str, wall: float) -> Header:
        """What tells the caller of its endpoint."""
        return self._name.encode("latin-1"), binascii.b2a_base64(address.encode(), newline=False)


class CookieSession:
    """A session in a cookie."""

    __slots__ = ("_name", "_path", "_state", "_suffix")

    def __init__(self, state: SessionCookie) -> None:
        self._state = state
        self._name = as_wire(state.name)
        self._path = as_wire(state.path)
        parts = [f"Max-Age={state.ttl}"] if state.ttl else []
        if state.path:
            parts.append(f"Path={state.path}")
        parts += [f"{name}={value}" if value else name for name, value in state.attributes]
        self._suffix = as_wire("; ".join(["", *parts, "HttpOnly"])).encode("latin-1")

    def applies(self, head: RequestHead) -> bool:
        """Whether the cookie's path is the request's, or above it (RFC 6265 section 5.1.4)."""
        path, asked = self._path, head.path_only
        if path in ("", "/") or asked == path:
            return True
        return asked.startswith(path) and (path.endswith("/") or asked[len(path)] == "/")

    def address(self, head: RequestHead, wall: float) -> str:
        """The endpoint that the request wants; empty when it wants none. `wall` is now, in seconds of the epoch."""
        value = cookie_value(head, self._name)
        data = _decoded(value) if value else None
        if data is None:
            return ""
        message = _message(data)
        if message is None:
            return _first(data)
        address, expires = message
        return "" if expires and expires < wall else address

    def header(self, address: str, wall: float) -> Header:
        """What tells the caller of its endpoint."""
        data = b"\x0a" + varint(len(address.encode())) + address.encode()
        if self._state.ttl:
            data += b"\x10" + varint(int(wall) + self._state.ttl)
        value = binascii.b2a_base64(data, newline=False)
        return b"set-cookie", self._name.encode("latin-1") + b'="' + value + b'"' + self._suffix


def _decoded(value: str) -> bytes | None:
    try:
        return binascii.a2b_base64(value.encode("latin-1"), strict_mode=True)
    except (binascii.Error, ValueError):
        return None


def _text(value: str) -> str:
    data = _decoded(value)
    return "" if data is None else _first(data)


def _first(data: bytes) -> str:
    return data.decode("latin-1").partition(";")[0]


def _message(data: bytes) -> tuple[str, int] | None:
    """(address, expires) of a serialized `Cookie`; None when the bytes are no such message."""
    address, expires = b"", 0
    try:
        for number, kind, content in fields(data):
            if number == 1 and kind == LENGTH and isinstance(content, bytes):
                address = content
            elif number == 2 and kind == VARINT and isinstance(content, int):
                expires = content
            else:
                return None
    except MalformedMessageError:
        return None
    return address.decode("latin-1"), expires

"""Reads the top level of a serialized protobuf message without its schema.

State-of-the-world responses hold resources whose name is only inside the body. In every xDS resource type the name is
field 1, so the transport can tell resources apart without knowing (or trusting) a decoder.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class MalformedMessageError(ValueError):
    """The bytes are no protobuf message."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise MalformedMessageError(f"bad varint at byte {at}")


def _skip(data: bytes, at: int, wire_type: int) -> tuple[bytes, int]:
    if wire_type == _VARINT:
        return b"", _varint(data, at)[1]
    if wire_type == _LENGTH:
        length, start = _varint(data, at)
    elif wire_type in {_FIXED64, _FIXED32}:
        length, start = (8 if wire_type == _FIXED64 else 4), at
    else:
        raise MalformedMessageError(f"wire type {wire_type} at byte {at}")
    if start + length > len(data):
        raise MalformedMessageError(f"field at byte {at} runs past the end")
    return data[start : start + length], start + length


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield ``(field number, content)`` of each top-level field; the content of a varint is empty.

    Raises MalformedMessageError at the first byte that is no protobuf.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        content, at = _skip(data, at, key & 7)
        yield key >> 3, content


def resource_name(body: bytes) -> str | None:
    """The resource's name (field 1, the last one wins as in protobuf), or None if there is none to read."""
    name: bytes | None = None
    try:
        for number, content in fields(body):
            if number == 1:
                name = content
        return name.decode() or None if name is not None else None
    except (MalformedMessageError, UnicodeDecodeError):
        return None

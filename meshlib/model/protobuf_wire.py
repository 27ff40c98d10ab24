"""Protobuf's wire format, for the small messages that are read or written without a schema.

Load reports, session cookies and the names of xDS resources: where a descriptor is more than the message, or must not
be trusted, or would cost a client the import of protobuf (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, "int | bytes"]
"""(field number, wire type, content): a varint's content is its number, that of all others their bytes."""

_MAX_VARINT_BYTES = 10
_SIZES = {FIXED64: 8, FIXED32: 4}


class MalformedMessageError(ValueError):
    """The bytes are no protobuf message."""


def varint(number: int) -> bytes:
    """A number that is not negative."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """A field that holds a number that is not negative; none at all for 0, as in proto3."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def message_field(number: int, data: bytes) -> bytes:
    """A field that holds a message, a text or bytes."""
    return varint(number << 3 | LENGTH) + varint(len(data)) + data


def numbers_in(data: bytes) -> dict[int, int]:
    """The numbers of a message, by field; the last of each counts."""
    return {number: value for number, kind, value in fields(data) if kind == VARINT and isinstance(value, int)}


def messages_in(data: bytes, wanted: int) -> Iterator[bytes]:
    """What a message has in a field of messages, texts or bytes."""
    for number, kind, value in fields(data):
        if number == wanted and kind == LENGTH and isinstance(value, bytes):
            yield value


def signed(value: int) -> int:
    """A varint as the signed number of 64 bits that it is."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes) -> Iterator[Field]:
    """The fields of a message's top level, in the order in which they are there.

    Raises MalformedMessageError at the first byte that is no protobuf.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        size = _SIZES.get(kind, 0)
        if kind == LENGTH:
            size, at = _varint(data, at)
        elif not size:
            raise MalformedMessageError(f"wire type {kind} at byte {at}")
        if at + size > len(data):
            raise MalformedMessageError(f"the field at byte {at} runs past the end")
        yield number, kind, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, position behind it)."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise MalformedMessageError(f"bad varint at byte {at}")

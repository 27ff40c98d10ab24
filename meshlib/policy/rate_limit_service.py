"""What is said to a rate limit service and what it answers (`envoy.service.ratelimit.v3`), on the wire.

Written and read without a schema, so that a client needs no protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from meshlib.model.metadata import EMPTY_STRUCT, Struct, Value
from meshlib.model.protobuf_wire import (
    FIXED64,
    LENGTH,
    VARINT,
    MalformedMessageError,
    fields,
    message_field,
    messages_in,
    number_field,
    numbers_in,
    signed,
)
from meshlib.model.rate_limits import UNIT_SECONDS, Descriptor, DescriptorLimit

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
OK, OVER_LIMIT = 1, 2
UNITS = ("UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK")
"""The numbers of the units, in what is asked and in what is answered."""
_DEEPEST = 64
"""Levels of a `Struct` that are read; protobuf's own readers stop at 100."""

Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class DescriptorStatus:
    """What the service says of one descriptor. `requests_per_unit` None: it has no limit for it. `window` is the
    limit's in seconds (0: unknown), `reset` seconds until it begins anew.
    """

    code: int = 0
    requests_per_unit: int | None = None
    window: int = 0
    name: str = ""
    remaining: int = 0
    reset: int = 0


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """The service's answer: `code` is OK, OVER_LIMIT or 0 (unknown, which lets pass, as in Envoy)."""

    code: int = 0
    statuses: tuple[DescriptorStatus, ...] = ()
    response_headers: Pairs = ()
    request_headers: Pairs = ()
    raw_body: bytes = b""
    metadata: Struct = field(default=EMPTY_STRUCT)


# ------------------------------------------------------------------------------------------------------------ asking


def request(domain: str, descriptors: Sequence[Descriptor]) -> bytes:
    """A `RateLimitRequest`."""
    return _text(1, domain) + b"".join(message_field(2, _descriptor(each)) for each in descriptors)


def _descriptor(descriptor: Descriptor) -> bytes:
    found = [message_field(1, _text(1, key) + _text(2, value)) for key, value in descriptor.entries]
    if descriptor.limit is not None:
        found.append(message_field(2, _limit(descriptor.limit)))
    if descriptor.hits_addend is not None:
        found.append(message_field(3, number_field(1, abs(descriptor.hits_addend))))
        found.append(number_field(4, int(descriptor.hits_addend < 0)))
    return b"".join(found)


def _limit(limit: DescriptorLimit) -> bytes:
    return number_field(1, limit.requests_per_unit) + number_field(2, UNITS.index(limit.unit))


def _text(number: int, text: str) -> bytes:
    return message_field(number, as_utf8(text)) if text else b""


def as_utf8(text: str) -> bytes:
    """A header's value (each character a byte, as on the wire) as protobuf's `string` must be. What is no UTF-8 on the
    wire goes with replacement characters.
    """
    if text.isascii():
        return text.encode("ascii")
    try:
        return text.encode("latin-1").decode("utf-8", "replace").encode("utf-8")
    except UnicodeEncodeError:  # of the configuration, not of the wire
        return text.encode("utf-8", "replace")


# ----------------------------------------------------------------------------------------------------------- answers


def answer(data: bytes) -> ServiceAnswer:
    """A `RateLimitResponse`. Raises MalformedMessageError (a ValueError) for bytes that are none."""
    code, metadata, body = 0, EMPTY_STRUCT, b""
    statuses: list[DescriptorStatus] = []
    added: dict[int, list[tuple[bytes, bytes]]] = {3: [], 4: []}
    for number, kind, value in fields(data):
        if number == 1 and kind == VARINT and isinstance(value, int):
            code = value
        elif kind == LENGTH and isinstance(value, bytes):
            if number == 2:
                statuses.append(_status(value))
            elif number in added:
                added[number].append(_header(value))
            elif number == 5:
                body = value
            elif number == 6:
                metadata = _struct(value, 0)
    return ServiceAnswer(code, tuple(statuses), tuple(added[3]), tuple(added[4]), body, metadata)


def _status(data: bytes) -> DescriptorStatus:
    numbers = numbers_in(data)
    limit = next(messages_in(data, 2), None)
    reset = signed(numbers_in(next(messages_in(data, 4), b"")).get(1, 0))
    code, remaining = numbers.get(1, 0), numbers.get(3, 0)
    if limit is None:
        return DescriptorStatus(code, None, 0, "", remaining, reset)
    said = numbers_in(limit)
    unit = said.get(2, 0)
    window = UNIT_SECONDS.get(UNITS[unit], 0) if unit < len(UNITS) else 0
    name = b"".join(list(messages_in(limit, 3))[-1:]).decode("utf-8", "replace")
    return DescriptorStatus(code, said.get(1, 0), window, name, remaining, reset)


def _header(data: bytes) -> tuple[bytes, bytes]:
    """A `HeaderValue`: its name in lower case, its value or its raw value."""
    key, value, raw = (b"".join(list(messages_in(data, number))[-1:]) for number in (1, 2, 3))
    return key.lower(), value or raw


def _struct(data: bytes, depth: int) -> Struct:
    if depth > _DEEPEST:
        raise MalformedMessageError("the metadata are nested too deeply")
    found: dict[str, Value] = {}
    for entry in messages_in(data, 1):
        key = b"".join(list(messages_in(entry, 1))[-1:]).decode("utf-8", "replace")
        found[key] = _value(b"".join(list(messages_in(entry, 2))[-1:]), depth)
    return Struct(tuple(sorted(found.items()))) if found else EMPTY_STRUCT


def _value(data: bytes, depth: int) -> Value:
    result: Value = None
    for number, kind, value in fields(data):
        if number == 2 and kind == FIXED64 and isinstance(value, bytes):
            result = float(struct.unpack("<d", value)[0])
        elif number == 4 and kind == VARINT:
            result = bool(value)
        elif kind == LENGTH and isinstance(value, bytes):
            if number == 3:
                result = value.decode("utf-8", "replace")
            elif number == 5:
                result = _struct(value, depth + 1)
            elif number == 6:
                result = tuple(_value(item, depth + 1) for item in messages_in(value, 1)) if depth < _DEEPEST else ()
    return result

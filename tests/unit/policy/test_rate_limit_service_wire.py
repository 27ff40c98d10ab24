"""What is said to a rate limit service, and what it answers, against protobuf's own reader and writer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.metadata import Struct
from meshlib.model.protobuf_wire import MalformedMessageError, fields
from meshlib.model.rate_limits import Descriptor, DescriptorLimit
from meshlib.policy.rate_limit_service import DescriptorStatus, ServiceAnswer, answer, request

UNITS = ("SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR")
TEXT = st.text(st.characters(max_codepoint=255), max_size=12)
LIMITS = st.builds(DescriptorLimit, st.integers(0, 2**32 - 1), st.sampled_from(UNITS))
DESCRIPTORS = st.builds(
    Descriptor,
    st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    st.none() | LIMITS,
    st.none() | st.integers(0, 10**9),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
STATUSES = st.builds(
    rls_pb2.RateLimitResponse.DescriptorStatus,
    code=st.integers(0, 2),
    current_limit=st.none()
    | st.builds(
        rls_pb2.RateLimitResponse.RateLimit,
        name=st.text(max_size=5),
        requests_per_unit=st.integers(0, 2**32 - 1),
        unit=st.integers(0, 7),
    ),
    limit_remaining=st.integers(0, 2**32 - 1),
)
SECONDS = {0: 0, 1: 1, 2: 60, 3: 3600, 4: 86400, 5: 2592000, 6: 31536000, 7: 604800}


def wire(text: str) -> str:
    """A header's value as protobuf's text: its bytes are UTF-8, or nearly."""
    return text.encode("latin-1").decode("utf-8", "replace")


@given(domain=TEXT, descriptors=st.lists(DESCRIPTORS, max_size=3))
def test_what_is_asked(domain: str, descriptors: Sequence[Descriptor]) -> None:
    message = rls_pb2.RateLimitRequest.FromString(request(domain, descriptors))
    assert message.domain == wire(domain)
    assert len(message.descriptors) == len(descriptors)
    for found, asked in zip(message.descriptors, descriptors, strict=True):
        assert [(each.key, each.value) for each in found.entries] == [(wire(k), wire(v)) for k, v in asked.entries]
        assert (found.hits_addend.value if found.HasField("hits_addend") else None) == asked.hits_addend
        assert found.HasField("limit") is (asked.limit is not None)
        if asked.limit is not None:
            assert found.limit.requests_per_unit == asked.limit.requests_per_unit
            assert UNITS[found.limit.unit - 1] == asked.limit.unit


def test_hits_that_are_given_back_say_so() -> None:
    """`is_negative_hits`, field 4, which xds-protos does not know yet."""
    data = request("d", [Descriptor((("k", "v"),), hits_addend=-3)])
    descriptor = next(value for number, _, value in fields(data) if number == 2)
    assert isinstance(descriptor, bytes)
    assert [(number, value) for number, _, value in fields(descriptor)][1:] == [(3, b"\x08\x03"), (4, 1)]


@given(
    code=st.integers(0, 2),
    statuses=st.lists(STATUSES, max_size=3),
    added=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=2),
    body=st.binary(max_size=5),
    metadata=st.none() | st.dictionaries(st.text(max_size=5), JSON, max_size=3),
)
def test_what_is_answered(code: int, statuses: list, added: list, body: bytes, metadata: dict | None) -> None:  # type: ignore[type-arg]
    message = rls_pb2.RateLimitResponse(overall_code=code, statuses=statuses, raw_body=body)
    for key, value in added:
        message.request_headers_to_add.add(key=key, value=value)
        message.response_headers_to_add.add(key=key, value=value)
    if metadata is not None:
        json_format.ParseDict(metadata, message.dynamic_metadata)
    found = answer(message.SerializeToString())
    pairs = tuple((key.encode().lower(), value.encode()) for key, value in added)
    assert (found.code, found.raw_body, found.request_headers, found.response_headers) == (code, body, pairs, pairs)
    assert found.metadata == Struct.of(metadata or {})
    for read, said in zip(found.statuses, statuses, strict=True):
        assert (read.code, read.remaining) == (said.code, said.limit_remaining)
        has = said.HasField("current_limit")
        assert read.requests_per_unit == (said.current_limit.requests_per_unit if has else None)
        assert read.window == (SECONDS[said.current_limit.unit] if has else 0)
        assert read.name == said.current_limit.name


def test_the_time_until_a_window_ends() -> None:
    message = rls_pb2.RateLimitResponse()
    message.statuses.add(code=1).duration_until_reset.seconds = 37
    message.statuses.add(code=1).duration_until_reset.seconds = -1
    assert answer(message.SerializeToString()).statuses == (
        DescriptorStatus(1, reset=37),
        DescriptorStatus(1, reset=-1),
    )


@given(data=st.binary(max_size=64))
def test_any_bytes_are_an_answer_or_malformed(data: bytes) -> None:
    """Whatever protobuf reads is read here too; what it refuses may be read by its parts, but never raises else."""
    try:
        found: ServiceAnswer | None = answer(data)
    except MalformedMessageError:
        found = None
    try:
        message = rls_pb2.RateLimitResponse.FromString(data)
    except DecodeError:
        return
    if found is None:  # groups, which protobuf 3 has no more, are malformed here
        assert any(byte & 7 in (3, 4) for byte in data)
    else:
        assert len(found.statuses) == len(message.statuses)


def test_metadata_that_are_nested_without_end_are_malformed() -> None:
    value = b""
    for _ in range(200):
        value = _nested(1, b"\x0a\x01k" + _nested(2, _nested(5, value)))
    with pytest.raises(MalformedMessageError):
        answer(_nested(6, value))


def _nested(number: int, data: bytes) -> bytes:
    size, length = len(data), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((number << 3 | 2,)) + bytes(length) + bytes((size,)) + data

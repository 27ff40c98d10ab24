"""The wire format, held against protobuf's own writer and reader."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf import descriptor_pb2, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.protobuf_wire import FIXED32, FIXED64, LENGTH, VARINT, MalformedMessageError, fields, varint


@given(st.integers(1, 2**64 - 1))
def test_numbers_are_protobufs(number: int) -> None:
    assert wrappers_pb2.UInt64Value(value=number).SerializeToString() == b"\x08" + varint(number)
    assert list(fields(b"\x08" + varint(number))) == [(1, VARINT, number)]


@given(st.text(min_size=1), st.integers(1, 2**31 - 1))
def test_fields_are_protobufs(name: str, number: int) -> None:
    data = descriptor_pb2.FieldDescriptorProto(name=name, number=number).SerializeToString()
    assert list(fields(data)) == [(1, LENGTH, name.encode()), (3, VARINT, number)]


def test_fixed_sizes() -> None:
    double = wrappers_pb2.DoubleValue(value=1.0).SerializeToString()
    single = wrappers_pb2.FloatValue(value=1.0).SerializeToString()
    assert list(fields(double + single)) == [(1, FIXED64, double[1:]), (1, FIXED32, single[1:])]


@given(st.binary(max_size=64))
def test_any_bytes_have_fields_or_are_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedMessageError):
        assert all(number >= 0 for number, _, _ in fields(data))


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x02a", b"\x09\x00", b"\x0b", b"\x0f", b"\x08" + b"\xff" * 10])
def test_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        list(fields(data))

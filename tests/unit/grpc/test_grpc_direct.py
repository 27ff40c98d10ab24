"""The direct way is taken where grpcio is as expected, and only there."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from meshlib.grpc.direct import DirectCall


@pytest.fixture
def call() -> Any:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        yield channel.unary_unary("/a/b", request_serializer=str.encode)


def test_this_grpcio_is_as_expected(call: Any) -> None:
    direct = DirectCall.of(call)
    assert direct is not None, "blocking calls take the public way, which is slower"
    assert direct.serialized("text") == b"text"
    assert direct.serialized(1) is None


def test_calls_that_somebody_observes_take_the_public_way(call: Any) -> None:
    call._context = object()
    assert DirectCall.of(call) is None


def test_what_is_not_grpcios_own_takes_the_public_way(call: Any) -> None:
    assert DirectCall.of(object()) is None
    del call._method
    assert DirectCall.of(call) is None


def test_without_a_serializer_only_bytes_go() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        direct = DirectCall.of(channel.unary_unary("/a/b"))
        assert direct is not None
        assert (direct.serialized(b"x"), direct.serialized("x")) == (b"x", None)

"""The direct way is taken where grpcio is as expected, and only there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from meshlib.grpc.aio_direct import DirectMethod
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


@pytest.fixture
async def aio_call() -> AsyncIterator[Any]:
    async with aio.insecure_channel("127.0.0.1:1") as channel:
        yield channel.unary_unary("/a/b", request_serializer=str.encode)


async def test_this_grpc_aio_is_as_expected(aio_call: Any) -> None:
    direct = DirectMethod.of(aio_call)
    assert direct is not None, "asyncio calls take the public way, which is slower"
    call = direct.begin("text", None, None)
    assert call is not None
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert call.headers() == []
    assert "failed to connect" in await call.details()


async def test_a_direct_call_is_cancelled_before_and_while_it_is_awaited(aio_call: Any) -> None:
    direct = DirectMethod.of(aio_call)
    assert direct is not None
    before, under_way = direct.begin("text", None, None), direct.begin("text", None, None)
    assert before is not None
    assert under_way is not None
    assert before.cancel()
    assert not before.cancel()
    with pytest.raises(asyncio.CancelledError):
        await before
    asyncio.get_running_loop().call_soon(under_way.cancel)
    with pytest.raises(asyncio.CancelledError):
        await under_way


async def test_a_direct_call_that_nobody_awaits_says_when_it_has_ended(aio_call: Any) -> None:
    direct = DirectMethod.of(aio_call)
    assert direct is not None
    unattended, attended = direct.begin("text", None, None), direct.begin("text", None, None)
    assert unattended is not None
    assert attended is not None
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told: list[Any] = []
    unattended.add_done_callback(lambda _: ended.set_result(None))
    attended.add_done_callback(told.append)
    with pytest.raises(aio.AioRpcError):
        await attended
    await ended
    with pytest.raises(aio.AioRpcError):
        await unattended
    assert told == []


async def test_what_grpc_aio_has_to_say_itself_takes_the_public_way(aio_call: Any) -> None:
    direct = DirectMethod.of(aio_call)
    assert direct is not None
    assert direct.begin(1, None, None) is None
    assert direct.begin("text", None, ((1, 2),)) is None
    assert DirectMethod.of(object()) is None
    aio_call._interceptors = [object()]
    assert DirectMethod.of(aio_call) is None

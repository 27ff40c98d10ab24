"""The test service does what its script says: what the other tests of this folder stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.xds import eventually


@pytest.fixture(params=["aio", "sync"])
def one(request: pytest.FixtureRequest, grpc_backend: Callable[..., GrpcBackend]) -> GrpcBackend:
    return grpc_backend("one", kind=request.param)


@pytest.fixture
def echo(one: GrpcBackend, grpc_stubs: Stubs) -> Iterator[Any]:
    with grpc.insecure_channel(one.address) as channel:
        yield grpc_stubs.echo(channel)


def test_a_backend_follows_its_script(one: GrpcBackend, echo: Any, grpc_stubs: Stubs) -> None:
    ask = grpc_stubs.ask
    answer, call = echo.Unary.with_call(ask("hi", size=3), metadata=[("x-a", "b")], timeout=9)
    assert (answer.backend, answer.text, answer.payload, answer.arrival) == ("one", "hi", b"xxx", 1)
    assert ("x-a", b"b") in [(pair.name, pair.value) for pair in answer.metadata]
    assert 5 < answer.remaining <= 9
    assert ("x-backend", "one") in call.initial_metadata()
    assert echo.Unary(ask()).remaining == -1
    assert [one.number for one in echo.ServerStream(ask(answers=3))] == [1, 2, 3]
    assert echo.ClientStream(iter([ask(), ask()])).heard == 2
    assert [answer.text for answer in echo.Both(iter([ask("a"), ask("b")]))] == ["a", "b"]

    ended = [echo.Unary.future(ask(key="k", statuses=[14, 8, 0], details="no")).exception() for _ in range(4)]
    assert [error and error.code().value[0] for error in ended] == [14, 8, None, None]
    assert [(error.details(), tuple(error.initial_metadata())) for error in ended[:2]] == [("no", ())] * 2
    assert one.state.arrivals["k"] == 4

    one.behave(statuses=[14])
    with pytest.raises(grpc.RpcError):
        echo.Unary(ask())
    one.reset()
    assert one.count == 0

    hanging = echo.Unary.future(ask(hang=True))
    eventually(lambda: one.state.active == 1, "the call arrives")
    hanging.cancel()
    eventually(lambda: (one.state.active, one.state.cancelled) == (0, 1), "the backend sees the caller go")

    with pytest.raises(grpc.RpcError) as died:
        list(echo.ServerStream(ask(answers=2, die=True)))
    assert died.value.code() is grpc.StatusCode.UNAVAILABLE

"""Circuit breakers of endpoints, and fallbacks, for gRPC calls, blocking and asyncio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import grpc
import pybreaker
import pytest

from meshlib import CircuitOpenError, Mesh
from meshlib.model.circuit_breaker import FallbackResponse
from meshlib.model.cluster import CircuitBreaker
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

Backends = Callable[[int], list[GrpcBackend]]


def mesh_of(backends: list[GrpcBackend], policy: CircuitBreaker) -> Mesh:
    addresses = [backend.address for backend in backends]
    return Mesh.static({"payments": addresses}, breakers={"payments": policy}, seed=3)


def outcome(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def test_a_failing_endpoint_is_left_out(echo_backends: Backends, grpc_stubs: Stubs) -> None:
    backends = echo_backends(2)
    backends[0].behave(statuses=[13])
    policy = CircuitBreaker(fail_max=2, reset_timeout=60, scope="endpoint")
    with mesh_of(backends, policy) as mesh, mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        codes = Counter(outcome(lambda: echo.Unary(grpc_stubs.ask(), timeout=5)) for _ in range(20))
        assert codes == {grpc.StatusCode.INTERNAL: 2, grpc.StatusCode.OK: 18}


async def test_it_is_left_out_of_asyncio_calls_and_streams_too(echo_backends: Backends, grpc_stubs: Stubs) -> None:
    backends = echo_backends(2)
    backends[0].behave(statuses=[13])
    policy = CircuitBreaker(fail_max=1, reset_timeout=60, scope="endpoint")
    with mesh_of(backends, policy) as mesh:
        async with mesh.grpc.aio_channel("payments") as channel:
            echo = grpc_stubs.echo(channel)
            codes: Counter[grpc.StatusCode] = Counter()
            for _ in range(10):
                call = echo.ServerStream(grpc_stubs.ask(), timeout=5)
                try:
                    async for _ in call:
                        pass
                except grpc.RpcError as error:
                    codes[error.code()] += 1
                else:
                    codes[grpc.StatusCode.OK] += 1
            assert codes == {grpc.StatusCode.INTERNAL: 1, grpc.StatusCode.OK: 9}


@pytest.mark.parametrize(
    "fallback, code",
    [
        (None, grpc.StatusCode.UNAVAILABLE),
        (FallbackResponse(), grpc.StatusCode.UNAVAILABLE),
        (FallbackResponse(429, grpc_status=8), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_what_an_open_breaker_answers(
    echo_backends: Backends, grpc_stubs: Stubs, fallback: FallbackResponse | None, code: grpc.StatusCode
) -> None:
    backends = echo_backends(1)
    backends[0].behave(statuses=[13])
    policy = CircuitBreaker(fail_max=1, reset_timeout=60, fallback=fallback)
    with mesh_of(backends, policy) as mesh, mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        assert outcome(lambda: echo.Unary(grpc_stubs.ask(), timeout=5)) is grpc.StatusCode.INTERNAL
        with pytest.raises(grpc.RpcError) as refused:
            echo.Unary(grpc_stubs.ask(), timeout=5)
        assert refused.value.code() is code
        if fallback is None:
            assert isinstance(refused.value, CircuitOpenError)
            assert isinstance(refused.value, pybreaker.CircuitBreakerError)
        said = dict((*refused.value.initial_metadata(), *refused.value.trailing_metadata()))
        assert said == {"x-envoy-overloaded": "true"}

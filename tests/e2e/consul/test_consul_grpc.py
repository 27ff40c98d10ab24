"""gRPC calls by what a real Consul says: weights, subsets, routes by method and header, and pre-fork workers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from e2e.fork.test_grpc_gunicorn import WORKERS, Gunicorn
from meshlib import Mesh
from parts.consul_server import ConsulServer
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.xds import eventually

pytestmark = pytest.mark.needs("consul")

Backends = Callable[[int], list[GrpcBackend]]


def two_versions(consul: ConsulServer, name: str, backends: list[GrpcBackend]) -> None:
    """v1 and v2, all calls to v1."""
    for version, backend in zip(("v1", "v2"), backends, strict=True):
        consul.register(name, f"{name}-{version}", backend.port, Meta={"version": version})
    consul.write("service-defaults", name, Protocol="grpc")
    named = {version: {"Filter": f"Service.Meta.version == {version}"} for version in ("v1", "v2")}
    consul.write("service-resolver", name, DefaultSubset="v1", Subsets=named)


def split(consul: ConsulServer, name: str, share: int) -> None:
    splits = [{"Weight": 100 - share, "ServiceSubset": "v1"}, {"Weight": share, "ServiceSubset": "v2"}]
    consul.write("service-splitter", name, Splits=splits)


def test_weights_are_shifted_under_a_blocking_channel(
    consul: ConsulServer, name: str, mesh_of: Any, echo_backends: Backends, grpc_stubs: Stubs
) -> None:
    two_versions(consul, name, echo_backends(2))
    mesh: Mesh = mesh_of(consul, name, seed=1)
    with mesh.grpc.channel(name) as channel:
        echo = grpc_stubs.echo(channel)

        def answers(count: int) -> Counter[str]:
            return Counter(echo.Unary(grpc_stubs.ask(), timeout=10).backend for _ in range(count))

        assert answers(10) == {"a": 10}
        split(consul, name, 50)
        eventually(lambda: answers(10)["b"], "the canary gets some")
        assert 60 < answers(200)["b"] < 140
        split(consul, name, 100)
        eventually(lambda: answers(10) == {"b": 10}, "all of it")
        streamed = [answer.backend for answer in echo.ServerStream(grpc_stubs.ask(answers=3), timeout=10)]
        assert streamed == ["b"] * 3


async def test_a_router_matches_methods_and_metadata_of_an_asyncio_channel(
    consul: ConsulServer, name: str, mesh_of: Any, echo_backends: Backends, grpc_stubs: Stubs
) -> None:
    """In Consul a gRPC method is a path."""
    two_versions(consul, name, echo_backends(2))
    canary = {"ServiceSubset": "v2", "NumRetries": 1, "RetryOn": ["unavailable"]}
    matches = [{"PathExact": "/meshlib.test.Echo/ServerStream"}, {"Header": [{"Name": "x-canary", "Present": True}]}]
    routes = [{"Match": {"HTTP": match}, "Destination": canary} for match in matches]
    consul.write("service-router", name, Routes=routes)
    mesh: Mesh = mesh_of(consul, name)
    async with mesh.grpc.aio_channel(name) as channel:
        echo = grpc_stubs.echo(channel)
        assert (await echo.Unary(grpc_stubs.ask(), timeout=10)).backend == "a"
        once_bad = grpc_stubs.ask(key="retried", statuses=[14, 0])
        assert (await echo.Unary(once_bad, timeout=10, metadata=(("x-canary", "1"),))).backend == "b"
        assert [one.backend async for one in echo.ServerStream(grpc_stubs.ask(answers=2), timeout=10)] == ["b"] * 2
        with pytest.raises(grpc.RpcError, match="not retried"):
            await echo.Unary(grpc_stubs.ask(key="not", statuses=[14, 0], details="not retried"), timeout=10)


@pytest.mark.needs("gunicorn")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_gunicorn_with_preload(
    door: str, consul_factory: Any, servers: Any, grpc_stubs: Stubs, echo_backends: Backends
) -> None:
    """The master has made the channels, watched Consul and called before it forks."""
    old, new = echo_backends(2)
    consul = consul_factory()
    consul.register("payments", "payments-1", old.port)
    target = f"consul:{consul.address}"
    gunicorn = servers.keep(Gunicorn(door, True, "called", target, grpc_stubs, servers.folder("gunicorn")))
    answers = gunicorn.until(lambda seen: len({one["pid"] for one in seen}) == WORKERS, "both workers answer")
    assert {one["backend"] for one in answers} == {old.name}
    consul.register("payments", "payments-1", new.port)

    def updated(seen: list[dict[str, Any]]) -> bool:
        return len({one["pid"] for one in seen if one["backend"] == new.name}) == WORKERS

    gunicorn.until(updated, "the update reaches every worker")
    gunicorn.stop()
    assert "Traceback" not in gunicorn.process.log()

"""Fixtures of the gRPC tests: stubs generated once a session, backends as processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parts.fixtures import Servers
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs, generate


@pytest.fixture(scope="session")
def grpc_stubs(tmp_path_factory: pytest.TempPathFactory) -> Stubs:
    """Stubs of grpc_echo.proto: `.echo(channel)`, `.ask("hello", statuses=[14, 0])`, `.messages`, `.services`."""
    return Stubs(generate(tmp_path_factory.mktemp("stubs")))


@pytest.fixture
def grpc_backend(servers: Servers, grpc_stubs: Stubs) -> Callable[..., GrpcBackend]:
    """`grpc_backend("stable", kind="sync")`: an Echo service in its own process."""

    def start(name: str = "backend", **options: Any) -> GrpcBackend:
        return servers.keep(GrpcBackend(name, grpc_stubs, servers.folder("grpc") / f"{name}.log", **options))

    return start


@pytest.fixture(scope="session")
def _grpc_pool(
    grpc_stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], list[GrpcBackend]]]:
    running: list[GrpcBackend] = []
    folder = tmp_path_factory.mktemp("grpc-pool")

    def at_least(count: int) -> list[GrpcBackend]:
        while len(running) < count:
            name = "abcdefgh"[len(running)]
            running.append(GrpcBackend(name, grpc_stubs, folder / f"{name}.log"))
        return running[:count]

    yield at_least
    for backend in running:
        backend.stop()


@pytest.fixture
def echo_backends(_grpc_pool: Callable[[int], list[GrpcBackend]]) -> Callable[[int], list[GrpcBackend]]:
    """`echo_backends(3)`: backends shared by the session's tests in turn, reset; not to be stopped or paused."""

    def take(count: int) -> list[GrpcBackend]:
        backends = _grpc_pool(count)
        for backend in backends:
            backend.reset()
        return backends

    return take

"""Real Consul agents: one that tests of ordinary life share, and any number of a test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from meshlib import Mesh
from parts.consul_server import ConsulServer
from parts.fixtures import Servers

_numbers = count(1)


@pytest.fixture(scope="session")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """An agent shared by all tests, which take service names of their own (`name`); do not stop it."""
    server = ConsulServer(tmp_path_factory.mktemp("consul"))
    yield server
    server.stop()


@pytest.fixture
def name() -> str:
    """A service name no other test uses."""
    return f"payments-{next(_numbers)}"


@pytest.fixture
def consul_factory(servers: Servers) -> Callable[..., ConsulServer]:
    """An agent to kill, freeze and restart."""

    def start(**options: Any) -> ConsulServer:
        return servers.keep(ConsulServer(servers.folder("consul"), **options))

    return start


@pytest.fixture
def mesh_of() -> Iterator[Callable[..., Mesh]]:
    """`mesh_of(consul, "payments", retries=2)`: a mesh that is ready, closed at the end, quickly."""
    meshes: list[Mesh] = []

    def make(server: Any, *declared: str, ready: bool = True, **options: Any) -> Mesh:
        address = server if isinstance(server, str) else server.address
        mesh = Mesh.from_consul(address, declared=declared, **{"unknown_hosts": "reject", **options})
        meshes.append(mesh)
        return mesh.wait_ready() if ready else mesh.start()

    yield make
    for mesh in meshes:
        began = time.monotonic()
        mesh.close()
        assert time.monotonic() - began < 2.5, "close hangs"

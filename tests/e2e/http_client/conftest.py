"""Fixtures of the client scenarios: a door, meshes that are checked for what they still hold, servers with a script."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.http_client.doors import DOORS, Door
from e2e.wire.raw_server import RawServer
from meshlib import Mesh


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, meshes: list[Mesh]) -> Iterator[Door]:
    """The door a scenario goes through. Its clients are closed before the meshes are looked at."""
    door = DOORS[request.param]()
    yield door
    door.close()


@pytest.fixture
def meshes() -> Iterator[list[Mesh]]:
    """Meshes of the test; after it none of them may hold anything: load, connections, retries, probes."""
    made: list[Mesh] = []
    yield made
    for mesh in made:
        mesh.close()
        assert still_held(mesh) == {}


@pytest.fixture
def static(meshes: list[Mesh]) -> Callable[..., Mesh]:
    """static({"payments": [address]}, **options): a mesh from code."""

    def make(clusters: Any, **options: Any) -> Mesh:
        meshes.append(Mesh.static(clusters, **{"seed": 7} | options))
        return meshes[-1]

    return make


@pytest.fixture
def raw() -> Iterator[Callable[..., RawServer]]:
    """raw(script): a server that says exactly what the script says; its failed assertions are raised at the end."""
    servers: list[RawServer] = []

    def start(script: Any, **options: Any) -> RawServer:
        servers.append(RawServer(script, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def held(mesh: Mesh, *, connections: bool = True) -> dict[str, int]:
    """What has not been given back by now, by name."""
    kinds = ("requests", "pending", "retries", *(("connections",) if connections else ()))
    found: dict[str, int] = {}
    for cluster in mesh.runtime.state.clusters.values():
        for priority in ("default", "high"):
            load = getattr(cluster, priority)
            found |= {f"{cluster.name} {priority} {kind}": len(getattr(load, kind)) for kind in kinds}
        found |= {f"{cluster.name} {cell.address}": cell.active for cell in cluster.endpoints.values()}
    return {name: count for name, count in found.items() if count}


def still_held(mesh: Mesh, *, connections: bool = True) -> dict[str, int]:
    """What is not given back though it was given a moment: connections end on their own threads and loops."""
    until = time.monotonic() + 2.0
    while (found := held(mesh, connections=connections)) and time.monotonic() < until:
        time.sleep(0.01)
    return found

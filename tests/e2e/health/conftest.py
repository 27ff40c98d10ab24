"""Meshes whose clusters are checked, and the servers that are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.wire.raw_server import RawServer
from meshlib import Mesh


@pytest.fixture
def static() -> Iterator[Callable[..., Mesh]]:
    """static({"up": cluster}, **options): a mesh from code; it has begun, and has checked everybody once."""
    made: list[Mesh] = []

    def make(clusters: Any, **options: Any) -> Mesh:
        made.append(Mesh.static(clusters, **{"seed": 7} | options))
        return made[-1].wait_ready()

    yield make
    for mesh in made:
        mesh.close()


@pytest.fixture
def raw() -> Iterator[Callable[..., RawServer]]:
    """raw(script): a server that says exactly what the script says."""
    servers: list[RawServer] = []

    def start(script: Any, **options: Any) -> RawServer:
        servers.append(RawServer(script, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()

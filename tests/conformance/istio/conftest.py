"""One generator for a module: it takes a second to start."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from parts.istio_server import IstioServer


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., IstioServer]]:
    """``generator(yaml, mesh_config="")``, stopped when the module ends."""
    with ExitStack() as stack:

        def start(objects: str, mesh_config: str = "") -> IstioServer:
            server = IstioServer(tmp_path_factory.mktemp("istio"), objects, mesh_config)
            stack.callback(server.stop)
            return server

        yield start

"""What the forking programs are configured by: `payments` and `orders`, both going to one backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from meshlib.control.ads_server import Resource
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds
from parts.fast_backend import FastBackend


def resources(backend: FastBackend) -> list[tuple[str, dict[str, Any]]]:
    return [
        (LISTENER, xds.api_listener("payments")),
        (LISTENER, xds.api_listener("orders")),
        (ROUTE_CONFIGURATION, xds.route_configuration()),
        (CLUSTER, xds.eds_cluster()),
        (CLUSTER_LOAD_ASSIGNMENT, xds.assignment("payments", xds.endpoint(backend.host, backend.port))),
    ]


def served(backend: FastBackend) -> list[Resource]:
    """As the embedded control plane's store takes them."""
    return [Resource.of_message(xds.message(*item)) for item in resources(backend)]


def write(folder: Path, backend: FastBackend) -> None:
    """As the file source reads them."""
    new = folder / ".new"
    new.write_text(json.dumps([xds.any_json(*item) for item in resources(backend)]))
    new.replace(folder / "mesh.json")


def assert_no_socket_is_shared(*backends: FastBackend) -> None:
    """Requests say which process sent them (`x-pid`): those of one connection must all come from one."""
    for backend in backends:
        senders: dict[int, set[str | None]] = {}
        for request in backend.requests:
            senders.setdefault(request.connection, set()).add(request.header("x-pid"))
        assert all(len(pids) == 1 for pids in senders.values()), senders

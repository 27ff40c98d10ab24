"""No request ever sees a route of one version with a cluster of another, and a plan swap fails no call.

Version n's only route adds the header `x-route: n` and goes to cluster `v{n}`, whose only endpoint is one of a few
backends: backend `n % BACKENDS`. The backend says who it is and echoes the header, so each response says both halves of
the configuration it was served by. Clusters and endpoints of older versions are gone from the snapshot, so connection
pools are drained all the while. The same through every kind of source: code, files, and a control plane over xDS.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.consistency.hammer import BACKENDS, Hammer, numbered_backends
from meshlib import Mesh
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from meshlib.control.control_plane import ControlPlane
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction
from meshlib.sources.static import StaticSource, static_snapshot
from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
from meshlib.sources.xds.node import Node
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds
from parts.fast_backend import FastBackend

HOST = "127.0.0.1"
MANY = pytest.mark.parametrize("changes", [200, pytest.param(1000, marks=pytest.mark.slow)])
BETWEEN = 0.003  # seconds for calls to happen between two changes, else most versions would see none


@pytest.fixture
def ports(fast_backend: Callable[..., FastBackend]) -> list[int]:
    return [backend.port for backend in numbered_backends(fast_backend)]


# In code -----------------------------------------------------------------------------------------------------------


def snapshot_of(version: int, ports: list[int]) -> Any:
    name = f"v{version}"
    stamp = HeaderMutations(add=(HeaderValueOption("x-route", str(version)),))
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction(name), request_headers=stamp)
    address = f"{HOST}:{ports[version % BACKENDS]}"
    return static_snapshot({name: [address]}, routes={"payments": (route,)}, version=str(version))


@MANY
async def test_changes_in_code(changes: int, ports: list[int]) -> None:
    source = StaticSource(snapshot_of(0, ports))
    with Mesh(source, unknown_hosts="reject") as mesh:
        hammer = Hammer(mesh)

        def change() -> None:
            for version in range(1, changes + 1):
                source.replace(snapshot_of(version, ports))
                time.sleep(BETWEEN)

        await hammer.during(change)
        hammer.verify(changes, changes // 10)


# In files ----------------------------------------------------------------------------------------------------------


def resources_of(version: int, ports: list[int]) -> list[tuple[str, dict[str, Any]]]:
    """Version n as xDS resources; the cluster's endpoints come by EDS."""
    name, host = f"v{version}", xds.endpoint(HOST, ports[version % BACKENDS])
    stamp = [{"header": {"key": "x-route", "value": str(version)}}]
    table = xds.route_configuration("routes", xds.route(name, request_headers_to_add=stamp))
    return [
        (LISTENER, xds.api_listener("payments")),
        (ROUTE_CONFIGURATION, table),
        (CLUSTER, xds.eds_cluster(name, connect_timeout="5s")),
        (CLUSTER_LOAD_ASSIGNMENT, xds.assignment(name, host)),
    ]


def write(folder: Path, version: int, ports: list[int]) -> None:
    """Put version n into force as an editor or a ConfigMap does: by a rename."""
    new = folder / ".new"
    new.write_text(json.dumps([xds.any_json(*item) for item in resources_of(version, ports)]))
    new.replace(folder / "mesh.json")


@MANY
async def test_changes_of_a_file(changes: int, ports: list[int], tmp_path: Path) -> None:
    write(tmp_path, 0, ports)
    with Mesh.from_file(tmp_path, unknown_hosts="reject") as mesh:
        mesh.wait_ready()
        hammer = Hammer(mesh)

        def change() -> None:
            for version in range(1, changes + 1):
                write(tmp_path, version, ports)
                time.sleep(0.012)
            wait_for_cluster(mesh, f"v{changes}")

        await hammer.during(change)
        hammer.verify(changes, changes // 10)
        assert mesh.issues == ()


# Over xDS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
@MANY
async def test_changes_over_xds(changes: int, ports: list[int], delta: bool) -> None:
    def served(version: int) -> list[Resource]:
        return [Resource.of_message(xds.message(*item)) for item in resources_of(version, ports)]

    store = ResourceStore(served(0))
    with AdsServer(store) as server, mesh_of(f"{HOST}:{server.port}", delta=delta) as mesh:
        mesh.wait_ready()
        hammer = Hammer(mesh)

        def change() -> None:
            for version in range(1, changes + 1):
                store.replace(served(version))
                wait_for_cluster(mesh, f"v{version}")  # else a cluster would be gone before its endpoints are asked for

        await hammer.during(change)
        hammer.verify(changes, changes // 10)
        assert [issue for issue in mesh.issues if issue.severity == "error"] == []


async def test_edits_of_the_control_planes_directory(ports: list[int], tmp_path: Path) -> None:
    """From the editor to the call: file, embedded control plane, ADS, mesh."""
    write(tmp_path, 0, ports)
    with ControlPlane(tmp_path) as plane, mesh_of(plane.address) as mesh:
        mesh.wait_ready()
        hammer = Hammer(mesh)

        def change() -> None:
            for version in range(1, 121):
                write(tmp_path, version, ports)
                wait_for_cluster(mesh, f"v{version}")

        await hammer.during(change)
        hammer.verify(1000, 60)
        assert [issue for issue in mesh.issues if issue.severity == "error"] == []


def mesh_of(address: str, **options: Any) -> Mesh:
    bootstrap = Bootstrap((XdsServer(address),), Node("hammer"))
    return Mesh.from_xds(bootstrap, declared=["payments"], unknown_hosts="reject", **options)


def wait_for_cluster(mesh: Mesh, name: str) -> None:
    deadline = time.monotonic() + 20
    while name not in mesh.plan.clusters:
        assert time.monotonic() < deadline, f"{name} never came; in force: {list(mesh.plan.clusters)}"
        time.sleep(0.002)

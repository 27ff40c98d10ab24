"""A policy that changes in a file or at the control plane holds for the next call of a guarded function."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.decorators.kinds import KINDS, Script
from meshlib import Mesh
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from meshlib.sources.xds.types import CLUSTER, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds
from parts.xds import eventually


def resources(retries: int) -> list[tuple[str, dict[str, Any]]]:
    policy = {"retry_on": "5xx", "num_retries": retries, "retry_back_off": {"base_interval": "0.001s"}}
    action = {"cluster": "payments", "retry_policy": policy}
    return [
        (LISTENER, xds.api_listener("payments")),
        (ROUTE_CONFIGURATION, xds.route_configuration("routes", xds.route(route=action))),
        (CLUSTER, {"name": "payments", "type": "STATIC"}),
    ]


class Files:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.say(0)
        self.mesh = Mesh.from_file(folder, unknown_hosts="reject")

    def say(self, retries: int) -> None:
        new = self._folder / ".new"
        new.write_text(json.dumps([xds.any_json(*item) for item in resources(retries)]))
        new.replace(self._folder / "mesh.json")

    def close(self) -> None:
        self.mesh.close()


class ControlPlane:
    def __init__(self, folder: Path) -> None:
        self._store = ResourceStore()
        self.say(0)
        self._server = AdsServer(self._store).start()
        self.mesh = Mesh.from_xds(f"127.0.0.1:{self._server.port}", unknown_hosts="reject")

    def say(self, retries: int) -> None:
        self._store.replace([Resource.of_message(xds.message(*item)) for item in resources(retries)])

    def close(self) -> None:
        self.mesh.close()
        self._server.stop()


@pytest.fixture(params=[Files, ControlPlane])
def plane(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    plane = request.param(tmp_path)
    yield plane
    plane.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_call_goes_by_the_new_policy(kind: str, plane: Any) -> None:
    def attempts() -> int:
        script = Script(kind, plane.mesh, ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            script()
        return script.calls

    assert attempts() == 1
    for retries in (3, 0, 1):
        plane.say(retries)
        eventually(lambda wanted=retries: attempts() == wanted + 1, f"{retries} retries")

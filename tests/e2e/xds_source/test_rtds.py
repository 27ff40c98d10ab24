"""Runtime layers of a control plane (RTDS), SotW and delta: values that change while they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from meshlib.decorators import retry
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, RUNTIME
from parts import xds_resources as xds
from parts.fast_backend import FastBackend
from parts.xds import eventually

Fast = Callable[..., FastBackend]
Json = dict[str, Any]


class Plane:
    """A control plane with a route of which a runtime key says the share, and layers."""

    def __init__(self, old: FastBackend, new: FastBackend) -> None:
        fraction = {"default_value": {"numerator": 0}, "runtime_key": "shop.new"}
        routes = [
            {"match": {"prefix": "/", "runtime_fraction": fraction}, "route": {"cluster": "new"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "old"}},
        ]
        items: list[tuple[str, Json]] = [
            (LISTENER, xds.api_listener("shop", "routes")),
            (
                ROUTE_CONFIGURATION,
                {"name": "routes", "virtual_hosts": [{"name": "shop", "domains": ["*"], "routes": routes}]},
            ),
        ]
        for name, backend in (("old", old), ("new", new)):
            items.append((CLUSTER, xds.eds_cluster(name)))
            items.append((CLUSTER_LOAD_ASSIGNMENT, xds.assignment(name, xds.endpoint(backend.host, backend.port))))
        self._traffic = [Resource.of_message(xds.message(kind, item)) for kind, item in items]
        self._store = ResourceStore()
        self.server = AdsServer(self._store)
        self.server.start()

    def put(self, **layers: Json) -> None:
        """Serve these layers."""
        found = [xds.message(RUNTIME, {"name": name, "layer": values}) for name, values in layers.items()]
        self._store.replace([*self._traffic, *map(Resource.of_message, found)])


@pytest.fixture
def plane(fast_backend: Fast) -> Iterator[Plane]:
    made = Plane(fast_backend("old"), fast_backend("new"))
    yield made
    made.server.stop()


@pytest.fixture(params=[True, False], ids=["delta", "sotw"])
def mesh(request: pytest.FixtureRequest, plane: Plane) -> Iterator[Mesh]:
    address = f"127.0.0.1:{plane.server.port}"
    with Mesh.from_xds(address, mode="proxyless", delta=request.param, runtime=["base", "over"], seed=1) as mesh:
        yield mesh


def share(client: Any) -> Counter[str]:
    return Counter(client.get("/").headers["x-backend"] for _ in range(20))


def test_a_fraction_follows_its_key_and_a_later_layer_wins(mesh: Mesh, plane: Plane) -> None:
    plane.put(base={"shop": {"new": 100}}, over={})
    with mesh.http.client("shop") as client:
        assert share(client) == {"new": 20}, "the first call has waited for the layers"
        plane.put(base={"shop.new": 100}, over={"shop": {"new": 0}})
        eventually(lambda: share(client) == {"old": 20}, "the later layer")
        plane.put(base={"shop.new": 100}, over={"other": "x"})
        eventually(lambda: share(client) == {"new": 20}, "the earlier one again")
        plane.put(base={}, over={})
        eventually(lambda: share(client) == {"old": 20}, "the default")


def test_a_layer_that_is_removed_says_nothing(plane: Plane) -> None:
    plane.put(base={"shop": {"new": 100}})
    mesh = Mesh.from_xds(f"127.0.0.1:{plane.server.port}", mode="proxyless", delta=True, runtime=["base"])
    with mesh, mesh.http.client("shop") as client:
        assert share(client) == {"new": 20}
        plane.put()
        eventually(lambda: share(client) == {"old": 20}, "the default")


def test_a_decorator_follows_the_control_plane(mesh: Mesh, plane: Plane) -> None:
    plane.put(base={}, over={})
    calls: list[None] = []

    @retry(2, base_interval=0.0, name="prices", mesh=mesh)
    def prices() -> None:
        calls.append(None)
        raise OSError

    def attempts() -> int:
        calls.clear()
        with pytest.raises(OSError):  # noqa: PT011  any
            prices()
        return len(calls)

    mesh.wait_ready(10)
    assert attempts() == 2
    plane.put(base={}, over={"meshlib": {"prices": {"retry": {"attempts": 4}}}})
    eventually(lambda: attempts() == 4, "four attempts")
    plane.put(base={}, over={})
    eventually(lambda: attempts() == 2, "as the decorator says")


def test_a_layer_that_is_refused_changes_nothing(mesh: Mesh, plane: Plane) -> None:
    plane.put(base={"shop": {"new": 100}}, over={})
    with mesh.http.client("shop") as client:
        assert share(client) == {"new": 20}
        broken = Resource(RUNTIME, "over", "broken", b"\x0a\x04over\x12\x03\xff\xff\xff")
        base = Resource.of_message(xds.message(RUNTIME, {"name": "base", "layer": {"shop": {"new": 100}}}))
        plane._store.replace([*plane._traffic, base, broken])
        eventually(lambda: any("Runtime" in issue.resource for issue in mesh.issues), "reported")
        assert share(client) == {"new": 20}

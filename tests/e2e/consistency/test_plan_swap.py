"""No request ever sees a route of one version with a cluster of another, and a plan swap fails no call.

Version n's only route adds the header `x-route: n` and goes to cluster `v{n}`, whose only endpoint is one of a few
backends: backend `n % BACKENDS`. The backend says who it is and echoes the header, so each response says both halves of
the configuration it was served by. Clusters and endpoints of older versions are gone from the snapshot, so connection
pools are drained all the while.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from meshlib import Mesh
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction
from meshlib.sources.static import StaticSource, static_snapshot
from parts.fast_backend import FastBackend, Reply, Request

BACKENDS = 4
CHANGES = 1000
THREADS = 4
TASKS = 8


def snapshot_of(version: int, addresses: list[str]):
    name = f"v{version}"
    stamp = HeaderMutations(add=(HeaderValueOption("x-route", str(version)),))
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction(name), request_headers=stamp)
    return static_snapshot({name: [addresses[version % BACKENDS]]}, routes={"payments": (route,)}, version=str(version))


@pytest.fixture
def addresses(fast_backend: Callable[..., FastBackend]) -> list[str]:
    def echo(index: int) -> Callable[[Request], Reply]:
        def answer(request: Request) -> Reply:
            return Reply(200, f"{index} {request.header('x-route')}".encode())

        return answer

    return [fast_backend(f"b{index}", echo(index)).address for index in range(BACKENDS)]


def torn(text: str) -> bool:
    """Whether the backend is not the one the route's version belongs to."""
    backend, version = text.split()
    return int(version) % BACKENDS != int(backend)


class Hammer:
    """Calls without pause until told to stop, and judges every answer."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.done = threading.Event()
        self.problems: list[str] = []
        self.versions: list[str] = []

    def judge(self, text: str) -> None:
        self.versions.append(text.split()[1])
        if torn(text):
            self.problems.append(f"torn: {text}")

    def run(self) -> None:
        with self.mesh.http.client("payments") as client:
            while not self.done.is_set():
                try:
                    self.judge(client.get("/").text)
                except Exception as error:  # noqa: BLE001  whatever it is, it is a failed call
                    self.problems.append(repr(error))

    async def run_async(self) -> None:
        async with self.mesh.http.async_client("payments") as client:
            while not self.done.is_set():
                try:
                    self.judge((await client.get("/")).text)
                except Exception as error:  # noqa: BLE001
                    self.problems.append(repr(error))


async def test_a_thousand_changes_tear_nothing_and_fail_nothing(addresses: list[str]) -> None:
    source = StaticSource(snapshot_of(0, addresses))

    def change(done: threading.Event) -> None:
        for version in range(1, CHANGES + 1):
            source.replace(snapshot_of(version, addresses))
            done.wait(0.003)  # let calls happen between changes, else most versions would see none
        done.set()

    with Mesh(source, unknown_hosts="reject") as mesh:
        hammer = Hammer(mesh)
        threads = [threading.Thread(target=hammer.run) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        await asyncio.gather(asyncio.to_thread(change, hammer.done), *(hammer.run_async() for _ in range(TASKS)))
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)

    assert hammer.problems == []
    assert len(set(hammer.versions)) > CHANGES / 10, "too few versions were seen for the test to mean anything"
    assert len(hammer.versions) > CHANGES
    state = mesh.runtime.state
    held = [cell for cluster in state.clusters.values() for cell in cluster.endpoints.values() if cell.active]
    assert held == [], "load that was never given back"

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
from parts.fast_backend import FastBackend, Reply, Request

from meshlib import Mesh
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction
from meshlib.sources.static import StaticSource, static_snapshot

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


async def test_a_thousand_changes_tear_nothing_and_fail_nothing(addresses: list[str]) -> None:
    source = StaticSource(snapshot_of(0, addresses))
    done = threading.Event()
    problems: list[str] = []
    versions: set[str] = set()
    counts: list[int] = []

    with Mesh(source, unknown_hosts="reject") as mesh:

        def judge(text: str) -> None:
            versions.add(text.split()[1])
            if torn(text):
                problems.append(f"torn: {text}")

        def hammer_sync() -> None:
            calls = 0
            with mesh.http.client("payments") as client:
                while not done.is_set():
                    try:
                        judge(client.get("/").text)
                    except Exception as error:  # noqa: BLE001  whatever it is, it is a failed call
                        problems.append(repr(error))
                    calls += 1
            counts.append(calls)

        async def hammer_async() -> None:
            calls = 0
            async with mesh.http.async_client("payments") as client:
                while not done.is_set():
                    try:
                        judge((await client.get("/")).text)
                    except Exception as error:  # noqa: BLE001
                        problems.append(repr(error))
                    calls += 1
            counts.append(calls)

        def change() -> None:
            for version in range(1, CHANGES + 1):
                source.replace(snapshot_of(version, addresses))
                done.wait(0.003)  # let calls happen between changes, else most versions would see none
            done.set()

        threads = [threading.Thread(target=hammer_sync) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        await asyncio.gather(asyncio.to_thread(change), *(hammer_async() for _ in range(TASKS)))
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)

    assert problems == []
    assert len(versions) > CHANGES / 10, "too few versions were seen for the test to mean anything"
    assert sum(counts) > CHANGES
    state = mesh.runtime.state
    held = [cell for cluster in state.clusters.values() for cell in cluster.endpoints.values() if cell.active]
    assert held == [], "load that was never given back"

"""Load that notices a torn plan: who answered and which route was taken must belong to one version."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from meshlib import Mesh
from parts.fast_backend import FastBackend, Reply, Request

BACKENDS = 4
THREADS = 4
TASKS = 8


def numbered_backends(fast_backend: Callable[..., FastBackend]) -> list[FastBackend]:
    """`BACKENDS` services; number i answers `i <the x-route header it got>`."""

    def echo(index: int) -> Callable[[Request], Reply]:
        return lambda request: Reply(200, f"{index} {request.header('x-route')}".encode())

    return [fast_backend(f"b{index}", echo(index)) for index in range(BACKENDS)]


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

    async def during(self, change: Callable[[], None]) -> None:
        """Hammer from threads and tasks while `change` runs in a thread of its own."""
        threads = [threading.Thread(target=self._run) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        await asyncio.gather(asyncio.to_thread(self._change, change), *(self._run_async() for _ in range(TASKS)))
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)

    def verify(self, calls: int, versions: int) -> None:
        """Nothing torn, nothing failed, no load left behind; and more calls and versions were seen than that."""
        assert self.problems == []
        assert len(set(self.versions)) > versions, "too few versions were seen for the test to mean anything"
        assert len(self.versions) > calls
        clusters = self.mesh.runtime.state.clusters.values()
        held = [cell for cluster in clusters for cell in cluster.endpoints.values() if cell.active]
        assert held == [], "load that was never given back"

    def _change(self, change: Callable[[], None]) -> None:
        try:
            change()
        finally:
            self.done.set()

    def _judge(self, text: str) -> None:
        self.versions.append(text.split()[1])
        if torn(text):
            self.problems.append(f"torn: {text}")

    def _run(self) -> None:
        with self.mesh.http.client("payments") as client:
            while not self.done.is_set():
                try:
                    self._judge(client.get("/").text)
                except Exception as error:  # noqa: BLE001  whatever it is, it is a failed call
                    self.problems.append(repr(error))

    async def _run_async(self) -> None:
        async with self.mesh.http.async_client("payments") as client:
            while not self.done.is_set():
                try:
                    self._judge((await client.get("/")).text)
                except Exception as error:  # noqa: BLE001
                    self.problems.append(repr(error))

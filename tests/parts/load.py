"""Calls without pause through a mesh, blocking and asyncio at once; whatever fails is kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from meshlib import Mesh


class Load:
    """`with Load(mesh, "payments") as load:` two threads and `tasks` tasks of one loop call `method path` all the time.

    `failures` holds what went wrong as text, `calls` counts what went well, `slowest` is the longest call in seconds.
    `leave_loop` runs on the loop at the end, for what is to be closed there.
    """

    def __init__(
        self,
        mesh: Mesh,
        service: str,
        method: str = "GET",
        path: str = "/",
        *,
        tasks: int = 4,
        leave_loop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._mesh = mesh
        self._service = service
        self._request = (method, path)
        self._tasks = tasks
        self._leave_loop = leave_loop
        self._done = threading.Event()
        self.calls = 0
        self.slowest = 0.0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=target) for target in (self._run, self._run, self._run_loop)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a caller hangs"

    def during(self, seconds: float) -> None:
        """Go on for a while."""
        time.sleep(seconds)

    def _judge(self, response: Any, began: float) -> None:
        self.slowest = max(self.slowest, time.monotonic() - began)
        if response.status_code == 200:
            self.calls += 1
        else:
            self.failures.append(f"{response.status_code} {response.text}")

    def _run(self) -> None:
        with self._mesh.http.client(self._service) as client:
            while not self._done.is_set():
                began = time.monotonic()
                try:
                    self._judge(client.request(*self._request), began)
                except Exception as error:  # noqa: BLE001  whatever it is, it is a failed call
                    self.failures.append(repr(error))

    def _run_loop(self) -> None:
        async def one(client: Any) -> None:
            while not self._done.is_set():
                began = time.monotonic()
                try:
                    self._judge(await client.request(*self._request), began)
                except Exception as error:  # noqa: BLE001
                    self.failures.append(repr(error))

        async def several() -> None:
            async with self._mesh.http.async_client(self._service) as client:
                await asyncio.gather(*(one(client) for _ in range(self._tasks)))
            if self._leave_loop is not None:
                await self._leave_loop()

        asyncio.run(several())

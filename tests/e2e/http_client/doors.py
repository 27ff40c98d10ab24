"""The four doors to the mesh behind one blocking face, so that a scenario is written once and goes through all of them.

A door is a library (httpx or httpx2) and a way to call it (blocking or asyncio). An asyncio door runs its loop only
while it is asked for something, in the context variables of whoever asks.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import httpx2

from meshlib import Mesh
from meshlib.http.library import LibraryName

T = TypeVar("T")
Call = tuple[str, str]
LIBRARIES: dict[LibraryName, Any] = {"httpx": httpx, "httpx2": httpx2}


class Caller:
    """A client of the library, blocking as it is."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def request(self, method: str, url: str, **options: Any) -> Any:
        return self.client.request(method, url, **options)

    def get(self, url: str, **options: Any) -> Any:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> Any:
        return self.request("POST", url, **options)

    def open(self, method: str, url: str, **options: Any) -> Any:
        """The response with its body still to come."""
        return self.client.send(self.client.build_request(method, url, **options), stream=True)

    def chunks(self, response: Any, kind: str = "bytes", *args: Any) -> Iterator[Any]:
        """What `iter_bytes`, `iter_raw`, `iter_text` or `iter_lines` gives."""
        return iter(getattr(response, f"iter_{kind}")(*args))

    def read(self, response: Any) -> bytes:
        return response.read()

    def close_response(self, response: Any) -> None:
        response.close()

    def together(self, calls: Iterable[Call], **options: Any) -> list[Any]:
        """All calls at once; a failed one is given as its exception."""
        calls = list(calls)
        with ThreadPoolExecutor(len(calls)) as threads:
            return list(threads.map(lambda call: caught(lambda: self.request(*call, **options)), calls))

    def settle(self) -> None:
        """A blocking client acts only when called."""

    def close(self) -> None:
        self.client.close()


class AsyncCaller(Caller):
    """An asyncio client on a loop that runs while it is used."""

    def __init__(self, client: Any, runner: asyncio.Runner) -> None:
        super().__init__(client)
        self._runner = runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work, context=contextvars.copy_context())

    def request(self, method: str, url: str, **options: Any) -> Any:
        return self.run(self.client.request(method, url, **options))

    def open(self, method: str, url: str, **options: Any) -> Any:
        return self.run(self.client.send(self.client.build_request(method, url, **options), stream=True))

    def chunks(self, response: Any, kind: str = "bytes", *args: Any) -> Iterator[Any]:
        pieces = getattr(response, f"aiter_{kind}")(*args)

        async def one() -> Any:
            return await anext(pieces, None)

        while (piece := self.run(one())) is not None:
            yield piece

    def read(self, response: Any) -> bytes:
        return self.run(response.aread())

    def close_response(self, response: Any) -> None:
        self.run(response.aclose())

    def together(self, calls: Iterable[Call], **options: Any) -> list[Any]:
        async def all_of_them() -> list[Any]:
            made = (self.client.request(*call, **options) for call in calls)
            return await asyncio.gather(*made, return_exceptions=True)

        return self.run(all_of_them())

    def settle(self) -> None:
        """Let the loop see what has happened on its sockets."""
        self.run(asyncio.sleep(0.02))

    def close(self) -> None:
        self.run(self.client.aclose())


class Door:
    """One library, blocking."""

    asynchronous = False

    def __init__(self, name: LibraryName) -> None:
        self.name = name
        self.library = LIBRARIES[name]
        self._callers: list[Caller] = []
        self._things: list[Any] = []

    def client(self, mesh: Mesh, service: str = "payments", **options: Any) -> Caller:
        """A ready client from the mesh."""
        return self._kept(Caller(mesh.http.client(service, library=self.name, **options)))

    def own_client(self, mesh: Mesh, fallback: Any = None, **options: Any) -> Caller:
        """A client of the caller's own, with the mesh's transport in it."""
        transport = mesh.http.transport(library=self.name, fallback=fallback)
        return self._kept(Caller(self.library.Client(transport=transport, **options)))

    def body(self, pieces: Iterable[bytes]) -> Any:
        """A request body that is made as it is sent, and once."""
        return (piece for piece in pieces)

    def hook(self, function: Callable[..., None]) -> Callable[..., Any]:
        """An event hook as the library wants it."""
        return function

    def error(self, name: str) -> type[Exception]:
        """One of the library's exceptions."""
        found: type[Exception] = getattr(self.library, name)
        return found

    def keep(self, thing: Any) -> Any:
        """Something with `close` and `aclose`, closed with the door."""
        self._things.append(thing)
        return thing

    def close(self) -> None:
        for caller in self._callers:
            caller.close()
        self._close_things()

    def _close_things(self) -> None:
        for thing in self._things:
            thing.close()

    def _kept(self, caller: Caller) -> Caller:
        self._callers.append(caller)
        return caller


class AsyncDoor(Door):
    """One library, on asyncio."""

    asynchronous = True

    def __init__(self, name: LibraryName) -> None:
        super().__init__(name)
        self.runner = asyncio.Runner()

    def client(self, mesh: Mesh, service: str = "payments", **options: Any) -> Caller:
        return self._kept(AsyncCaller(mesh.http.async_client(service, library=self.name, **options), self.runner))

    def own_client(self, mesh: Mesh, fallback: Any = None, **options: Any) -> Caller:
        transport = mesh.http.async_transport(library=self.name, fallback=fallback)
        return self._kept(AsyncCaller(self.library.AsyncClient(transport=transport, **options), self.runner))

    def body(self, pieces: Iterable[bytes]) -> Any:
        async def generate() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return generate()

    def hook(self, function: Callable[..., None]) -> Callable[..., Any]:
        async def hook(*args: Any) -> None:
            function(*args)

        return hook

    def close(self) -> None:
        super().close()
        self.runner.close()

    def _close_things(self) -> None:
        for thing in self._things:
            self.runner.run(thing.aclose())


def caught(call: Callable[[], T]) -> T | Exception:
    """What a call gives, or what it raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  the test judges it
        return error


DOORS: dict[str, Callable[[], Door]] = {
    "httpx": lambda: Door("httpx"),
    "httpx-asyncio": lambda: AsyncDoor("httpx"),
    "httpx2": lambda: Door("httpx2"),
    "httpx2-asyncio": lambda: AsyncDoor("httpx2"),
}

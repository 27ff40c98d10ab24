"""Every door to the mesh behind one face: a call of the service `payments`, and in a word how it ended."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import grpc
import httpx
import httpx2

from meshlib import CallError, Mesh, current_attempt
from meshlib.flags import ResponseFlag
from parts.grpc_stubs import Stubs

LIBRARIES: dict[str, Any] = {"httpx": httpx, "httpx2": httpx2}
Headers = dict[str, str]


class Door(Protocol):
    """`fleet` says which kind of backends it reaches."""

    fleet: str

    def open(self, mesh: Mesh) -> None:
        """Make a client of the mesh."""

    def call(self, headers: Headers) -> str:
        """One call, in the context variables of the caller."""

    def together(self, count: int, headers: Headers) -> list[str]:
        """Several at once."""

    def close(self) -> None:
        """Close the client."""


class Blocking:
    """A door that is called from threads."""

    def call(self, headers: Headers) -> str:
        raise NotImplementedError

    def together(self, count: int, headers: Headers) -> list[str]:
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(self.call, [headers] * count))


class OnALoop:
    """A door that is called from a loop, which runs only meanwhile."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    async def acall(self, headers: Headers) -> str:
        raise NotImplementedError

    def call(self, headers: Headers) -> str:
        return self.run(self.acall(headers))

    def together(self, count: int, headers: Headers) -> list[str]:
        async def all_of_them() -> list[str]:
            return await asyncio.gather(*(self.acall(headers) for _ in range(count)))

        return self.run(all_of_them())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work, context=contextvars.copy_context())

    def shut(self, work: Coroutine[Any, Any, Any]) -> None:
        self.run(work)
        self._runner.close()


# ---------------------------------------------------------------------- httpx and httpx2


class HttpDoor(Blocking):
    fleet = "http"

    def __init__(self, library: str, stubs: Stubs) -> None:
        self._library: Any = library

    def open(self, mesh: Mesh) -> None:
        self._client = mesh.http.client("payments", library=self._library)

    def call(self, headers: Headers) -> str:
        try:
            return said(self._client.get("/", headers=headers))
        except CallError as error:
            return error.flag

    def close(self) -> None:
        self._client.close()


class AsyncHttpDoor(OnALoop):
    fleet = "http"

    def __init__(self, library: str, stubs: Stubs) -> None:
        super().__init__()
        self._library: Any = library

    def open(self, mesh: Mesh) -> None:
        self._client = mesh.http.async_client("payments", library=self._library)

    async def acall(self, headers: Headers) -> str:
        try:
            return said(await self._client.get("/", headers=headers))
        except CallError as error:
            return error.flag

    def close(self) -> None:
        self.shut(self._client.aclose())


def said(response: Any) -> str:
    """A response of the mesh's own by its flag, a backend's by its name."""
    if response.status_code < 400:
        return str(response.json()["name"])
    flag = response.extensions["meshlib"].flag
    return str(flag) if flag in (ResponseFlag.RL, ResponseFlag.UO) else "bad"


# ---------------------------------------------------------------------- grpc and grpc.aio


class GrpcDoor(Blocking):
    fleet = "grpc"

    def __init__(self, library: str, stubs: Stubs) -> None:
        self._stubs = stubs

    def open(self, mesh: Mesh) -> None:
        self._channel = mesh.grpc.channel("payments")
        self._echo = self._stubs.echo(self._channel)

    def call(self, headers: Headers) -> str:
        try:
            return str(self._echo.Unary(self._stubs.ask(), metadata=tuple(headers.items())).backend)
        except grpc.RpcError as error:
            return refused(error)

    def close(self) -> None:
        self._channel.close()


class AioGrpcDoor(OnALoop):
    fleet = "grpc"

    def __init__(self, library: str, stubs: Stubs) -> None:
        super().__init__()
        self._stubs = stubs

    def open(self, mesh: Mesh) -> None:
        self._channel = mesh.grpc.aio_channel("payments")
        self._echo = self._stubs.echo(self._channel)

    async def acall(self, headers: Headers) -> str:
        try:
            return str((await self._echo.Unary(self._stubs.ask(), metadata=tuple(headers.items()))).backend)
        except grpc.RpcError as error:
            return refused(error)

    def close(self) -> None:
        self.shut(self._channel.close())


def refused(error: Any) -> str:
    """The mesh's flag, or a status of the backend's own."""
    return str(error.flag) if isinstance(error, CallError) else "bad"


# ---------------------------------------------------------------------- mesh.guard


class GuardDoor(Blocking):
    """A function of the application's own, which calls the endpoint it is given with a client of its own."""

    fleet = "http"

    def __init__(self, library: str, stubs: Stubs) -> None:
        self._client = httpx.Client()

    def open(self, mesh: Mesh) -> None:
        self._guarded = mesh.guard("payments", headers=lambda headers: headers)(self._ask)

    def _ask(self, headers: Headers) -> str:
        url, timeout = where()
        return named(self._client.get(url, headers=headers, timeout=timeout))

    def call(self, headers: Headers) -> str:
        try:
            return self._guarded(headers)
        except Exception as error:  # noqa: BLE001  the scenario judges it
            return worded(error)

    def close(self) -> None:
        self._client.close()


class AsyncGuardDoor(OnALoop):
    fleet = "http"

    def __init__(self, library: str, stubs: Stubs) -> None:
        super().__init__()
        self._client = httpx.AsyncClient()

    def open(self, mesh: Mesh) -> None:
        self._guarded = mesh.guard("payments", headers=lambda headers: headers)(self._ask)

    async def _ask(self, headers: Headers) -> str:
        url, _ = where()  # the mesh itself ends a coroutine whose time is over
        return named(await self._client.get(url, headers=headers, timeout=None))

    async def acall(self, headers: Headers) -> str:
        try:
            return await self._guarded(headers)
        except Exception as error:  # noqa: BLE001  the scenario judges it
            return worded(error)

    def close(self) -> None:
        self.shut(self._client.aclose())


def where() -> tuple[str, float | None]:
    """The endpoint of this attempt, and the time it has."""
    attempt = current_attempt()
    assert attempt is not None
    return f"http://{attempt.endpoint}/", attempt.remaining()


def named(response: httpx.Response) -> str:
    return str(response.raise_for_status().json()["name"])


def worded(error: Exception) -> str:
    """A guarded function's own exceptions reach its caller; the mesh's have a flag."""
    match error:
        case CallError():
            return error.flag
        case httpx.HTTPStatusError():
            return "bad"
        case httpx.ConnectError():
            return "UF"
        case httpx.TimeoutException():
            return "UT"
    raise error


DOORS: dict[str, Callable[[Stubs], Door]] = {
    "httpx": lambda stubs: HttpDoor("httpx", stubs),
    "httpx-asyncio": lambda stubs: AsyncHttpDoor("httpx", stubs),
    "httpx2": lambda stubs: HttpDoor("httpx2", stubs),
    "httpx2-asyncio": lambda stubs: AsyncHttpDoor("httpx2", stubs),
    "grpc": lambda stubs: GrpcDoor("", stubs),
    "grpc-asyncio": lambda stubs: AioGrpcDoor("", stubs),
    "guard": lambda stubs: GuardDoor("", stubs),
    "guard-asyncio": lambda stubs: AsyncGuardDoor("", stubs),
}

"""Who is compared: each peer opens on a port of the upstream, and can get and put.

`meshlib` carries all policies. The hand-stacked client is what people build without a mesh: httpx, a span per call
(OpenTelemetry SDK, nothing exported), stamina for retries, pybreaker, and limits for the rate.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.topology import ROUTE_TIMEOUT, SERVICE, TENANT, bootstrap, write

HEADERS = dict([TENANT])
IN_FLIGHT = 256  # every peer may have as many connections: none is to wait for one


@dataclass(frozen=True, slots=True)
class AsyncPeer:
    """`get(path)` gives the size of the body; `put(path, body)` sends one."""

    get: Callable[[str], Awaitable[int]]
    put: Callable[[str, bytes], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class SyncPeer:
    """The blocking counterpart."""

    get: Callable[[str], int]


OpenAsync = Callable[[str, AsyncExitStack], Awaitable[AsyncPeer]]
OpenSync = Callable[[str, ExitStack], SyncPeer]


def mesh(url: str, folder: Path) -> Any:
    """A mesh whose service lives at `url`."""
    from meshlib import Mesh

    host, port = url.removeprefix("http://").split(":")
    return Mesh.from_file(write(folder / "mesh.json", bootstrap([(host, int(port))]))).wait_ready()


def inherit_a_deadline() -> None:
    """As if all calls were made while serving a request that came with one."""
    from meshlib.context import CallContext, current

    current.set(CallContext(deadline=time.monotonic() + 3600))


# asyncio


async def by_library(name: str, url: str, stack: AsyncExitStack) -> AsyncPeer:
    """The library with nothing around it."""
    library: Any = importlib.import_module(name)
    limits = library.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    return _of_httpx(await stack.enter_async_context(library.AsyncClient(limits=limits, headers=HEADERS)), url)


async def by_mesh(name: str, folder: Path, url: str, stack: AsyncExitStack) -> AsyncPeer:
    """The library through the mesh."""
    inherit_a_deadline()
    client = mesh(url, folder).http.async_client(library=name, headers=HEADERS)
    return _of_httpx(await stack.enter_async_context(client), f"http://{SERVICE}")


async def by_aiohttp(url: str, stack: AsyncExitStack) -> AsyncPeer:
    """The floor: another library, no policies."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, headers=HEADERS))

    async def get(path: str) -> int:
        async with session.get(url + path) as response:
            return len(await response.read())

    async def put(path: str, body: bytes) -> int:
        async with session.put(url + path, data=body) as response:
            return len(await response.read())

    return AsyncPeer(get, put)


async def by_hand(url: str, stack: AsyncExitStack) -> AsyncPeer:
    """The policies stacked around httpx by hand."""
    bare = await by_library("httpx", url, stack)
    stamina, breaker, allowed, tracer = _hand_tools()

    async def get(path: str) -> int:
        if not allowed():
            raise RuntimeError("limited")
        with tracer.start_as_current_span("GET"):
            async for attempt in stamina.retry_context(on=OSError, attempts=3, timeout=ROUTE_TIMEOUT):
                with attempt, breaker.calling():
                    return await bare.get(path)
        raise AssertionError("retry_context ends by a return or an error")

    return AsyncPeer(get, bare.put)


def _of_httpx(client: Any, url: str) -> AsyncPeer:
    async def get(path: str) -> int:
        return len((await client.get(url + path)).content)

    async def put(path: str, body: bytes) -> int:
        return len((await client.put(url + path, content=body)).content)

    return AsyncPeer(get, put)


# blocking


def sync_by_library(name: str, url: str, stack: ExitStack) -> SyncPeer:
    """The library with nothing around it."""
    client = stack.enter_context(importlib.import_module(name).Client(headers=HEADERS))
    return SyncPeer(lambda path: len(client.get(url + path).content))


def sync_by_mesh(name: str, folder: Path, url: str, stack: ExitStack) -> SyncPeer:
    """The library through the mesh."""
    inherit_a_deadline()
    client = stack.enter_context(mesh(url, folder).http.client(library=name, headers=HEADERS))
    target = f"http://{SERVICE}"
    return SyncPeer(lambda path: len(client.get(target + path).content))


def sync_by_base_url(folder: Path, url: str, stack: ExitStack) -> SyncPeer:
    """The ready client of a service, asked by path: httpx joins and parses the URL for each call."""
    inherit_a_deadline()
    client = stack.enter_context(mesh(url, folder).http.client(SERVICE, headers=HEADERS))
    return SyncPeer(lambda path: len(client.get(path).content))


def sync_by_own_client(folder: Path, url: str, stack: ExitStack) -> SyncPeer:
    """The mesh's transport in an ordinary httpx client, which looks for cookies in each response."""
    import httpx

    inherit_a_deadline()
    transport = mesh(url, folder).http.transport()
    options: dict[str, Any] = {"transport": transport, "headers": HEADERS, "timeout": None}  # as the ready clients
    client = stack.enter_context(httpx.Client(**options))
    return SyncPeer(lambda path: len(client.get(f"http://{SERVICE}{path}").content))


def sync_by_hand(url: str, stack: ExitStack) -> SyncPeer:
    """The policies stacked around httpx by hand."""
    bare = sync_by_library("httpx", url, stack)
    stamina, breaker, allowed, tracer = _hand_tools()

    def get(path: str) -> int:
        if not allowed():
            raise RuntimeError("limited")
        with tracer.start_as_current_span("GET"):
            for attempt in stamina.retry_context(on=OSError, attempts=3, timeout=ROUTE_TIMEOUT):
                with attempt, breaker.calling():
                    return bare.get(path)
        raise AssertionError("retry_context ends by a return or an error")

    return SyncPeer(get)


@lru_cache(maxsize=1)
def _hand_tools() -> tuple[Any, Any, Callable[[], bool], Any]:
    import limits
    import pybreaker
    import stamina
    from opentelemetry.sdk.trace import TracerProvider

    strategy = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    rate = limits.parse("10000000/second")
    tracer = TracerProvider().get_tracer("benchmark")
    return stamina, pybreaker.CircuitBreaker(fail_max=5), lambda: strategy.hit(rate, SERVICE), tracer


def installed(*names: str) -> bool:
    """Whether all of these can be imported."""
    return all(importlib.util.find_spec(name) for name in names)

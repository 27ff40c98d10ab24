"""Who is compared: each peer opens on a port of the upstream, and moves bodies whole and in pieces.

`meshlib` carries all policies, and where it says so a rate limit shared by a Redis as well. The hand-stacked client is
what people build without a mesh: httpx, a span per call (OpenTelemetry SDK, nothing exported), stamina for retries,
pybreaker, and limits for the rate.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.topology import ROUTE_TIMEOUT, SERVICE, TENANT, bootstrap, write

HEADERS = dict([TENANT])
IN_FLIGHT = 256  # every peer may have as many connections: none is to wait for one
PIECE = 16_384  # a streamed upload goes in pieces of this size


@dataclass(frozen=True, slots=True)
class AsyncPeer:
    """All give the size of the response's body: `get(path)` reads it whole and `stream(path)` piece by piece;
    `put(path, body)` sends one whole and `feed(path, body)` piece by piece, its length not known before.
    """

    get: Callable[[str], Awaitable[int]]
    stream: Callable[[str], Awaitable[int]]
    put: Callable[[str, bytes], Awaitable[int]]
    feed: Callable[[str, bytes], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class SyncPeer:
    """The blocking counterpart; `kinds` are calls with more to them than a path."""

    get: Callable[[str], int]
    stream: Callable[[str], int]
    put: Callable[[str, bytes], int]
    feed: Callable[[str, bytes], int]
    kinds: Mapping[str, Callable[[str], object]] = field(default_factory=dict)


OpenAsync = Callable[[str, AsyncExitStack], Awaitable[AsyncPeer]]
OpenSync = Callable[[str, ExitStack], SyncPeer]


def mesh(url: str, folder: Path, redis: str = "") -> Any:
    """A mesh whose service lives at `url`. `redis`: where its clusters share a rate limit; a call fails without it."""
    from meshlib import Mesh

    limits: dict[str, Any] = {}
    if redis:
        from meshlib.policy.shared_limit import SharedRateLimit

        shared = SharedRateLimit("100000000/second", redis, name="shared", on_error="closed", timeout=1.0)
        limits = {"stable": shared, "canary": shared}
    host, port = url.removeprefix("http://").split(":")
    path = write(folder / "mesh.json", bootstrap([(host, int(port))]))
    return Mesh.from_file(path, rate_limits=limits).wait_ready()


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


async def by_mesh(name: str, folder: Path, url: str, stack: AsyncExitStack, redis: str = "") -> AsyncPeer:
    """The library through the mesh."""
    inherit_a_deadline()
    client = mesh(url, folder, redis).http.async_client(library=name, headers=HEADERS)
    return _of_httpx(await stack.enter_async_context(client), f"http://{SERVICE}")


async def by_own_client(folder: Path, url: str, stack: AsyncExitStack) -> AsyncPeer:
    """The mesh's transport in an ordinary httpx client."""
    import httpx

    inherit_a_deadline()
    options: dict[str, Any] = {"headers": HEADERS, "timeout": None}  # as the ready clients
    client = httpx.AsyncClient(transport=mesh(url, folder).http.async_transport(), **options)
    return _of_httpx(await stack.enter_async_context(client), f"http://{SERVICE}")


async def by_aiohttp(url: str, stack: AsyncExitStack) -> AsyncPeer:
    """The floor: another library, no policies."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, headers=HEADERS))

    async def get(path: str) -> int:
        async with session.get(url + path) as response:
            return len(await response.read())

    async def stream(path: str) -> int:
        async with session.get(url + path) as response:
            return sum([len(piece) async for piece in response.content.iter_any()])

    async def put(path: str, body: bytes) -> int:
        async with session.put(url + path, data=body) as response:
            return len(await response.read())

    async def feed(path: str, body: bytes) -> int:
        async with session.put(url + path, data=apieces(body)) as response:
            return len(await response.read())

    return AsyncPeer(get, stream, put, feed)


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

    return AsyncPeer(get, bare.stream, bare.put, bare.feed)


def _of_httpx(client: Any, url: str) -> AsyncPeer:
    async def get(path: str) -> int:
        return len((await client.get(url + path)).content)

    async def stream(path: str) -> int:
        async with client.stream("GET", url + path) as response:
            return sum([len(piece) async for piece in response.aiter_bytes()])

    async def put(path: str, body: bytes) -> int:
        return len((await client.put(url + path, content=body)).content)

    async def feed(path: str, body: bytes) -> int:
        return len((await client.put(url + path, content=apieces(body))).content)

    return AsyncPeer(get, stream, put, feed)


def pieces(body: bytes) -> Iterator[bytes]:
    """A body that is made as it is sent."""
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


async def apieces(body: bytes) -> AsyncIterator[bytes]:
    """The same on asyncio."""
    for piece in pieces(body):
        yield piece


# blocking


def sync_by_library(name: str, url: str, stack: ExitStack) -> SyncPeer:
    """The library with nothing around it."""
    return _sync_of_httpx(stack.enter_context(importlib.import_module(name).Client(headers=HEADERS)), url)


def sync_by_mesh(name: str, folder: Path, url: str, stack: ExitStack, redis: str = "") -> SyncPeer:
    """The library through the mesh."""
    inherit_a_deadline()
    client = mesh(url, folder, redis).http.client(library=name, headers=HEADERS)
    return _sync_of_httpx(stack.enter_context(client), f"http://{SERVICE}")


def sync_by_base_url(folder: Path, url: str, stack: ExitStack) -> SyncPeer:
    """The ready client of a service, asked by path."""
    inherit_a_deadline()
    return _sync_of_httpx(stack.enter_context(mesh(url, folder).http.client(SERVICE, headers=HEADERS)), "")


def sync_by_own_client(folder: Path, url: str, stack: ExitStack) -> SyncPeer:
    """The mesh's transport in an ordinary httpx client, which reads each URL and looks for cookies in each response."""
    import httpx

    inherit_a_deadline()
    options: dict[str, Any] = {"headers": HEADERS, "timeout": None}  # as the ready clients
    client = httpx.Client(transport=mesh(url, folder).http.transport(), **options)
    return _sync_of_httpx(stack.enter_context(client), f"http://{SERVICE}")


def _sync_of_httpx(client: Any, url: str) -> SyncPeer:
    def stream(path: str) -> int:
        with client.stream("GET", url + path) as response:
            return sum(len(piece) for piece in response.iter_bytes())

    return SyncPeer(
        get=lambda path: len(client.get(url + path).content),
        stream=stream,
        put=lambda path, body: len(client.put(url + path, content=body).content),
        feed=lambda path, body: len(client.put(url + path, content=pieces(body)).content),
        kinds={
            "GET": lambda path: client.get(url + path),
            "GET with headers": lambda path: client.get(url + path, headers={"x-request-id": "1"}),
            "GET with parameters": lambda path: client.get(url + path, params={"page": "1"}),
            "POST of JSON": lambda path: client.post(url + path, json={"amount": 1, "currency": "EUR"}),
        },
    )


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

    return SyncPeer(get, bare.stream, bare.put, bare.feed)


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

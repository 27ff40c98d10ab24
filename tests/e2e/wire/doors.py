"""One table of scenarios, both pools: a door sends a request through AsyncPool (asyncio, uvloop) or SyncPool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import uvloop

from meshlib.http.wire import Address, AsyncPool, PoolStats, SyncPool, Timeouts, WireRequest

HOST = (b"Host", b"test")
PATIENT = Timeouts(connect=10.0, read=10.0, write=10.0, pool=10.0)


@dataclass
class Reply:
    """A response read to its end."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]]
    http_version: bytes


def request(
    method: bytes = b"GET", body: Any = None, *headers: tuple[bytes, bytes], target: bytes = b"/"
) -> WireRequest:
    """A request with the framing header its body needs."""
    lines = [HOST, *headers]
    if isinstance(body, bytes):
        lines.append((b"Content-Length", b"%d" % len(body)))
    elif body is not None and not any(name == b"Content-Length" for name, _ in headers):
        lines.append((b"Transfer-Encoding", b"chunked"))
    return WireRequest(method, target, lines, body)


class SyncDoor:
    """SyncPool as it is."""

    kind = "sync"

    def __init__(self, address: Address, **options: Any) -> None:
        self.pool = SyncPool(address, **options)
        self.now = time.monotonic

    def open(self, wanted: WireRequest, timeouts: Timeouts = PATIENT) -> Any:
        return self.pool.send(wanted, timeouts)

    def chunks(self, response: Any) -> Iterator[bytes]:
        return iter(response)

    def close_response(self, response: Any) -> None:
        response.close()

    def body(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        return iter(pieces)

    def stats(self) -> PoolStats:
        return self.pool.stats()

    def drain(self) -> None:
        self.pool.drain()

    def settle(self) -> None:
        """A synchronous pool acts only when called."""

    def close(self) -> None:
        self.pool.close()

    def fetch(self, wanted: WireRequest | None = None, timeouts: Timeouts = PATIENT) -> Reply:
        response = self.open(wanted or request(), timeouts)
        body = b"".join(self.chunks(response))
        return Reply(response.status, response.headers, body, response.trailers, response.http_version)


class AsyncDoor(SyncDoor):
    """AsyncPool on a loop that runs while it is used."""

    kind = "asyncio"
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop

    def __init__(self, address: Address, **options: Any) -> None:
        self.runner = asyncio.Runner(loop_factory=type(self).loop_factory)
        self.now = self.runner.get_loop().time

        async def make() -> AsyncPool:
            return AsyncPool(address, **options)

        self.async_pool = self.runner.run(make())

    def open(self, wanted: WireRequest, timeouts: Timeouts = PATIENT) -> Any:
        return self.runner.run(self.async_pool.send(wanted, timeouts))

    def chunks(self, response: Any) -> Iterator[bytes]:
        async def one() -> bytes | None:
            return await anext(response, None)

        while (data := self.runner.run(one())) is not None:
            yield data

    def close_response(self, response: Any) -> None:
        self.runner.run(response.aclose())

    def body(self, pieces: Iterable[bytes]) -> Any:
        async def generate() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return generate()

    def stats(self) -> PoolStats:
        return self.async_pool.stats()

    def drain(self) -> None:
        self.async_pool.drain()

    def settle(self) -> None:
        """Let the loop see what has happened on its sockets."""
        self.runner.run(asyncio.sleep(0.05))

    def close(self) -> None:
        if self.runner is not None:
            self.runner.run(self.async_pool.aclose())
            self.runner.close()


class UvloopDoor(AsyncDoor):
    """The same on uvloop."""

    kind = "uvloop"
    loop_factory = staticmethod(uvloop.new_event_loop)


DOORS = {door.kind: door for door in (SyncDoor, AsyncDoor, UvloopDoor)}

"""The wire alone: AsyncPool and SyncPool against other clients, a small GET and 1 MB bodies over loopback.

    python -m benchmarks.wire

Client and server have a core each. "raw" is the floor: the same parser and sockets with nothing in between.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import httptools
import httpx
import uvloop

from meshlib.http.wire import Address, AsyncPool, SyncPool, Timeouts, WireRequest

HEADERS = [
    (b"Host", b"127.0.0.1"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip"),
    (b"User-Agent", b"benchmark"),
    (b"Connection", b"keep-alive"),
]
SECONDS = 1.0  # per figure

AsyncFetch = Callable[[bytes], Awaitable[int]]
AsyncClient = Callable[[int], Awaitable[tuple[AsyncFetch, Callable[[], Awaitable[None]]]]]


# The server, a process of its own.

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
ANSWERS = {
    b"/": HEAD + b"content-length: 2\r\n\r\nok",
    b"/1m": HEAD + b"content-length: 1000000\r\n\r\n" + bytes(1_000_000),
    b"/chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"4000\r\n%b\r\n" % bytes(16384) * 61 + b"0\r\n\r\n",
}


class Server(asyncio.Protocol):
    """Answers from memory."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Requests."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """What is asked for."""
        self.url = url

    def on_message_complete(self) -> None:
        """Answer."""
        self.transport.write(ANSWERS[self.url])  # type: ignore[attr-defined]


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# The asyncio clients.


async def by_pool(port: int) -> tuple[AsyncFetch, Callable[[], Awaitable[None]]]:
    pool, now = AsyncPool(Address("127.0.0.1", port)), asyncio.get_running_loop().time

    async def fetch(target: bytes) -> int:
        response = await pool.send(WireRequest(b"GET", target, list(HEADERS)), Timeouts(5, 5, 5, 5, now() + 15))
        return sum([len(chunk) async for chunk in response])

    return fetch, pool.aclose


class Raw(asyncio.Protocol):
    """One connection without a pool's care."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """An answer."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """It begins."""
        self.headers: list[tuple[bytes, bytes]] = []
        self.size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        """A piece of body."""
        self.size += len(data)

    def on_message_complete(self) -> None:
        """It ends."""
        self.done.set_result(None)

    def ask(self, target: bytes) -> asyncio.Future[None]:
        """Send one GET."""
        self.done = asyncio.get_running_loop().create_future()
        lines = b"".join([b"%b: %b\r\n" % header for header in HEADERS])
        self.transport.write(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, lines))  # type: ignore[attr-defined]
        return self.done


async def by_raw(port: int) -> tuple[AsyncFetch, Callable[[], Awaitable[None]]]:
    idle: list[Raw] = []

    async def fetch(target: bytes) -> int:
        conn = idle.pop() if idle else (await asyncio.get_running_loop().create_connection(Raw, "127.0.0.1", port))[1]
        await conn.ask(target)
        idle.append(conn)
        return conn.size

    async def close() -> None:
        for conn in idle:
            conn.transport.close()  # type: ignore[attr-defined]

    return fetch, close


async def by_aiohttp(port: int) -> tuple[AsyncFetch, Callable[[], Awaitable[None]]]:
    session = aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=aiohttp.TCPConnector(limit=100))

    async def fetch(target: bytes) -> int:
        async with session.get(target.decode()) as response:
            return len(await response.read())

    return fetch, session.close


async def by_httpx(port: int) -> tuple[AsyncFetch, Callable[[], Awaitable[None]]]:
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}")

    async def fetch(target: bytes) -> int:
        return len((await client.get(target.decode())).content)

    return fetch, client.aclose


async def measure(client: AsyncClient, port: int) -> list[float]:
    """p50 in microseconds at 1 in flight; requests per second at 32, and of the two large bodies at 1."""
    fetch, close = await client(port)
    await asyncio.gather(*(fetch(b"/") for _ in range(32)))
    end, took = time.perf_counter() + SECONDS, []
    while (began := time.perf_counter()) < end:
        await fetch(b"/")
        took.append(time.perf_counter() - began)
    figures = [statistics.median(took) * 1e6]
    for target, tasks in ((b"/", 32), (b"/1m", 1), (b"/chunked", 1)):
        end = time.perf_counter() + SECONDS
        counts = await asyncio.gather(*(_until(end, fetch, target) for _ in range(tasks)))
        figures.append(sum(counts) / SECONDS)
    await close()
    return figures


async def _until(end: float, fetch: AsyncFetch, target: bytes) -> int:
    count = 0
    while time.perf_counter() < end:
        await fetch(target)
        count += 1
    return count


# The synchronous ones.


def sync_fetches(port: int) -> dict[str, Callable[[], int]]:
    pool, client = SyncPool(Address("127.0.0.1", port)), httpx.Client(base_url=f"http://127.0.0.1:{port}")
    sock = socket.create_connection(("127.0.0.1", port))
    lines = b"GET / HTTP/1.1\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % header for header in HEADERS])

    def by_socket() -> int:
        sock.sendall(lines)
        return len(sock.recv(65536))

    def by_sync_pool() -> int:
        timeouts = Timeouts(5, 5, 5, 5, time.monotonic() + 15)
        return sum(len(chunk) for chunk in pool.send(WireRequest(b"GET", b"/", list(HEADERS)), timeouts))

    return {"raw": by_socket, "SyncPool": by_sync_pool, "httpx": lambda: len(client.get("/").content)}


def median_microseconds(fetch: Callable[[], int]) -> float:
    end, took = time.perf_counter() + SECONDS, []
    while (began := time.perf_counter()) < end:
        fetch()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


def main() -> None:
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.wire", "serve"], stdout=subprocess.PIPE, text=True)
    try:
        port = int((server.stdout or sys.stdin).readline())
        pin(1)
        print(f"{'':22}{'p50 µs':>10}{'32: 1/s':>10}{'1 MB 1/s':>10}{'chunked':>10}")
        for loop, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
            for name, client in (("AsyncPool", by_pool), ("raw", by_raw), ("aiohttp", by_aiohttp), ("httpx", by_httpx)):
                with asyncio.Runner(loop_factory=factory) as runner:
                    figures = runner.run(measure(client, port))
                print(f"{loop + ' ' + name:22}" + "".join(f"{figure:>10.0f}" for figure in figures))
        for name, fetch in sync_fetches(port).items():
            print(f"{'sync ' + name:22}{median_microseconds(fetch):>10.0f}")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        pin(0)
        uvloop.run(serve())
    else:
        main()

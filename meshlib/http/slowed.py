"""Response bodies that a fault lets through slowly (`response_rate_limit` of Envoy's fault filter)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

from meshlib.policy.throttle import INTERVAL, Throttle


def slowly(pieces: Iterable[bytes], rate: int) -> Iterator[bytes]:
    """The pieces at `rate` bytes a second, in smaller ones."""
    throttle = Throttle(rate)
    for piece in pieces:
        left = memoryview(piece)
        while left:
            size = throttle.take(len(left), time.monotonic())
            if size:
                yield bytes(left[:size])
            left = left[size:]
            if left:
                time.sleep(INTERVAL)


async def aslowly(pieces: AsyncIterable[bytes], rate: int) -> AsyncIterator[bytes]:
    """The same on the running event loop."""
    throttle = Throttle(rate)
    async for piece in pieces:
        left = memoryview(piece)
        while left:
            size = throttle.take(len(left), time.monotonic())
            if size:
                yield bytes(left[:size])
            left = left[size:]
            if left:
                await asyncio.sleep(INTERVAL)


class SlowSend:
    """ASGI's `send`, slow."""

    def __init__(self, send: Callable[[Any], Awaitable[None]], rate: int) -> None:
        self._send = send
        self._throttle = Throttle(rate)

    async def __call__(self, message: Any) -> None:
        """Send a message, a body in pieces."""
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        left = memoryview(message.get("body", b""))
        while (size := self._throttle.take(len(left), time.monotonic())) < len(left):
            if size:
                await self._send({"type": "http.response.body", "body": bytes(left[:size]), "more_body": True})
                left = left[size:]
            await asyncio.sleep(INTERVAL)
        await self._send({**message, "body": bytes(left)})


def _nothing() -> None:
    pass


class _Slowed:
    """The body of a response; `done` is told once, when nobody wants any more of it."""

    def __init__(self, body: Any, rate: int, done: Callable[[], None] = _nothing) -> None:
        self._body = body
        self._rate = rate
        self._done = done
        self._told = False

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._done()

    def __del__(self) -> None:
        # A response nobody read and nobody closed.
        self._tell()


class SlowedBody(_Slowed):
    """Of a blocking client, or of a WSGI application."""

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from slowly(self._body, self._rate)
        finally:
            self._tell()

    def close(self) -> None:
        """Done with the body."""
        try:
            self._body.close()
        finally:
            self._tell()


class SlowedAsyncBody(_Slowed):
    """Of an asyncio client."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in aslowly(self._body, self._rate):
                yield piece
        finally:
            self._tell()

    async def aclose(self) -> None:
        """Done with the body."""
        try:
            await self._body.aclose()
        finally:
            self._tell()

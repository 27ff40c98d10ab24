"""The requests of an asyncio call, written by the caller or taken from an iterator, to one attempt after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable
from typing import Any

from grpc import aio

from meshlib.grpc.requests import Copies, Kept

log = logging.getLogger("meshlib")
_ATTEMPT_OVER = (aio.AioRpcError, aio.InternalError, asyncio.InvalidStateError)
_HALF_CLOSED = 'RPC is half closed after calling "done_writing".'
_FINISHED = "RPC already finished."


class RequestWriter:
    """Where requests go. True while the stream can be sent again.

    What has been written is kept, within bounds, and written again to a new attempt before anything new is.
    """

    def __init__(self, serializer: Any) -> None:
        self._serializer = serializer
        self._kept = Kept()
        self._attempt: Any = None  # grpcio's call, once everything kept has been written to it
        self._changed = asyncio.Event()
        self._closed = False
        self._ended = False
        self.copies = Copies()
        self._tasks: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._kept)

    # ------------------------------------------------------------------ for the call

    def attempt(self, call: Any) -> None:
        """A new attempt: write to `call` from now on."""
        self._attempt = None
        if self._kept.items or self._closed:
            self._spawn(self._replay(call))
        else:
            self._turn_to(call)

    def lost(self, call: Any) -> None:
        """That attempt is over, and another one may follow."""
        if self._attempt is call:
            self._attempt = None

    def commit(self) -> None:
        """There will be no other attempt."""
        self._kept.drop()

    def end(self) -> None:
        """The call is over."""
        self._ended = True
        self._kept.drop()
        self._changed.set()
        for task in list(self._tasks):
            task.cancel()

    def consume(self, requests: Any, failed: Callable[[], Any]) -> None:
        """Write what the caller's iterator makes; `failed` is called if it raises."""
        self._spawn(self._consume(requests, failed))

    # ------------------------------------------------------------------ for the caller

    async def write(self, request: Any) -> None:
        """Write one request; returns when the attempt has taken it."""
        if self._ended:
            raise asyncio.InvalidStateError(_FINISHED)
        if self._closed:
            raise asyncio.InvalidStateError(_HALF_CLOSED)
        data = request if self._serializer is None else self._serializer(request)
        attempt = await self._current()
        self._kept.add(data)
        self.copies.keep(data)
        try:
            await attempt.write(data)
        except _ATTEMPT_OVER:
            self.lost(attempt)
            if not self:
                raise
            await self._current()  # the next attempt was given it with the rest

    async def done_writing(self) -> None:
        """No more requests."""
        if self._closed or self._ended:
            return
        self._closed = True
        self.copies.complete()
        if self._attempt is not None:
            await self._attempt.done_writing()

    # ------------------------------------------------------------------ inside

    async def _current(self) -> Any:
        """The attempt to write to; raises once there will be none."""
        while self._attempt is None:
            if self._ended:
                raise asyncio.InvalidStateError(_FINISHED)
            self._changed.clear()
            await self._changed.wait()
        return self._attempt

    def _turn_to(self, call: Any) -> None:
        self._attempt = call
        self._changed.set()

    async def _replay(self, call: Any) -> None:
        position, kept = 0, self._kept.items
        try:
            while position < len(kept):
                await call.write(kept[position])
                position += 1
            self._turn_to(call)
            if self._closed:
                await call.done_writing()
        except _ATTEMPT_OVER as error:
            log.debug("an attempt ended while requests were written to it again: %r", error)

    async def _consume(self, requests: Any, failed: Callable[[], Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self.write(request)
            else:
                for request in requests:
                    await self.write(request)
            await self.done_writing()
        except _ATTEMPT_OVER as error:
            log.debug("the call ended before its requests did: %r", error)
        except Exception:
            log.debug("the iterator of requests raised", exc_info=True)
            failed()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

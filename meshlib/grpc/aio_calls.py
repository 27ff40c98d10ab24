"""The call objects of the asyncio channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Any

import grpc
from grpc import aio

from meshlib.engine.commands import CallInfo
from meshlib.grpc.aio_exchange import AsyncExchange, OneResponse
from meshlib.grpc.aio_requests import RequestWriter
from meshlib.grpc.aio_stream import ManyResponses
from meshlib.grpc.errors import cancelled_error

_MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."


class Call:
    """What every call object has. A task drives the flow; the call shows how it goes."""

    def __init__(self, exchange: AsyncExchange, loop: asyncio.AbstractEventLoop) -> None:
        self._exchange: Any = exchange
        self._task = loop.create_task(exchange.run())

    @property
    def meshlib(self) -> CallInfo | None:
        """What the mesh did with the call, once a response is its own."""
        info: CallInfo | None = self._exchange.info
        return info

    def cancel(self) -> bool:
        """Cancel the attempt under way and whatever would follow; False when it is over already."""
        if self._task.cancel():
            self._exchange.cancelled = True
            return True
        return False

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        cancelled: bool = self._exchange.cancelled or self._task.cancelled()
        return cancelled

    def done(self) -> bool:
        """Whether it is over."""
        return self._task.done()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(call)` when it is over."""
        self._task.add_done_callback(partial(_call_back, callback, self))

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline."""
        left: float | None = self._exchange.time_remaining()
        return left

    async def initial_metadata(self) -> Any:
        """The initial metadata of the attempt that counts; waits until there is some."""
        failed = await self._begun()
        if failed is not None:
            return failed.initial_metadata()
        exchange = self._exchange
        return await exchange.call.initial_metadata() if exchange.metadata is None else exchange.metadata

    async def trailing_metadata(self) -> Any:
        """The trailing metadata; waits for the end, as everything below."""
        failed = await self._ended()
        return await self._exchange.call.trailing_metadata() if failed is None else failed.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """The status."""
        failed = await self._ended()
        return grpc.StatusCode.OK if failed is None else failed.code()

    async def details(self) -> str:
        """The status in words."""
        failed = await self._ended()
        said: str = await self._exchange.call.details() if failed is None else failed.details()
        return said

    async def debug_error_string(self) -> str:
        """Grpcio's own words about the attempt that counted."""
        failed = await self._ended()
        said: str = await self._exchange.call.debug_error_string() if failed is None else failed.debug_error_string()
        return said

    async def wait_for_connection(self) -> None:
        """Wait until an attempt counts; raises the error of a call that failed."""
        failed = await self._begun()
        if failed is not None:
            if self.cancelled():
                raise asyncio.CancelledError
            raise failed

    async def _begun(self) -> Any:
        """Wait until an attempt counts. The error, if none ever will. To wait here is not to own the call: whoever is
        cancelled meanwhile does not cancel it.
        """
        if not self._task.done():
            await asyncio.wait((self._task,))
        return cancelled_error("aio") if self._task.cancelled() else self._exchange.error

    async def _ended(self) -> Any:
        """Wait for the end. The error, if it failed."""
        return await self._begun()


class UnaryResponse(Call):
    """A call with one response. Whoever awaits it first carries it on; if nobody does, a task of its own."""

    _exchange: OneResponse

    def __init__(self, exchange: OneResponse, loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._loop = loop
        self._own: asyncio.Task[None] | None = None
        self._attended = False
        if not exchange.begin(self._unattended):
            self._alone()

    def __await__(self) -> Generator[Any, None, Any]:
        """The response, or the error."""
        exchange = self._exchange
        if not self._attended and self._own is None and not exchange.settled:
            self._attended = True
            yield from exchange.attended().__await__()
            self._attended = False
        if not exchange.settled:
            yield from (self._settled() if self._attended else self._alone())
        if exchange.cancelled:
            raise asyncio.CancelledError
        if exchange.error is not None:
            raise exchange.error
        return exchange.response

    def cancel(self) -> bool:
        """Cancel the attempt under way and whatever would follow; False when it is over already."""
        exchange = self._exchange
        if exchange.settled:
            return False
        exchange.cancelled = True
        if self._own is not None:
            self._own.cancel()
        else:
            exchange.call.cancel()
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        cancelled: bool = self._exchange.cancelled
        return cancelled

    def done(self) -> bool:
        """Whether it is over."""
        return self._exchange.settled

    def loop_closed(self) -> bool:
        """Whether the event loop it ran on is closed, so that nothing will come of it any more."""
        return self._loop.is_closed()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(call)` when it is over."""
        if self._exchange.settled:
            callback(self)
        else:
            self._exchange.when_over(partial(callback, self))

    async def _begun(self) -> Any:
        exchange = self._exchange
        if not exchange.settled:
            if self._attended or self._own is not None:
                await self._settled()
            else:
                await asyncio.wait((self._alone(),))
        return cancelled_error("aio") if exchange.cancelled else exchange.error

    def _settled(self) -> asyncio.Future[None]:
        """The end, for those who only wait for it."""
        settled = self._loop.create_future()
        self._exchange.when_over(partial(_set, settled))
        return settled

    def _unattended(self, call: Any) -> None:
        """An attempt has its status; unless somebody awaits the call, nobody would go on."""
        if not self._attended and self._own is None:
            self._alone()

    def _alone(self) -> asyncio.Task[None]:
        """The task that carries the call on."""
        if self._own is None:
            self._own = self._loop.create_task(self._exchange.rest())
            self._own.add_done_callback(self._exchange.driven)
        return self._own


class StreamResponse(Call):
    """A call with a stream of responses. Letting go of it cancels it, as with grpcio's own."""

    _exchange: ManyResponses
    _iterator: AsyncIterator[Any] | None = None
    _iterated: bool | None = None

    def __init__(self, exchange: ManyResponses, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(exchange, loop)
        self._task.add_done_callback(exchange.driven)

    def __del__(self) -> None:
        if not self.done():
            with contextlib.suppress(RuntimeError):  # the loop has gone before it
                self.cancel()

    def cancel(self) -> bool:
        """Cancel the attempt under way and whatever would follow; False when it is over already."""
        exchange = self._exchange
        if exchange.ended.is_set():
            return False
        exchange.cancelled = True
        if not self._task.cancel():
            exchange.call.cancel()
        return True

    def done(self) -> bool:
        """Whether it is over."""
        return self._exchange.ended.is_set()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(call)` when it is over."""
        if self.done():
            callback(self)
        else:
            self._exchange.when_over(partial(callback, self))

    def __aiter__(self) -> AsyncIterator[Any]:
        self._one_style(True)
        if self._iterator is None:
            self._iterator = self._messages()
        return self._iterator

    async def read(self) -> Any:
        """The next message, aio.EOF at the end; raises the call's error."""
        self._one_style(False)
        return await self._read()

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self._read()) is not aio.EOF:
            yield message

    async def _read(self) -> Any:
        if not self._task.done():
            await self._begun_by(self._task)
        if self._task.cancelled() or self._exchange.cancelled:
            raise asyncio.CancelledError
        return await self._exchange.read()

    async def _begun_by(self, task: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            self.cancel()  # to read is to own the call, as in grpcio
            raise

    async def _ended(self) -> Any:
        """Wait for the end. The error, if it failed."""
        failed = await self._begun()
        if failed is None:
            await self._exchange.ended.wait()
            failed = self._exchange.error
        return failed

    def _one_style(self, iterated: bool) -> None:
        if self._iterated is None:
            self._iterated = iterated
        elif self._iterated is not iterated:
            raise aio.UsageError(_MIXED)


class StreamRequest(Call):
    """A call with a stream of requests: an iterator of the caller's, or `write`."""

    _writer: RequestWriter
    _given: Any

    def take(self, writer: RequestWriter, requests: Any) -> None:
        """Where the requests come from: `requests`, or, when that is None, `write`."""
        self._writer = writer
        self._given = requests
        if requests is not None:
            writer.consume(requests, self.cancel)

    async def write(self, request: Any) -> None:
        """Write one request; returns when the attempt has taken it."""
        self._written()
        try:
            await self._writer.write(request)
        except asyncio.CancelledError:
            self.cancel()
            raise
        except (aio.AioRpcError, aio.InternalError, asyncio.InvalidStateError):
            failed = await self._ended() if self.done() else None
            if failed is not None:
                raise failed from None
            raise

    async def done_writing(self) -> None:
        """No more requests."""
        self._written()
        await self._writer.done_writing()

    def _written(self) -> None:
        if self._given is not None:
            raise aio.UsageError(_MIXED)


class UnaryUnaryCall(UnaryResponse, aio.UnaryUnaryCall):  # type: ignore[misc]  # grpcio ships no types
    """One request, one response. Dropped without being awaited it still runs to its end, as grpcio's does."""


class UnaryStreamCall(StreamResponse, aio.UnaryStreamCall):  # type: ignore[misc]  # grpcio ships no types
    """One request, a stream of responses."""


class StreamUnaryCall(StreamRequest, UnaryResponse, aio.StreamUnaryCall):  # type: ignore[misc]  # grpcio ships no types
    """A stream of requests, one response."""


class StreamStreamCall(StreamRequest, StreamResponse, aio.StreamStreamCall):  # type: ignore[misc]  # grpcio ships no types
    """A stream of requests, a stream of responses."""


def _set(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)


def _call_back(callback: Callable[[Any], None], call: Any, task: asyncio.Task[None]) -> None:
    callback(call)

"""The attempts of an asyncio call with a stream of responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grpc import StatusCode, aio

from meshlib.engine.commands import Commit, Start
from meshlib.errors import ConfigurationError
from meshlib.grpc.aio_exchange import AsyncExchange
from meshlib.grpc.errors import cancelled_error, stream_exception
from meshlib.grpc.exchange import Asked, unusable
from meshlib.grpc.load_reports import take_trailers, wants_trailers
from meshlib.grpc.metadata import received
from meshlib.grpc.multicallable import Method
from meshlib.grpc.outcome import DEADLINE_EXCEEDED, AttemptError, answered, failed
from meshlib.grpc.subchannels import SubChannel
from meshlib.model.outcome import GRPC_STATUS_PENDING, Failure, Outcome

if TYPE_CHECKING:
    from meshlib.grpc.aio_channel import AsyncMeshChannel

GRACE = 0.02
"""Seconds that the status of a call without a response takes at most after its (empty) initial metadata: both are in
one frame, and were always there together when measured."""
_UNREAD: Any = object()


class ManyResponses(AsyncExchange):
    """A call with a stream of responses. An attempt counts from its first message, or its initial metadata.

    grpcio shows empty initial metadata and none at all as the same thing, so after those the status is waited for, for
    as long as it takes when there is nothing else to come.
    """

    __slots__ = ("_callbacks", "_first", "_heard", "_silence", "_start", "_subchannel", "_tasks", "_timed_out", "ended")
    responses = True

    def __init__(self, core: AsyncMeshChannel, method: Method, requests: Any, asked: Asked) -> None:
        super().__init__(core, method, requests, asked)
        self.ended = asyncio.Event()
        self._first: Any = _UNREAD
        self._start: Start | None = None
        self._subchannel: SubChannel | None = None
        self._heard = 0.0
        self._silence: asyncio.TimerHandle | None = None
        self._timed_out: Failure | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------------ attempts

    async def attempt(self, start: Start) -> Outcome:
        """One attempt, up to the beginning of its response."""
        try:
            subchannel = self.core.enter(start)
        except ConfigurationError as error:
            return unusable(error)
        begun, self._first = False, _UNREAD
        call = self._begin(self.method.on(subchannel), self.options(start, streams=True))
        try:
            outcome = await self._response(call, start)
            begun = outcome.grpc_status == GRPC_STATUS_PENDING
            if begun:
                self._start, self._subchannel = start, subchannel
            return outcome
        finally:
            if not begun:
                call.cancel()
                self._lost(call)
                subchannel.leave(start)

    async def _response(self, call: Any, start: Start) -> Outcome:
        seconds, failure = _patience(start)
        try:
            async with asyncio.timeout(seconds):
                metadata = await call.initial_metadata()
                if not metadata and (ended := await self._at_once(call)) is not None:
                    return ended
        except TimeoutError:
            return _cut_off(failure)
        except aio.AioRpcError as error:
            return failed(error, start.host.endpoint.targets[0], self.out_of_time())
        return answered(received(metadata), GRPC_STATUS_PENDING, call)

    async def _at_once(self, call: Any) -> Outcome | None:
        """The outcome of a call that ended without a message; None when one came, or is being waited for."""
        self._first = first = asyncio.ensure_future(call.read())
        await asyncio.wait((first,), timeout=GRACE)
        if not first.done() or first.result() is not aio.EOF:  # raises the error of a call that failed
            return None
        return answered(None, response=call)

    def committed(self, commit: Commit) -> None:
        """The attempt's stream is the call's; where it has ended already, so has the call."""
        outcome = commit.outcome
        if outcome.grpc_status == GRPC_STATUS_PENDING:
            self._watch_silence()
            self.call.add_done_callback(self._done)
            return
        self.finish()
        if outcome.error is not None:
            self.error = outcome.response
            self.error.meshlib = commit.info
        self.over()

    async def pass_through(self, call: Any) -> None:
        """The stream of a plain channel."""
        call.add_done_callback(self._done)

    # ------------------------------------------------------------------ the end

    def over(self) -> None:
        """The call is over."""
        super().over()
        if self._silence is not None:
            self._silence.cancel()
        self.ended.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call it when the call is over."""
        self._callbacks.append(callback)

    def _done(self, call: Any) -> None:
        """The stream has its status; to read it takes a task, though not time."""
        if self._subchannel is not None:
            self._subchannel.leave(self._start)
        task = asyncio.get_running_loop().create_task(self._settle(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, call: Any) -> None:
        try:
            code = await call.code()
            if self._start is not None and wants_trailers(self._start):
                take_trailers(self._start, await call.trailing_metadata())
            if code is StatusCode.OK:
                self.finish(None, 0)
            elif self.cancelled:
                self.finish(Failure.LOCAL)
                self.error = cancelled_error("aio")
            else:
                self._broken(await _error_of(call, code))
        finally:
            self.over()

    def _broken(self, error: Any) -> None:
        start = self._start
        if start is None:  # outside the mesh
            self.error = error
            return
        if self._timed_out is not None:
            outcome = _cut_off(self._timed_out)
        else:
            outcome = failed(error, start.host.endpoint.targets[0], self.out_of_time())
        self.finish(outcome.failure, outcome.grpc_status)
        self.error = stream_exception(outcome, self.info, "aio")

    def _watch_silence(self) -> None:
        start = self._start
        if start is not None and start.idle is not None:
            self._heard = time.monotonic()
            self._silence = asyncio.get_running_loop().call_later(start.idle.seconds, self._too_silent, start.idle)

    def _too_silent(self, idle: Any) -> None:
        left = self._heard + idle.seconds - time.monotonic()
        if left > 0:
            self._silence = asyncio.get_running_loop().call_later(left, self._too_silent, idle)
        else:
            self._timed_out = idle.failure
            self.call.cancel()

    # ------------------------------------------------------------------ reading

    async def read(self) -> Any:
        """The next message, aio.EOF at the end; raises the call's error."""
        if self.error is None:
            try:
                message = await self._next()
                if message is aio.EOF:
                    await self.ended.wait()
            except aio.AioRpcError:
                await self.ended.wait()
            except asyncio.CancelledError:
                if self._timed_out is None:
                    self.cancelled = True  # to read is to own the call: grpcio has cancelled it with its reader
                    raise
                await self.ended.wait()
            else:
                self._heard = time.monotonic()
                return message
        if self.error is not None:
            raise self.error
        return aio.EOF

    async def _next(self) -> Any:
        first, self._first = self._first, _UNREAD
        return await (self.call.read() if first is _UNREAD else first)


def _patience(start: Start) -> tuple[float | None, Failure]:
    """Seconds to wait for the response at most, and what it means to wait in vain. The call's own deadline is grpcio's
    to keep.
    """
    now = time.monotonic()
    own = start.deadline if start.deadline is not start.final_deadline else None
    if start.idle is not None and (own is None or now + start.idle.seconds < own):
        return start.idle
    return None if own is None else own - now, start.on_deadline


def _cut_off(failure: Failure) -> Outcome:
    return Outcome(failure=failure, error=AttemptError(DEADLINE_EXCEEDED, "Deadline Exceeded"))


async def _error_of(call: Any, code: StatusCode) -> Any:
    """A finished call's status, as grpcio would raise it."""
    return aio.AioRpcError(
        code,
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
        await call.debug_error_string(),
    )

"""The attempts of asyncio calls: the driver's wires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from grpc import aio

from meshlib.drivers.aio import drive
from meshlib.drivers.resumed import Resumed
from meshlib.engine.commands import CallInfo, Command, Commit, Fail, Flow, Mirror, PassThrough, Reply, Start, abandon
from meshlib.errors import ConfigurationError
from meshlib.grpc.aio_direct import DirectCall, DirectMethod
from meshlib.grpc.aio_requests import RequestWriter
from meshlib.grpc.errors import exception_for, reply_exception
from meshlib.grpc.exchange import Asked, Exchange, initial_metadata, unusable
from meshlib.grpc.load_reports import take_trailers, wants_trailers
from meshlib.grpc.metadata import received
from meshlib.grpc.mirror import begin_aio
from meshlib.grpc.multicallable import Method
from meshlib.grpc.outcome import answered, failed
from meshlib.grpc.subchannels import SubChannel
from meshlib.model.outcome import Outcome

if TYPE_CHECKING:
    from meshlib.grpc.aio_channel import AsyncMeshChannel


class AsyncExchange(Exchange):
    """A call that a task drives. How it ended is kept, not raised: nobody may ever ask.

    `call` is grpcio's of the attempt that counts, `error` what the call failed with. `requests` is a message, or a
    `RequestWriter`.
    """

    __slots__ = ("__weakref__", "call", "cancelled", "error", "info", "metadata", "method", "requests")
    core: AsyncMeshChannel

    def __init__(self, core: AsyncMeshChannel, method: Method, requests: Any, asked: Asked) -> None:
        writer = requests if isinstance(requests, RequestWriter) else True
        super().__init__(core, method.path, asked, writer)
        self.method = method
        self.requests = requests
        self.call: Any = None
        self.error: Any = None
        self.info: CallInfo | None = None
        self.metadata: Any = None
        self.cancelled = False

    async def run(self, flow: Flow | None = None) -> None:
        """Drive the flow to its end, or to its commit."""
        try:
            match await drive(flow or self.flow, self, self.core.mesh):
                case Commit() as commit:
                    self._committed(commit)
                case Reply() as reply:
                    self.info = reply.info
                    self._failed(reply_exception(reply, "aio"))
                case Fail() as fail:
                    self._failed(exception_for(fail, "aio"))
                case PassThrough():
                    self.flow.close()
                    await self.pass_through(self._begin(self.core.fallback_call(self.method), self.asked._asdict()))
        except BaseException as raised:
            self._dropped(raised)
            raise

    async def attempt(self, start: Start) -> Outcome:
        """One attempt."""
        raise NotImplementedError

    async def apart(self, start: Start) -> Outcome:
        """One of several attempts, where the call can have several (`RequestHead.overlaps`)."""
        raise NotImplementedError

    def driven(self, task: asyncio.Task[None]) -> None:
        """The task has ended, perhaps cancelled before it ever ran."""
        if task.cancelled():
            self.cancelled = True
            self.over()

    async def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Nothing to drop: what is retried had no response, or only an error."""

    def mirror(self, mirror: Mirror) -> None:
        """Begin a copy of the call."""
        begin_aio(self, self.method, mirror, self.requests)

    async def pass_through(self, call: Any) -> None:
        """The mesh has no part in this call: it goes on over a plain channel."""
        raise NotImplementedError

    def committed(self, commit: Commit) -> None:
        """A response is the call's."""
        raise NotImplementedError

    def over(self) -> None:
        """The call is over."""
        if isinstance(self.requests, RequestWriter):
            self.requests.end()

    def _committed(self, commit: Commit) -> None:
        self.info = commit.info
        if isinstance(self.requests, RequestWriter):
            self.requests.commit()
        if commit.headers is not None:
            self.metadata = aio.Metadata(*initial_metadata(commit, ()))
        self.committed(commit)

    def _dropped(self, raised: BaseException) -> None:
        """The call was given up: cancelled, as a rule."""
        self.cancelled = self.cancelled or isinstance(raised, asyncio.CancelledError)
        self.over()

    def _failed(self, error: Any) -> None:
        self.flow.close()
        self.error = error
        self.over()

    def _begin(self, multicallable: Any, options: dict[str, Any]) -> Any:
        """An attempt's call, with the requests on their way."""
        if isinstance(self.requests, RequestWriter):
            call = self.call = multicallable(**options)
            self.requests.attempt(call)
        else:
            call = self.call = multicallable(self.requests, **options)
        return call

    def _lost(self, call: Any) -> None:
        if isinstance(self.requests, RequestWriter):
            self.requests.lost(call)


class OneResponse(AsyncExchange):
    """A call with one response.

    Its first attempt begins at once; whoever awaits the response carries the flow on, which saves most calls a task of
    their own and a turn of the loop.
    """

    __slots__ = ("_apart", "_callbacks", "_command", "_entered", "_plain", "response", "settled")

    def __init__(self, core: AsyncMeshChannel, method: Method, requests: Any, asked: Asked) -> None:
        super().__init__(core, method, requests, asked)
        self.response: Any = None
        self.settled = False
        self._callbacks: tuple[Callable[[], None], ...] = ()
        self._command: Command | None = None
        self._entered: SubChannel | None = None
        self._apart: dict[Outcome, Any] = {}
        self._plain = (
            asked.credentials is None
            and asked.wait_for_ready is None
            and asked.compression is None
            and core.compression is None
            and not isinstance(requests, RequestWriter)
        )

    def begin(self, ended: Callable[[Any], None]) -> bool:
        """Take the first step; `ended` is called when its attempt has a status. False when the step is another one."""
        command = self._command = next(self.flow)
        if not isinstance(command, Start):
            return False
        try:
            self._enter(command)
        except ConfigurationError:
            return False
        self.call.add_done_callback(ended)
        return True

    async def attended(self) -> None:
        """See the first attempt through. The call is settled then, unless it takes more: then `rest` goes on."""
        try:
            outcome = await self.attempt(cast("Start", self._command))
            outcome.at = time.monotonic()
            command = self._command = self.flow.send(outcome)
            if isinstance(command, Commit):
                self._committed(command)
        except BaseException as raised:
            abandon(self.flow, time.monotonic())
            self._dropped(raised)
            raise

    async def rest(self) -> None:
        """Drive the flow from where it is."""
        flow = self.flow if self._command is None else Resumed(self.flow, self._command)
        await self.run(flow)

    async def attempt(self, start: Start) -> Outcome:
        """One attempt, to its end."""
        subchannel = self._entered
        try:
            if subchannel is None:
                subchannel = self._enter(start)
            call = self.call
            response = await call
            if wants_trailers(start):
                take_trailers(start, await call.trailing_metadata())
            headers = call.headers() if isinstance(call, DirectCall) else received(await call.initial_metadata())
            return answered(headers, response=response)
        except ConfigurationError as error:
            return unusable(error)
        except aio.AioRpcError as error:
            self._lost(self.call)
            take_trailers(start, error.trailing_metadata())
            return failed(error, start.host.endpoint.targets[0], self.out_of_time())
        finally:
            self._entered = None
            if subchannel is not None:
                subchannel.leave(start)

    async def apart(self, start: Start) -> Outcome:
        """One of several attempts, to its end; which call it was is kept until one of them counts."""
        try:
            subchannel = self.core.enter(start)
        except ConfigurationError as error:
            return unusable(error)
        call = self._begin(self.method.on(subchannel), self.options(start))
        try:
            response = await call
            if wants_trailers(start):
                take_trailers(start, await call.trailing_metadata())
            outcome = answered(received(await call.initial_metadata()), response=response)
        except aio.AioRpcError as error:
            take_trailers(start, error.trailing_metadata())
            outcome = failed(error, start.host.endpoint.targets[0], self.out_of_time())
        finally:
            call.cancel()  # which does nothing to a call that is over
            subchannel.leave(start)
        self._apart[outcome] = call
        return outcome

    def committed(self, commit: Commit) -> None:
        """The response, or an error of the server."""
        self.finish()
        outcome = commit.outcome
        self.call = self._apart.pop(outcome, self.call)
        self._apart.clear()
        if outcome.error is None:
            self.response = outcome.response
        else:
            self.error = outcome.response
            self.error.meshlib = commit.info
        self.over()

    async def pass_through(self, call: Any) -> None:
        """The response of a plain channel."""
        try:
            self.response = await call
        except aio.AioRpcError as error:
            self.error = error
        self.over()

    def over(self) -> None:
        """The call is over."""
        super().over()
        self.settled = True
        self.core.forget(self)
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, ()
            for callback in callbacks:
                callback()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call it when the call is over."""
        self._callbacks = (*self._callbacks, callback)

    def _enter(self, start: Start) -> SubChannel:
        subchannel = self._entered = self.core.enter(start)
        if self._plain and not wants_trailers(start):
            direct = self.method.directly_on(subchannel, DirectMethod)
            if direct is not None:
                self.call = direct.begin(self.requests, *self.particulars(start))
                if self.call is not None:
                    return subchannel
        self._begin(self.method.on(subchannel), self.options(start))
        return subchannel

"""The attempts of asyncio calls: the driver's wires."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc import aio

from meshlib.drivers.aio import drive
from meshlib.engine.commands import CallInfo, Commit, Fail, PassThrough, Reply, Start
from meshlib.errors import ConfigurationError
from meshlib.grpc.aio_requests import RequestWriter
from meshlib.grpc.errors import exception_for, reply_exception
from meshlib.grpc.exchange import Asked, Exchange, initial_metadata, unusable
from meshlib.grpc.multicallable import Method
from meshlib.grpc.outcome import answered, failed, single
from meshlib.model.outcome import Outcome

if TYPE_CHECKING:
    from meshlib.grpc.aio_channel import AsyncMeshChannel


class AsyncExchange(Exchange):
    """A call that a task drives. How it ended is kept, not raised: nobody may ever ask.

    `call` is grpcio's of the attempt that counts, `error` what the call failed with. `requests` is a message, or a
    `RequestWriter`.
    """

    __slots__ = ("__weakref__", "_tasks", "call", "cancelled", "error", "info", "metadata", "method", "requests")
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
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Drive the flow to its end, or to its commit."""
        try:
            match await drive(self.flow, self, self.core.mesh):
                case Commit() as commit:
                    self.info = commit.info
                    self._committed(commit)
                case Reply() as reply:
                    self.info = reply.info
                    self._failed(reply_exception(reply, "aio"))
                case Fail() as fail:
                    self._failed(exception_for(fail, "aio"))
                case PassThrough():
                    self.flow.close()
                    await self.pass_through(self._begin(self.core.fallback_call(self.method), self.asked._asdict()))
        except BaseException:
            self.over()
            raise

    async def attempt(self, start: Start) -> Outcome:
        """One attempt."""
        raise NotImplementedError

    def driven(self, task: asyncio.Task[None]) -> None:
        """The task has ended, perhaps cancelled before it ever ran."""
        if task.cancelled():
            self.over()

    async def discard(self, outcome: Outcome) -> None:
        """Nothing to drop: what is retried had no response, or only an error."""

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
        if isinstance(self.requests, RequestWriter):
            self.requests.commit()
        if commit.headers is not None:
            self.metadata = aio.Metadata(*initial_metadata(commit, ()))
        self.committed(commit)

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

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lost(self, call: Any) -> None:
        if isinstance(self.requests, RequestWriter):
            self.requests.lost(call)


class OneResponse(AsyncExchange):
    """A call with one response."""

    __slots__ = ("response",)

    def __init__(self, core: AsyncMeshChannel, method: Method, requests: Any, asked: Asked) -> None:
        super().__init__(core, method, requests, asked)
        self.response: Any = None

    async def attempt(self, start: Start) -> Outcome:
        """One attempt, to its end."""
        try:
            subchannel = self.core.enter(start)
        except ConfigurationError as error:
            return unusable(error)
        try:
            call = self._begin(self.method.on(subchannel), self.options(start))
            return answered(None, response=await call)
        except aio.AioRpcError as error:
            self._lost(self.call)
            return single(failed(error, start.host.endpoint.address, self.out_of_time()))
        finally:
            subchannel.leave(start)

    def committed(self, commit: Commit) -> None:
        """The response, or an error of the server."""
        outcome = commit.outcome
        self.finish_single(outcome)
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

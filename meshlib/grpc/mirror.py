"""Copies of gRPC calls. The kind of a call does not show on the wire: every copy is a stream of requests, serialized
already, and a stream of responses, read and dropped.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio as grpc_aio

from meshlib.drivers import aio, sync
from meshlib.engine.call import mirror_flow
from meshlib.engine.commands import Commit, Mirror, Start
from meshlib.errors import ConfigurationError
from meshlib.grpc.exchange import Asked, Exchange, unusable
from meshlib.grpc.multicallable import Method
from meshlib.grpc.outcome import answered, failed
from meshlib.grpc.requests import UNSERIALIZABLE, Copies, Send, serialized
from meshlib.model.outcome import Failure, Outcome

if TYPE_CHECKING:
    from meshlib.mesh import Mesh


class _Copy(Exchange):
    """A copy's exchange: of the call it is a copy of it has the channel, and how that was asked for."""

    __slots__ = ("call", "method", "requests")

    def __init__(self, original: Exchange, method: Method, mirror: Mirror, requests: Sequence[bytes]) -> None:
        # Not `Exchange.__init__`: what it finds out is decided for a copy.
        asked = original.asked
        self.core, self.binary, self.head = original.core, original.binary, original.head
        self.asked = Asked(None, None, asked.credentials, asked.wait_for_ready, asked.compression)
        self.deadline, self.limit, self.on_limit = None, None, Failure.TIMEOUT
        self.began = time.monotonic()
        self.flow = mirror_flow(original.core.mesh.runtime, mirror, self.began)
        self.method = method.as_copies
        self.requests = requests
        self.call: Any = None

    def mirror(self, mirror: Mirror) -> None:
        """A copy has no copies."""


class BlockingCopy(_Copy):
    """A copy on a thread."""

    __slots__ = ("_cancelled",)

    def __init__(self, original: Exchange, method: Method, mirror: Mirror, requests: Sequence[bytes]) -> None:
        super().__init__(original, method, mirror, requests)
        self._cancelled = False

    def run(self) -> None:
        """Send it, and read its response to the end."""
        if self._cancelled:
            self.flow.close()
            return
        terminal = sync.drive(self.flow, self, self.core.mesh)
        if isinstance(terminal, Commit):
            self.finish_single(terminal.outcome)
        else:
            self.flow.close()

    def cancel(self) -> None:
        """Give it up."""
        self._cancelled = True
        call = self.call
        if call is not None:
            call.cancel()

    def attempt(self, start: Start) -> Outcome:
        """The call, to its end."""
        core: Any = self.core
        try:
            subchannel = core.enter(start)
        except ConfigurationError as error:
            return unusable(error)
        try:
            self.call = self.method.on(subchannel)(iter(self.requests), **self.options(start, streams=True))
            if self._cancelled:
                self.call.cancel()
            for _ in self.call:
                pass
            return answered(None, response=self.call)
        except grpc.RpcError as error:
            return failed(error, start.host.endpoint.targets[0], self.out_of_time())
        finally:
            subchannel.leave(start)

    def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Nothing to drop: the response has been read."""


class AsyncCopy(_Copy):
    """A copy on an event loop."""

    __slots__ = ()

    async def run(self) -> None:
        """Send it, and read its response to the end."""
        terminal = await aio.drive(self.flow, self, self.core.mesh)
        if isinstance(terminal, Commit):
            self.finish_single(terminal.outcome)
        else:
            self.flow.close()

    async def attempt(self, start: Start) -> Outcome:
        """The call, to its end."""
        core: Any = self.core
        try:
            subchannel = core.enter(start)
        except ConfigurationError as error:
            return unusable(error)
        call = None
        try:
            call = self.method.on(subchannel)(self._each(), **self.options(start, streams=True))
            async for _ in call:
                pass
            return answered(None, response=call)
        except grpc_aio.AioRpcError as error:
            return failed(error, start.host.endpoint.targets[0], self.out_of_time())
        finally:
            if call is not None:
                call.cancel()
            subchannel.leave(start)

    async def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Nothing to drop: the response has been read."""

    async def _each(self) -> AsyncIterator[bytes]:
        for request in self.requests:
            yield request


def begin_blocking(original: Exchange, method: Method, mirror: Mirror, requests: Any) -> None:
    """Have a copy of a blocking call sent: at once, or when the stream of its requests has ended."""

    def send(items: Sequence[bytes]) -> None:
        if not _mesh(original).mirrors.on_thread(BlockingCopy(original, method, mirror, items)):
            mirror.overflow()

    _when_whole(method, mirror, requests, send)


def begin_aio(original: Exchange, method: Method, mirror: Mirror, requests: Any) -> None:
    """The same for a call on the running event loop."""

    def send(items: Sequence[bytes]) -> None:
        def run() -> Any:
            return AsyncCopy(original, method, mirror, items).run()

        if not _mesh(original).mirrors.on_loop(run):
            mirror.overflow()

    _when_whole(method, mirror, requests, send)


def _when_whole(method: Method, mirror: Mirror, requests: Any, send: Send) -> None:
    copies: Copies | None = getattr(requests, "copies", None)
    if copies is not None:
        copies.add(mirror, send)
        return
    data = serialized(requests, method.serializer)
    if data is not UNSERIALIZABLE:  # of which the call itself will tell
        send([data])


def _mesh(original: Exchange) -> Mesh:
    return original.core.mesh

"""The asyncio transport, for httpx and httpx2 alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from meshlib.drivers.aio import drive
from meshlib.engine.commands import CallInfo, Commit, Fail, Mirror, PassThrough, Reply, Start
from meshlib.http.errors import check_host
from meshlib.http.exchange import Exchange
from meshlib.http.library import Library
from meshlib.http.mirror import AsyncKeptBody, send_copy
from meshlib.http.pools import PoolRegistry
from meshlib.http.slowed import SlowedAsyncBody
from meshlib.http.trace import TracedAsyncBody
from meshlib.http.transport import TransportCore
from meshlib.http.wire import AsyncPool
from meshlib.http.wire.types import FailureKind, WireError
from meshlib.model.outcome import Outcome

if TYPE_CHECKING:
    from meshlib.identity.upstream import Upstreams
    from meshlib.mesh import Mesh


class AsyncBody:
    """The response body as the library streams it; closing it early gives the connection up."""

    def __init__(self, exchange: Exchange, response: Any, info: CallInfo) -> None:
        self._exchange = exchange
        self._response = response
        self._info = info

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response:
                yield chunk
        except WireError as error:
            raise self._exchange.body_error(error, self._info) from error
        finally:
            self._response.abandon()  # an iteration that was left cannot be taken up again

    async def aclose(self) -> None:
        """Done with the body."""
        await self._response.aclose()

    def __del__(self) -> None:
        # A response nobody read and nobody closed: its load and its connection are not lost with it.
        self._response.drop()


class WholeAsyncBody:
    """A response body that has arrived with its head: nothing is left to wait for, or to close.

    An iterator of its own rather than a generator: those have to be made known to the event loop, one by one.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body, self.body = self.body, b""
        if not body:
            raise StopAsyncIteration
        return body


class LoopPools(PoolRegistry[AsyncPool]):
    """What belongs to one event loop: its pools, and the library's own transport once a host needed it."""

    def __init__(self, upstreams: Upstreams) -> None:
        super().__init__(AsyncPool, upstreams)
        self.fallback: Any = None


class AsyncTransportCore(TransportCore):
    """Routes each request through the mesh; hosts unknown to it go to `fallback` (the library's own transport).

    One transport may serve several event loops; each has its own pools and its own default fallback. A `fallback` that
    was given is one for all loops: whether it can serve several is up to it (the libraries' own transports cannot).
    """

    def __init__(self, mesh: Mesh, library: Library, fallback: Any = None) -> None:
        bodies = (AsyncBody, WholeAsyncBody, TracedAsyncBody, SlowedAsyncBody)
        super().__init__(mesh, library, fallback, bodies, "AsyncByteStream")
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopPools] = {}
        # The last loop and its pools, in one value: threads with a loop each read and write it at once.
        self._last: tuple[asyncio.AbstractEventLoop | None, LoopPools] = (None, LoopPools(mesh.upstreams))

    async def handle(self, request: Any) -> Any:
        """The library's response to the library's request. Raises exceptions that are the library's and ours."""
        mesh = self.mesh
        mesh.ensure_started()
        if mesh.generation != self._generation:
            self._after_fork()
        exchange = _Exchange(self, request)
        match await drive(exchange.flow, exchange, mesh):
            case Commit() as commit:
                return self._commit(exchange, commit)
            case Reply() as reply:
                return exchange.replied(reply)
            case Fail() as fail:
                raise exchange.exception(fail)
            case PassThrough():
                exchange.flow.close()
                return await self._pass_through(request)

    async def aclose(self) -> None:
        """Close the connections of this loop; those of other loops go with their loops."""
        pools = self.pools()
        default, pools.fallback = pools.fallback, None
        for pool in pools.drain():
            await pool.aclose()
        fallback = self._given or default
        if fallback is not None:
            await fallback.aclose()

    def pools(self) -> LoopPools:
        """The running loop's pools; the last loop is remembered, because there is nearly always only one."""
        loop = asyncio.get_running_loop()
        last, pools = self._last
        if loop is not last:
            pools = self._by_loop.get(loop) or self._new_loop(loop)
            self._last = (loop, pools)
        return pools

    def _new_loop(self, loop: asyncio.AbstractEventLoop) -> LoopPools:
        """Pools for a loop; those of loops that were closed meanwhile are given up."""
        for old, pools in list(self._by_loop.items()):
            if old.is_closed() and self._by_loop.pop(old, None) is not None:
                for pool in pools.clear():
                    pool.loop_closed()
        return self._by_loop.setdefault(loop, LoopPools(self.mesh.upstreams))

    async def _pass_through(self, request: Any) -> Any:
        try:
            return await (self._given or self._default()).handle_async_request(self._bound(request))
        except UnicodeError:
            check_host(self.library, request.url)
            raise

    def _default(self) -> Any:
        """The library's own transport on this loop."""
        pools = self.pools()
        if pools.fallback is None:
            pools.fallback = self.library.module.AsyncHTTPTransport(**self.default_options)
        return pools.fallback

    def _after_fork(self) -> None:
        """The parent's connections are the parent's: forget them without a word on their sockets."""
        generation = self.mesh.generation
        self._by_loop = {}  # with the default fallbacks; a transport of the caller's own is the caller's to renew
        self._last = (None, LoopPools(self.mesh.upstreams))
        self._generation = generation  # last: whoever sees it uses nothing of the parent's


class _Exchange(Exchange):
    """An exchange that carries its own attempts: the driver's wire."""

    __slots__ = ()
    core: AsyncTransportCore

    async def attempt(self, start: Start) -> Outcome:
        """One attempt. A pool that a new plan closed meanwhile is replaced: nothing of the request has been sent."""
        pools, runtime = self.core.pools(), self.core.mesh.runtime
        request, timeouts = self.wire_request(start), self.wire_timeouts(start)
        while True:
            try:
                pool = pools.get(runtime.plan, start, self.server_name)
            except WireError as error:
                return self.failed(error, start)
            try:
                return self.answered(await pool.send(request, timeouts), start)
            except WireError as error:
                if error.kind is not FailureKind.POOL_CLOSED:
                    return self.failed(error, start)
                pools.forget(start, pool, self.server_name)

    async def apart(self, start: Start) -> Outcome:
        """One of several attempts: they share nothing."""
        return await self.attempt(start)

    async def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Give up a response that will be retried, perhaps (after a redirect) without the body."""
        if bodiless:
            self.body = b""
        await outcome.response.aclose()

    def mirror(self, mirror: Mirror) -> None:
        """Begin a copy of the request, once its body is there."""
        body = self.body
        if isinstance(body, bytes):
            self._copy(mirror, body)
        elif isinstance(body, AsyncKeptBody):
            body.add(mirror)
        else:
            self.body = AsyncKeptBody(body, self._copy, mirror)

    def _copy(self, mirror: Mirror, body: bytes) -> None:
        copy = self.copied(self.core, body)
        if not self.core.mesh.mirrors.on_loop(lambda: send_copy(copy, mirror)):
            mirror.overflow()

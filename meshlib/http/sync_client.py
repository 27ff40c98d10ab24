"""The blocking transport, for httpx and httpx2 alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from meshlib.drivers.racing import Apart
from meshlib.drivers.sync import drive
from meshlib.engine.commands import CallInfo, Commit, Fail, Mirror, PassThrough, Reply, Start
from meshlib.http.errors import check_host
from meshlib.http.exchange import Exchange
from meshlib.http.library import Library
from meshlib.http.mirror import BlockingHttpCopy, KeptBody
from meshlib.http.pools import PoolRegistry
from meshlib.http.slowed import SlowedBody
from meshlib.http.trace import TracedBody
from meshlib.http.transport import TransportCore
from meshlib.http.wire import SyncPool
from meshlib.http.wire.interruption import Interruption
from meshlib.http.wire.types import FailureKind, WireError, WireRequest
from meshlib.model.outcome import Outcome

if TYPE_CHECKING:
    from meshlib.mesh import Mesh


class SyncBody:
    """The response body as the library streams it; closing it early gives the connection up."""

    def __init__(self, exchange: Exchange, response: Any, info: CallInfo) -> None:
        self._exchange = exchange
        self._response = response
        self._info = info

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response
        except WireError as error:
            raise self._exchange.body_error(error, self._info) from error

    def close(self) -> None:
        """Done with the body."""
        self._response.close()

    def __del__(self) -> None:
        # A response nobody read and nobody closed: its load and its connection are not lost with it.
        self._response.drop()


class WholeSyncBody:
    """A response body that has arrived with its head: nothing is left to wait for, or to close."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter((self.body,) if self.body else ())


class SyncTransportCore(TransportCore):
    """Routes each request through the mesh; hosts unknown to it go to `fallback` (the library's own transport)."""

    def __init__(self, mesh: Mesh, library: Library, fallback: Any = None) -> None:
        super().__init__(mesh, library, fallback, (SyncBody, WholeSyncBody, TracedBody, SlowedBody), "SyncByteStream")
        self._defaults: dict[int, Any] = {}  # the library's own transport, by fork generation: at most one
        self._pools: PoolRegistry[SyncPool] = PoolRegistry(SyncPool, mesh.upstreams)

    def handle(self, request: Any) -> Any:
        """The library's response to the library's request. Raises exceptions that are the library's and ours."""
        mesh = self.mesh
        mesh.ensure_started()
        if mesh.generation != self._generation:
            self._after_fork()
        exchange = _Exchange(self, request)
        match drive(exchange.flow, exchange, mesh):
            case Commit() as commit:
                return self._commit(exchange, commit)
            case Reply() as reply:
                return exchange.replied(reply)
            case Fail() as fail:
                raise exchange.exception(fail)
            case PassThrough():
                exchange.flow.close()
                return self._pass_through(request)

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.drain():
            pool.close()
        fallback = self._given or self._defaults.pop(self._generation, None)
        if fallback is not None:
            fallback.close()

    def pools(self) -> PoolRegistry[SyncPool]:
        """The pools of every thread."""
        return self._pools

    def _pass_through(self, request: Any) -> Any:
        fallback = self._given or self._defaults.get(self._generation) or self._default()
        try:
            return fallback.handle_request(self._bound(request))
        except UnicodeError:
            check_host(self.library, request.url)
            raise

    def _default(self) -> Any:
        """The library's own transport. Two threads may get here at once: the first one's is everybody's.

        No lock, because a fork could take it along in the hands of a thread that the child does not have.
        """
        made = self.library.module.HTTPTransport(**self.default_options)
        kept = self._defaults.setdefault(self._generation, made)
        if kept is not made:
            made.close()
        return kept

    def _after_fork(self) -> None:
        """The parent's connections are the parent's: forget them without a word on their sockets."""
        generation = self.mesh.generation
        self._pools = PoolRegistry(SyncPool, self.mesh.upstreams)
        self._defaults = {}  # a transport of the caller's own is the caller's to renew
        self._generation = generation  # last: whoever sees it uses nothing of the parent's


class _Exchange(Exchange):
    """An exchange that carries its own attempts: the driver's wire."""

    __slots__ = ()
    core: SyncTransportCore

    def attempt(self, start: Start) -> Outcome:
        """One attempt."""
        return self._send(start, self.wire_request(start))

    def apart(self, start: Start, apart: Apart) -> Outcome:
        """One attempt that may be given up from another thread."""
        request = self.wire_request(start)
        request.interruption = interruption = Interruption()
        apart.on_cancel(interruption.happen)
        return self._send(start, request)

    def _send(self, start: Start, request: WireRequest) -> Outcome:
        """A pool that a new plan closed meanwhile is replaced: nothing of the request has been sent."""
        pools, runtime = self.core.pools(), self.core.mesh.runtime
        timeouts = self.wire_timeouts(start)
        while True:
            try:
                pool = pools.get(runtime.plan, start, self.server_name)
            except WireError as error:
                return self.failed(error, start)
            try:
                return self.answered(pool.send(request, timeouts), start)
            except WireError as error:
                if error.kind is not FailureKind.POOL_CLOSED:
                    return self.failed(error, start)
                pools.forget(start, pool, self.server_name)

    def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Give up a response that will be retried, perhaps (after a redirect) without the body."""
        if bodiless:
            self.body = b""
        outcome.response.close()

    def mirror(self, mirror: Mirror) -> None:
        """Begin a copy of the request, once its body is there."""
        body = self.body
        if isinstance(body, bytes):
            self._copy(mirror, body)
        elif isinstance(body, KeptBody):
            body.add(mirror)
        else:
            self.body = KeptBody(body, self._copy, mirror)

    def _copy(self, mirror: Mirror, body: bytes) -> None:
        mesh, library = self.core.mesh, self.core.library
        mirrors = mesh.mirrors
        core = mirrors.shared(library.name, lambda: SyncTransportCore(mesh, library))
        if not mirrors.on_thread(BlockingHttpCopy(self.copied(core, body), mirror)):
            mirror.overflow()

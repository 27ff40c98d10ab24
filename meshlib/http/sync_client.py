"""The blocking transport, for httpx and httpx2 alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from meshlib.drivers.sync import drive
from meshlib.engine.commands import CallInfo, Commit, Fail, PassThrough, Reply, Start
from meshlib.http.exchange import Exchange
from meshlib.http.library import Library
from meshlib.http.pools import PoolRegistry
from meshlib.http.wire import SyncPool
from meshlib.http.wire.types import FailureKind, WireError
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


class SyncTransportCore:
    """Routes each request through the mesh; hosts unknown to it go to `fallback` (the library's own transport)."""

    def __init__(self, mesh: Mesh, library: Library, fallback: Any = None) -> None:
        self._mesh = mesh
        self._library = library
        self._fallback = fallback
        self._stream: Any = type("MeshStream", (SyncBody, library.module.SyncByteStream), {})
        self._pools: PoolRegistry[SyncPool] = PoolRegistry(SyncPool)
        self._generation = mesh.generation

    def handle(self, request: Any) -> Any:
        """The library's response to the library's request. Raises exceptions that are the library's and ours."""
        mesh = self._mesh
        mesh.ensure_started()
        if mesh.generation != self._generation:
            self._after_fork()
        exchange = Exchange(self._library, request, mesh.runtime)
        match drive(exchange.flow, _Wire(self, exchange), mesh):
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
        if self._fallback is not None:
            self._fallback.close()

    def attempt(self, exchange: Exchange, start: Start) -> Outcome:
        """One attempt. A pool that a new plan closed meanwhile is replaced: nothing of the request has been sent."""
        runtime = self._mesh.runtime
        request, timeouts = exchange.wire_request(start), exchange.wire_timeouts(start)
        while True:
            try:
                pool = self._pools.get(runtime.plan, start)
            except WireError as error:
                return exchange.failed(error, start)
            try:
                return exchange.answered(pool.send(request, timeouts), start)
            except WireError as error:
                if error.kind is not FailureKind.POOL_CLOSED:
                    return exchange.failed(error, start)
                self._pools.forget(start, pool)

    def _commit(self, exchange: Exchange, commit: Commit) -> Any:
        wire = commit.outcome.response
        wire.on_done = exchange.finish
        return exchange.committed(commit, self._stream(exchange, wire, commit.info))

    def _pass_through(self, request: Any) -> Any:
        if self._fallback is None:
            self._fallback = self._library.module.HTTPTransport()
        return self._fallback.handle_request(request)

    def _after_fork(self) -> None:
        """The parent's connections are the parent's: forget them without a word on their sockets."""
        self._generation = self._mesh.generation
        self._pools = PoolRegistry(SyncPool)
        self._fallback = None


class _Wire:
    """The driver's view of one exchange."""

    __slots__ = ("_core", "_exchange")

    def __init__(self, core: SyncTransportCore, exchange: Exchange) -> None:
        self._core = core
        self._exchange = exchange

    def attempt(self, start: Start) -> Outcome:
        return self._core.attempt(self._exchange, start)

    def discard(self, outcome: Outcome) -> None:
        outcome.response.close()

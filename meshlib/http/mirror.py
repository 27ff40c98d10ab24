"""Copies of requests over HTTP: who has their bodies, and how they are sent. Their responses are read, and dropped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from meshlib.drivers import aio, sync
from meshlib.engine.call import mirror_flow
from meshlib.engine.commands import Commit, Mirror, Start, Terminal
from meshlib.http.wire.types import WireError
from meshlib.model.outcome import Outcome

Begin = Callable[[Mirror, bytes], None]


class BlockingHttpCopy:
    """A copy on a thread, which carries its own attempts: the driver's wire. `exchange` is like the request's own."""

    def __init__(self, exchange: Any, mirror: Mirror) -> None:
        self._exchange = exchange
        self._mirror = mirror
        self._cancelled = False
        self._give_up: Callable[[], None] | None = None

    def run(self) -> None:
        """Send it, and read its response to the end."""
        if self._cancelled:
            return
        exchange = self._exchange
        exchange.flow = mirror_flow(exchange.core.mesh.runtime, self._mirror, time.monotonic())
        response = _to_read(exchange, sync.drive(exchange.flow, self, exchange.core.mesh))
        if response is None:
            return
        with contextlib.suppress(WireError):  # of which `finish` has been told
            for _ in response:
                pass

    def cancel(self) -> None:
        """Give it up, begun or not."""
        self._cancelled = True
        if self._give_up is not None:
            self._give_up()

    def on_cancel(self, give_up: Callable[[], None]) -> None:
        """How the attempt under way is given up."""
        self._give_up = give_up
        if self._cancelled:  # looked at after it was said how, as cancelling asks how after it has said so
            give_up()

    def attempt(self, start: Start) -> Outcome:
        """One attempt."""
        outcome: Outcome = self._exchange.apart(start, self)
        return outcome

    def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Nothing to drop: a copy is sent once."""

    def mirror(self, mirror: Mirror) -> None:
        """A copy has no copies."""


async def send_copy(exchange: Any, mirror: Mirror) -> None:
    """Send a copy on the running event loop, and read its response to the end."""
    exchange.flow = mirror_flow(exchange.core.mesh.runtime, mirror, time.monotonic())
    response = _to_read(exchange, await aio.drive(exchange.flow, exchange, exchange.core.mesh))
    if response is None:
        return
    try:
        async for _ in response:
            pass
    except WireError:
        return  # of which `finish` has been told
    finally:
        response.abandon()


def _to_read(exchange: Any, terminal: Terminal) -> Any:
    """A copy's response that has yet to be read to the end; None: the copy has ended."""
    if not isinstance(terminal, Commit):
        exchange.flow.close()
        return None
    response = terminal.outcome.response
    if response.whole() is not None:
        exchange.finish(None)
        return None
    response.on_done = exchange.finish
    return response


class _Kept:
    """What of a streamed body is kept for its copies: `begin` is called for each once it is whole."""

    def __init__(self, begin: Begin, first: Mirror) -> None:
        self._begin = begin
        self._mirrors = [first]

    def add(self, mirror: Mirror) -> None:
        """One more copy."""
        self._mirrors.append(mirror)

    def keep(self, kept: bytearray | None, piece: bytes) -> bytearray | None:
        """What is kept with one more piece; None: it is too much."""
        if kept is None:
            return None
        if len(kept) + len(piece) > self._mirrors[0].body_limit:
            self.abandon()
            return None
        kept += piece
        return kept

    def abandon(self) -> None:
        """There will be no copies."""
        mirrors, self._mirrors = self._mirrors[:1], []
        for mirror in mirrors:
            mirror.abandon()

    def complete(self, kept: bytearray | None) -> None:
        """The body has been sent."""
        mirrors, self._mirrors = self._mirrors, []
        for mirror in mirrors if kept is not None else ():
            self._begin(mirror, bytes(kept or b""))


class KeptBody(_Kept):
    """A streamed body on its way to the endpoint, kept."""

    def __init__(self, body: Iterable[bytes], begin: Begin, first: Mirror) -> None:
        super().__init__(begin, first)
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        kept: bytearray | None = bytearray()
        try:
            for piece in self._body:
                kept = self.keep(kept, piece) if self._mirrors else None
                yield piece
        except BaseException:
            self.abandon()
            raise
        self.complete(kept)


class AsyncKeptBody(_Kept):
    """The same on an event loop."""

    def __init__(self, body: AsyncIterable[bytes], begin: Begin, first: Mirror) -> None:
        super().__init__(begin, first)
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        kept: bytearray | None = bytearray()
        try:
            async for piece in self._body:
                kept = self.keep(kept, piece) if self._mirrors else None
                yield piece
        except BaseException:
            self.abandon()
            raise
        self.complete(kept)

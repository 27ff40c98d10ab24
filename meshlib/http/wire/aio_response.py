"""One request and its response on an asyncio connection; what `AsyncPool.send` returns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Iterable
from typing import cast

from meshlib.http.wire.aio_connection import NEVER, AsyncConnection
from meshlib.http.wire.ledger import Slot
from meshlib.http.wire.network import NetworkInfo
from meshlib.http.wire.reader import ResponseHead
from meshlib.http.wire.request import LAST_CHUNK, EncodedRequest, invalid, whole_body
from meshlib.http.wire.response import WireResponse
from meshlib.http.wire.types import FailureKind, Headers, RequestBody, Timeouts, Trace, WireError, WireRequest

Stage = tuple[FailureKind, str, float | None]
"""What is waited for: the limit that may run out, the words for it, and its seconds."""
_JOIN_BELOW = 64 * 1024
# Looking up a member of an enum costs as much as a call, and these are needed for every request.
_READ, _WRITE, _DEADLINE = FailureKind.READ_TIMEOUT, FailureKind.WRITE_TIMEOUT, FailureKind.DEADLINE
_NO_STAGE: Stage = (_DEADLINE, "", None)


class AsyncWireResponse(WireResponse):
    """A response whose head has arrived; iterate it for the body, or `aclose` it. One of the two must happen.

    The connection goes back to its pool when the last byte *arrives*, taken or not. `aclose` before that closes it.
    """

    __slots__ = (
        "_body", "_conn", "_deadline", "_encoded", "_interrupt", "_network_source", "_redialable", "_stage",
        "_timeouts", "_uploaded", "_waiter", "kept_slot", "request_sent", "trailers",
    )  # fmt: skip

    def __init__(
        self, conn: AsyncConnection, request: WireRequest, encoded: EncodedRequest, timeouts: Timeouts
    ) -> None:
        self._conn: AsyncConnection | None = conn
        self._network_source = conn
        self._encoded = encoded
        self._timeouts = timeouts
        self._deadline = NEVER if timeouts.deadline is None else timeouts.deadline
        self._redialable = conn.requests > 0 and encoded.replayable
        super().__init__()
        self._uploaded = False
        self._waiter: asyncio.Future[None] | None = None
        self._interrupt: asyncio.Timeout | None = None
        self._stage: Stage = _NO_STAGE
        self.kept_slot: Slot | None = None
        self.request_sent = False
        reader = conn.attach(self, without_body=request.method == b"HEAD")
        self._body = reader.body
        self.trailers: Headers = reader.trailers

    # The public face.

    @property
    def network(self) -> NetworkInfo:
        """The connection's addresses and TLS session, for httpx's `network_stream` extension."""
        return NetworkInfo(self._network_source.transport.get_extra_info)

    def set_deadline(self, when: float | None) -> None:
        """Replace the deadline (loop time) for the rest of the body; None: no deadline."""
        self._deadline = NEVER if when is None else when
        if self._conn is not None:
            self._conn.expect_by(self._deadline)

    def whole(self) -> bytes | None:
        """All of the body not taken yet, when its end has arrived; None while more is to come, or never will."""
        return self._body.pop_all() if self._over and self._error is None else None

    def __aiter__(self) -> AsyncWireResponse:
        return self

    async def __anext__(self) -> bytes:
        while True:
            data = self._body.pop()
            if data:
                if self._conn is not None:
                    self._conn.body_taken()
                return data
            if self._error is not None:
                raise self._error
            if self._conn is None:
                raise StopAsyncIteration
            try:
                await self._wait(self._timeouts.read, _READ, "waiting for the response body")
            except BaseException:
                self.abandon()
                raise

    async def aclose(self) -> None:
        """Done with it: a body still on its way is given up together with its connection. Idempotent."""
        self.abandon()

    def drop(self) -> None:
        """Nobody holds this any more: give it up unless it is over. From any thread, and from the garbage collector."""
        conn = self._conn
        if conn is None:
            return
        try:
            conn.loop.call_soon_threadsafe(self.abandon)
        except RuntimeError:  # the loop is closed
            self.ended()

    # What the pool calls.

    async def run(self, request: WireRequest) -> None:
        """Send the request and wait for the head; raises WireError. On any exception the caller abandons this."""
        conn = self._attached
        if self._deadline != NEVER:
            if self._deadline <= conn.loop.time():
                raise WireError(
                    FailureKind.DEADLINE, f"{conn.peer}: the deadline had passed before the request was sent"
                )
            conn.expect_by(self._deadline)
        if request.trace is not None:
            await self._run_traced(conn, request.body, request.trace)
            return
        rest = self._send_head(conn, request.body)
        if rest is not None:
            await self._upload(rest)
        await self._receive_head(conn)

    def abandon(self) -> None:
        """Give the exchange up if it is not over; its connection is closed."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.detach()
            self.ended()
            self._error = WireError(  # whoever reads on must not take the cut for the end
                FailureKind.RESET,
                f"{conn.peer}: the response was closed before its end",
                request_sent=self.request_sent,
            )

    # What the connection calls.

    @property
    def leaves_reusable(self) -> bool:
        """The request was sent whole and did not ask to close."""
        return self._uploaded and not self._encoded.close

    def progressed(self, head: ResponseHead | None) -> None:
        """Something happened that the waiting task should look at; `head` once there is one."""
        if head is not None and self._head is None:
            self._head = head
            self._stop_upload()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def failed(self, error: WireError, *, final: bool) -> bool:
        """The connection failed. True: its slot is kept, to send the request again on a fresh connection."""
        conn, self._conn = self._conn, None
        self._error = error
        stale = self._redialable and not final and error.kind is FailureKind.RESET and not error.response_started
        if stale and conn is not None:
            self.kept_slot = conn.slot
        self._stop_upload()
        self.progressed(None)
        self.ended()
        return stale

    def ended(self) -> None:
        """No more will happen on the connection."""
        self._conn = None
        self._over = True
        if self._on_done is not None:
            self._on_done(self._error)

    def expiry(self) -> tuple[FailureKind, str]:
        """Which limit ran out."""
        kind, doing, limit = self._stage
        if kind is not _DEADLINE:
            return kind, f"{doing} took longer than {limit:g} s"
        return kind, f"the deadline passed while {doing}" if doing else "the deadline passed"

    @property
    def _attached(self) -> AsyncConnection:
        return cast(AsyncConnection, self._conn)  # run() begins attached

    async def _run_traced(self, conn: AsyncConnection, body: RequestBody, trace: Trace) -> None:
        async with trace.step("http11.send_request_headers"):
            rest = self._send_head(conn, body)
        async with trace.step("http11.send_request_body"):
            if rest is not None:
                await self._upload(rest)
        async with trace.step("http11.receive_response_headers") as step:
            await self._receive_head(conn)
            step.return_value = (self.http_version, self.status, self.reason, self.headers)

    def _send_head(self, conn: AsyncConnection, body: RequestBody) -> Iterable[bytes] | AsyncIterable[bytes] | None:
        """Write the head, and the body with it when it is all there; what there is still to be sent."""
        if body is None or isinstance(body, bytes):
            self._write_whole(conn, self._encoded, body)
            self._uploaded = True
            return None
        conn.transport.write(self._encoded.head)
        self.request_sent = True
        return body

    async def _receive_head(self, conn: AsyncConnection) -> None:
        while self._head is None and self._error is None:
            if conn.write_paused:
                await self._wait(self._timeouts.write, _WRITE, "sending the request")
            else:
                await self._wait(self._timeouts.read, _READ, "waiting for the response head")
        if self._head is None and self._error is not None:
            raise self._error

    async def _wait(self, limit_s: float | None, kind: FailureKind, doing: str) -> None:
        conn = self._attached
        waiter = self._waiter = conn.loop.create_future()
        limit = NEVER if limit_s is None else conn.loop.time() + limit_s
        if limit < self._deadline:
            self._stage = (kind, doing, limit_s)
            conn.expect_by(limit)
        else:
            self._stage = (_DEADLINE, doing, None)  # which the timer is set to already
        try:
            await waiter
        finally:
            self._waiter = None
            if limit < self._deadline and self._conn is not None:  # between waits only the deadline counts
                self._stage = _NO_STAGE
                conn.expect_by(self._deadline)

    def _write_whole(self, conn: AsyncConnection, encoded: EncodedRequest, body: bytes | None) -> None:
        data = whole_body(encoded, body)
        self.request_sent = True
        if len(data) < _JOIN_BELOW:
            conn.transport.write(encoded.head + data if data else encoded.head)
        else:
            conn.transport.write(encoded.head)
            conn.transport.write(data)

    async def _upload(self, body: Iterable[bytes] | AsyncIterable[bytes]) -> None:
        """Send a streamed body in the caller's own task, until its end or until the server answers."""
        if not isinstance(body, AsyncIterable):
            await self._pump(_Pieces(iter(body)))
            return
        # The scope has no time limit of its own: _stop_upload lets it fall when the server answers or the connection
        # fails (its deadline included) while the caller's iterator waits for something else.
        scope = asyncio.timeout(None)
        with contextlib.suppress(TimeoutError):
            async with scope:
                self._interrupt = scope
                try:
                    await self._pump(body)
                finally:
                    self._interrupt = None

    async def _pump(self, body: AsyncIterable[bytes]) -> None:
        pieces, length, sent = aiter(body), self._encoded.length, 0
        while (conn := self._conn) is not None and self._head is None:
            try:
                piece = await anext(pieces, None)
            except Exception as error:
                message = f"{conn.peer}: the request body raised {type(error).__name__}: {error}"
                raise WireError(FailureKind.REQUEST_BODY_FAILED, message, request_sent=True) from error
            if piece is None:
                if length is not None and sent != length:
                    raise invalid(f"its body ended after {sent} of {length} bytes", request_sent=True)
                self._finish_upload()
                return
            sent += len(piece)
            if length is not None and sent > length:
                raise invalid(f"its body is longer than its Content-Length {length}", request_sent=True)
            await self._write_piece(piece)

    async def _write_piece(self, piece: bytes) -> None:
        if self._conn is None or not piece:
            return
        self._conn.transport.write(self._encoded.frame(piece))
        while self._blocked():
            await self._wait(self._timeouts.write, FailureKind.WRITE_TIMEOUT, "sending the request body")

    def _blocked(self) -> bool:
        conn = self._conn
        return conn is not None and conn.write_paused and self._head is None

    def _finish_upload(self) -> None:
        if self._conn is not None:
            if self._encoded.chunked:
                self._conn.transport.write(LAST_CHUNK)
            self._uploaded = True

    def _stop_upload(self) -> None:
        # The task may be inside the caller's iterator, where only its scope reaches it.
        if self._interrupt is not None:
            self._interrupt.reschedule(self._network_source.loop.time())
            self._interrupt = None


class _Pieces:
    """A plain iterator behind `anext`."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

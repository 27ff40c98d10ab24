"""One request and its response on a blocking connection; what `SyncPool.send` returns."""

from __future__ import annotations

import _thread
import contextlib
import time
from collections.abc import Iterable
from typing import Protocol, cast

from meshlib.http.wire.dial import earliest
from meshlib.http.wire.ledger import Slot
from meshlib.http.wire.network import NetworkInfo
from meshlib.http.wire.reader import ReadError
from meshlib.http.wire.request import LAST_CHUNK, EncodedRequest, invalid, whole_body
from meshlib.http.wire.response import WireResponse
from meshlib.http.wire.sync_connection import SyncConnection
from meshlib.http.wire.types import FailureKind, Headers, RequestBody, Timeouts, Trace, WireError, WireRequest

# Looking up a member of an enum costs as much as a call, and these are needed for every request.
_READ, _WRITE, _DEADLINE = FailureKind.READ_TIMEOUT, FailureKind.WRITE_TIMEOUT, FailureKind.DEADLINE
_SEND_AT_ONCE = 64 * 1024  # more than this may fill the kernel's buffers: watch for an answer while sending


class Owner(Protocol):
    """The pool, as its exchanges see it."""

    def finished(self, conn: SyncConnection, reusable: bool) -> None:
        """The exchange is over; the connection is idle again, or of no more use."""
        ...

    @property
    def closed(self) -> bool:
        """Whether a failure now means that the pool was closed under the exchange."""
        ...


class SyncWireResponse(WireResponse):
    """A response whose head has arrived; iterate it for the body, or `close` it. One of the two must happen.

    The connection goes back to its pool when the last byte was received. `close` before that closes it. One thread
    at a time.
    """

    __slots__ = (
        "_body", "_conn", "_deadline", "_encoded", "_interruption", "_network_source", "_owner", "_redialable",
        "_timeouts", "_uploaded", "kept_slot", "request_sent", "trailers",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, conn: SyncConnection, request: WireRequest, encoded: EncodedRequest, timeouts: Timeouts
    ) -> None:
        self._owner = owner
        self._conn: SyncConnection | None = conn
        self._network_source = conn
        self._encoded = encoded
        self._interruption = request.interruption
        self._timeouts = timeouts
        self._deadline = timeouts.deadline
        self._redialable = conn.requests > 0
        super().__init__()
        self._uploaded = False
        self.kept_slot: Slot | None = None
        self.request_sent = False
        conn.requests += 1
        conn.reader.begin(without_body=request.method == b"HEAD")
        self._body = conn.reader.body
        self.trailers: Headers = conn.reader.trailers

    # The public face.

    @property
    def network(self) -> NetworkInfo:
        """The connection's addresses and TLS session, for httpx's `network_stream` extension."""
        return NetworkInfo(self._network_source.lookup)

    def set_deadline(self, when: float | None) -> None:
        """Replace the deadline (time.monotonic()) for the rest of the body; None: no deadline."""
        self._deadline = when

    def whole(self) -> bytes | None:
        """All of the body not taken yet, when its end has arrived; None while more is to come, or never will."""
        return self._body.pop_all() if self._over and self._error is None else None

    def __iter__(self) -> SyncWireResponse:
        return self

    def __next__(self) -> bytes:
        while True:
            data = self._body.pop()
            if data:
                return data
            if self._error is not None:
                raise self._error
            if self._conn is None:
                raise StopIteration
            try:
                self._receive(self._conn, "waiting for the response body")
            except BaseException:
                self.abandon()
                raise

    def close(self) -> None:
        """Done with it: a body still on its way is given up together with its connection. Idempotent."""
        self.abandon()

    def drop(self) -> None:
        """Nobody holds this any more: give it up unless it is over. From any thread, and from the garbage collector."""
        if self._conn is not None:
            # The collector runs anywhere, inside a lock that giving up needs as well: another thread must do it.
            with contextlib.suppress(RuntimeError):  # no new threads at the interpreter's end
                _thread.start_new_thread(self.abandon, ())

    # What the pool calls.

    def run(self, request: WireRequest) -> None:
        """Send the request and wait for the head; raises WireError. On any exception the caller abandons this."""
        conn, body = cast(SyncConnection, self._conn), request.body
        if self._deadline is not None and self._deadline <= time.monotonic():
            raise WireError(FailureKind.DEADLINE, f"{conn.peer}: the deadline had passed before the request was sent")
        if self._interruption is not None:
            self._interruption.watch(conn)
        if request.trace is not None:
            self._run_traced(conn, body, request.trace)
            return
        rest = self._send_head(conn, body)
        if rest is not None:
            self._send_pieces(conn, rest)
        self._receive_head(conn)

    def abandon(self) -> None:
        """Give the exchange up if it is not over; its connection is closed."""
        conn, self._conn = self._conn, None
        if conn is not None:
            self._settle(conn, False)
            self._error = WireError(  # whoever reads on must not take the cut for the end
                FailureKind.RESET,
                f"{conn.peer}: the response was closed before its end",
                request_sent=self.request_sent,
            )

    def _run_traced(self, conn: SyncConnection, body: RequestBody, trace: Trace) -> None:
        with trace.step("http11.send_request_headers"):
            rest = self._send_head(conn, body)
        with trace.step("http11.send_request_body"):
            if rest is not None:
                self._send_pieces(conn, rest)
        with trace.step("http11.receive_response_headers") as step:
            self._receive_head(conn)
            step.return_value = (self.http_version, self.status, self.reason, self.headers)

    # Sending.

    def _send_head(self, conn: SyncConnection, body: RequestBody) -> Iterable[bytes] | None:
        """Send the head, and the body with it when it is all there; what there is still to be sent."""
        if body is None or isinstance(body, bytes):
            self._send_whole(conn, body)
            return None
        if isinstance(body, Iterable):
            return body if self._send_watching(conn, self._encoded.head) else None
        raise invalid("an asynchronous body on a synchronous connection")

    def _send_whole(self, conn: SyncConnection, body: bytes | None) -> None:
        head, data = self._encoded.head, whole_body(self._encoded, body)
        if len(data) <= _SEND_AT_ONCE:
            self._uploaded = self._send_blocking(conn, head + data)
        else:  # to join them would copy the body
            self._uploaded = self._send_watching(conn, head) and self._send_watching(conn, data)

    def _send_blocking(self, conn: SyncConnection, data: bytes) -> bool:
        until, kind = self._limit(self._timeouts.write, _WRITE)
        rest: bytes | memoryview = data
        try:
            while rest:
                sent = conn.send(rest, until)
                self.request_sent = True
                if sent == len(rest):
                    return True
                rest = memoryview(rest)[sent:]
        except TimeoutError as error:
            self._fail(kind, f"sending the request took too long ({kind.value})", error)
        except OSError as error:
            self._send_failed(conn, error)
        return False

    def _send_watching(self, conn: SyncConnection, data: bytes) -> bool:
        """Send while listening: False when the server answered or closed before it had everything."""
        rest = memoryview(data)
        try:
            while rest:
                until, kind = self._limit(self._timeouts.write, FailureKind.WRITE_TIMEOUT)
                if self._conn is None or self._answered(conn):
                    return False
                sent = conn.send_now(rest)
                if sent:
                    self.request_sent = True
                    rest = rest[sent:]
                else:
                    self._wait_either(conn, until, kind)
        except OSError as error:
            self._send_failed(conn, error)
            return False
        return True

    def _wait_either(self, conn: SyncConnection, until: float | None, kind: FailureKind) -> None:
        try:
            conn.wait_either(until)
        except TimeoutError as error:
            self._fail(kind, f"sending the request took too long ({kind.value})", error)

    def _answered(self, conn: SyncConnection) -> bool:
        while not conn.quiet():
            data = conn.receive_now()
            if data is None:
                return False
            self._take(conn, data)
            if self._head is not None or self._conn is None:
                return True
        return False

    def _send_pieces(self, conn: SyncConnection, body: Iterable[bytes]) -> None:
        encoded, sent = self._encoded, 0
        for piece in self._guarded(conn, body):
            sent += len(piece)
            if encoded.length is not None and sent > encoded.length:
                raise invalid(f"its body is longer than its Content-Length {encoded.length}", request_sent=True)
            if piece and not self._send_watching(conn, encoded.frame(piece)):
                return
        if encoded.length is not None and sent != encoded.length:
            raise invalid(f"its body ended after {sent} of {encoded.length} bytes", request_sent=True)
        self._uploaded = not encoded.chunked or self._send_watching(conn, LAST_CHUNK)

    def _guarded(self, conn: SyncConnection, body: Iterable[bytes]) -> Iterable[bytes]:
        try:
            yield from body
        except Exception as error:
            message = f"{conn.peer}: the request body raised {type(error).__name__}: {error}"
            raise WireError(FailureKind.REQUEST_BODY_FAILED, message, request_sent=True) from error

    def _send_failed(self, conn: SyncConnection, error: OSError) -> None:
        # A server may answer early and close: its answer is worth more than our broken pipe.
        try:
            while self._head is None and (data := conn.receive_now()):
                self._take(conn, data)
        except OSError:
            pass  # the first error tells more
        if self._head is None and self._conn is not None:
            kind = FailureKind.RESET if self.request_sent else FailureKind.RESET_BEFORE_REQUEST
            self._fail(kind, f"sending the request: {error.strerror or error}", error)

    # Receiving.

    def _receive_head(self, conn: SyncConnection) -> None:
        while self._head is None:
            if self._conn is None:
                raise self._error or invalid("the exchange is over")
            self._receive(conn, "waiting for the response head")

    def _receive(self, conn: SyncConnection, doing: str) -> None:
        until, kind = self._limit(self._timeouts.read, _READ)
        try:
            data = conn.receive(until)
        except TimeoutError as error:
            self._fail(kind, f"{doing} took too long ({kind.value})", error)
        except OSError as error:
            self._fail(FailureKind.RESET, f"{doing}: {error.strerror or error}", error)
        else:
            self._take(conn, data)

    def _take(self, conn: SyncConnection, data: bytes) -> None:
        reader = conn.reader
        try:
            if data:
                reader.feed(data)
            else:
                reader.feed_eof()
        except ReadError as error:
            self._unreadable(conn, data, error)
            return
        self._head = reader.head
        if reader.complete:
            self._conn = None
            self._settle(conn, reader.reusable and self._sent_whole())

    def _unreadable(self, conn: SyncConnection, data: bytes, error: ReadError) -> None:
        if data or conn.reader.started:
            self._fail(FailureKind.PROTOCOL_ERROR, f"response: {error}", error)
        else:
            self._fail(FailureKind.RESET, "closed by the peer before a response", None)

    def _sent_whole(self) -> bool:
        return self._uploaded and not self._encoded.close

    def _limit(self, timeout: float | None, kind: FailureKind) -> tuple[float | None, FailureKind]:
        if timeout is None:
            return self._deadline, _DEADLINE
        return earliest(time.monotonic(), self._deadline, timeout, kind)

    # Ending.

    def _fail(self, kind: FailureKind, message: str, cause: BaseException | None) -> None:
        conn, self._conn = self._conn, None
        if conn is None:
            return
        if self._owner.closed:
            kind, message = FailureKind.RESET if self.request_sent else FailureKind.POOL_CLOSED, "the pool was closed"
        started = conn.reader.started
        self._error = WireError(
            kind, f"{conn.peer}: {message}", request_sent=self.request_sent, response_started=started
        )
        self._error.__cause__ = cause
        safe = kind is FailureKind.RESET_BEFORE_REQUEST or (kind is FailureKind.RESET and self._encoded.replayable)
        if self._head is None and self._redialable and safe and not started and not self._owner.closed:
            self.kept_slot = conn.slot
            conn.close()
            self._over = True
        else:
            self._settle(conn, False)

    def _settle(self, conn: SyncConnection, reusable: bool) -> None:
        self._over = True
        if self._interruption is not None:
            self._interruption.over()
        self._owner.finished(conn, reusable)
        if self._on_done is not None:
            self._on_done(self._error)

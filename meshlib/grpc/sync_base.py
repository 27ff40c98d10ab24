"""The call objects of the blocking channel: what `future()` and the calls with a response stream return."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.drivers.callback import CallbackDriver
from meshlib.engine.commands import CallInfo, Commit, Fail, Mirror, PassThrough, Reply, Start, Terminal
from meshlib.grpc.errors import cancelled_error, exception_for, reply_exception
from meshlib.grpc.exchange import Asked, Exchange
from meshlib.grpc.mirror import begin_blocking
from meshlib.grpc.multicallable import Method
from meshlib.grpc.outcome import debug_string
from meshlib.grpc.requests import RequestStream
from meshlib.model.outcome import Outcome

if TYPE_CHECKING:
    from meshlib.grpc.sync_channel import MeshChannel


class Progress(Exchange):
    """A call that goes on by itself: the wire of a `CallbackDriver`.

    `settled` is set once, under `changed`, to what knows the final status: a finished call of grpcio, or an error.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "cancelled",
        "changed",
        "commit",
        "driver",
        "info",
        "method",
        "requests",
        "settled",
    )
    core: MeshChannel

    def __init__(self, core: MeshChannel, method: Method, requests: Any, asked: Asked, replayable: Any = True) -> None:
        super().__init__(core, method.path, asked, replayable)
        self.method = method
        self.requests = requests
        self.changed = threading.Condition()
        self.commit: Commit | None = None
        self.info: CallInfo | None = None
        self.cancelled = False
        self.settled: Any = None
        self._callbacks: list[Callable[[], None]] | None = []
        self.driver = CallbackDriver(self.flow, self, core.mesh, self.terminal)

    def request(self) -> Any:
        """What the next attempt sends: the message, or the requests from the first one."""
        return self.requests.attempt() if isinstance(self.requests, RequestStream) else self.requests

    def plain_request(self) -> Any:
        """What a plain channel's multi-callable takes: what the caller gave."""
        return self.requests.given if isinstance(self.requests, RequestStream) else self.requests

    def terminal(self, command: Terminal | None) -> None:
        """The flow has come to an end, or to a commit."""
        match command:
            case Commit():
                self.commit, self.info = command, command.info
                if isinstance(self.requests, RequestStream):
                    self.requests.commit()
                self.committed(command)
            case Reply():
                self.info = command.info
                self._end(reply_exception(command, "grpc"))
            case Fail():
                self._end(exception_for(command, "grpc"))
            case PassThrough():
                self.flow.close()
                self.pass_through(self.core.fallback_call(self.method))
            case None:
                self.settle(cancelled_error("grpc"))

    def begin(self, start: Start, ended: Callable[[Outcome], None]) -> None:
        """Begin one attempt."""
        raise NotImplementedError

    def cancel_one(self, start: Start) -> None:
        """Give up one of several attempts, where the call can have several (`RequestHead.overlaps`)."""
        raise NotImplementedError

    def discard(self, outcome: Outcome) -> None:
        """Nothing to drop: what is retried had no response, or only an error."""

    def mirror(self, mirror: Mirror) -> None:
        """Begin a copy of the call."""
        begin_blocking(self, self.method, mirror, self.requests)

    def committed(self, commit: Commit) -> None:
        """A response is the call's."""
        raise NotImplementedError

    def pass_through(self, call: Any) -> None:
        """The mesh has no part in this call: make it with a plain channel's multi-callable."""
        raise NotImplementedError

    def cancel_attempt(self) -> None:
        """Cancel what is under way."""
        raise NotImplementedError

    def _end(self, error: Any) -> None:
        self.flow.close()
        self.settle(error)

    def settle(self, final: Any) -> None:
        """It is over."""
        with self.changed:
            if self.settled is not None:
                return
            self.settled = final
            callbacks, self._callbacks = self._callbacks or [], None
            self.changed.notify_all()
        for callback in callbacks:
            callback()

    def when_settled(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when it is over; False when it is already."""
        with self.changed:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            return True

    def wait(self, timeout: float | None = None) -> Any:
        """What it came to. Raises grpc.FutureTimeoutError after `timeout` seconds."""
        if self.settled is None:
            with self.changed:
                if not self.changed.wait_for(lambda: self.settled is not None, timeout):
                    raise grpc.FutureTimeoutError
        return self.settled

    def cancel(self) -> bool:
        """Give up the attempt under way and whatever would follow; False when it is over already."""
        with self.changed:
            if self.settled is not None:
                return False
            self.cancelled = True
        self.driver.give_up()
        self.cancel_attempt()
        return True


class CallObject(grpc.Call, grpc.Future):  # type: ignore[misc]  # grpcio ships no types
    """A call as the caller holds it. Letting go of it cancels the call, as with grpcio's own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __del__(self) -> None:
        self._progress.cancel()

    @property
    def meshlib(self) -> CallInfo | None:
        """What the mesh did with the call, once a response is its own."""
        return self._progress.info

    # ------------------------------------------------------------------ the call

    def initial_metadata(self) -> Any:
        """The initial metadata of the attempt that counts; blocks until there is one."""
        return self._progress.wait().initial_metadata()

    def trailing_metadata(self) -> Any:
        """The trailing metadata; blocks until the call is over, as everything below."""
        return self._progress.wait().trailing_metadata()

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._progress.wait().code()

    def details(self) -> str | None:
        """The status in words."""
        details: str | None = self._progress.wait().details()
        return details

    def debug_error_string(self) -> str | None:
        """Grpcio's own words about the attempt that counted."""
        return debug_string(self._progress.wait())

    def is_active(self) -> bool:
        """Whether it is not over."""
        return self._progress.settled is None

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline."""
        return self._progress.time_remaining()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback()` when it is over; False when it is already."""
        return self._progress.when_settled(callback)

    # ------------------------------------------------------------------ the future

    def cancel(self) -> bool:
        """Cancel the call; False when it is over already."""
        return self._progress.cancel()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._progress.cancelled

    def running(self) -> bool:
        """Whether it is not over."""
        return self._progress.settled is None

    def done(self) -> bool:
        """Whether it is over."""
        return self._progress.settled is not None

    def result(self, timeout: float | None = None) -> Any:
        """The response; raises the call's error."""
        final = self._progress.wait(timeout)
        if self._progress.cancelled:
            raise grpc.FutureCancelledError
        if final.code() is not grpc.StatusCode.OK:
            raise final
        return final.result()

    def exception(self, timeout: float | None = None) -> Exception | None:
        """The error, None if the call went well."""
        final = self._progress.wait(timeout)
        if self._progress.cancelled:
            raise grpc.FutureCancelledError
        failed: Exception | None = final if final.code() is not grpc.StatusCode.OK else None
        return failed

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """The error's traceback; None when there is no error. It is raised for that, as grpcio's own futures do."""
        failed = self.exception(timeout)
        if failed is None:
            return None
        try:
            raise failed
        except grpc.RpcError:
            return sys.exc_info()[2]

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call `fn(call)` when it is over, at once if it is already."""
        if not self._progress.when_settled(lambda: fn(self)):
            fn(self)

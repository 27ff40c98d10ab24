"""Calls with a stream of responses, blocking to read and not to make.

Until something of a response has come an attempt may be followed by another; from then on its stream is the call's.
Two parties hear of an attempt: whoever reads (a message, or the end) and grpcio's done callback (the end). A message
commits, and only the reader sees it, so while somebody reads it is the reader who says how the attempt ended.

grpcio shows empty initial metadata and none at all as the same thing. So a stream is committed by its first message, by
initial metadata that is not empty, or by `initial_metadata()` returning while the attempt goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.drivers.timer import later
from meshlib.engine.commands import Commit, Start
from meshlib.errors import ConfigurationError
from meshlib.grpc.errors import cancelled_error, stream_exception
from meshlib.grpc.exchange import Asked, initial_metadata, unusable
from meshlib.grpc.load_reports import take_trailers, wants_trailers
from meshlib.grpc.multicallable import Method
from meshlib.grpc.outcome import answered, early_metadata, failed
from meshlib.grpc.requests import RequestStream
from meshlib.grpc.sync_attempt import CLAIMED, COMMITTED, LOST, OPEN, Attempt
from meshlib.grpc.sync_base import CallObject, Progress
from meshlib.model.outcome import GRPC_STATUS_PENDING, Failure, Outcome

if TYPE_CHECKING:
    from meshlib.grpc.sync_channel import MeshChannel

GRACE = 0.02
"""Seconds that the status of a call without a response takes at most after its (empty) initial metadata: both are in
one frame, and were always there together when measured."""
_END: Any = object()


class StreamProgress(Progress):
    """A call with a response stream: the wire of a `CallbackDriver`."""

    __slots__ = ("attempt",)
    responses = True

    def __init__(self, core: MeshChannel, method: Method, requests: Any, asked: Asked, replayable: Any = True) -> None:
        super().__init__(core, method, requests, asked, replayable)
        self.attempt: Attempt | None = None

    # ------------------------------------------------------------------ attempts

    def begin(self, start: Start, ended: Callable[[Outcome], None]) -> None:
        """Start one attempt."""
        try:
            subchannel = self.core.enter(start)
        except ConfigurationError as error:
            ended(unusable(error))
            return
        try:
            call = self.method.on(subchannel)(self.request(), **self.options(start, streams=True))
        except grpc.RpcError as error:  # the request could not be serialized
            subchannel.leave(start)
            ended(failed(error, start.host.endpoint.targets[0], None))
            return
        self._under_way(Attempt(call, ended, start, subchannel))

    def pass_through(self, call: Any) -> None:
        """A plain channel's call: committed from the start."""
        attempt = Attempt(call(self.plain_request(), **self.asked._asdict()), None)
        attempt.phase = COMMITTED
        self._under_way(attempt)

    def committed(self, commit: Commit) -> None:
        """The attempt's stream is the call's; where it has ended already, so has the call."""
        if commit.outcome.grpc_status != GRPC_STATUS_PENDING:
            self.finish()
            self.settle(commit.outcome.response)

    def cancel_attempt(self) -> None:
        """Cancel what is under way."""
        if self.attempt is not None:
            self.attempt.call.cancel()

    def _under_way(self, attempt: Attempt) -> None:
        with self.changed:
            self.attempt = attempt
            self.changed.notify_all()
        attempt.watch()
        attempt.call.add_done_callback(partial(self._attempt_over, attempt))
        if self.cancelled:
            attempt.call.cancel()

    def _attempt_over(self, attempt: Attempt, call: Any) -> None:
        attempt.leave()
        with self.changed:
            attempt.over = True
            phase = attempt.phase
            mine = phase == OPEN and not attempt.readers
            if mine:
                attempt.phase = CLAIMED
        if mine and early_metadata(call) is None:
            later(0.0, partial(self._without_response, attempt))  # this thread brings the metadata, after the status
        elif mine:
            self._without_response(attempt)
        elif phase == COMMITTED:
            self._finished(attempt)

    def _without_response(self, attempt: Attempt) -> None:
        """The claimed attempt ended before any message: it may be retried, unless it had begun to answer. What came
        first may be told last: the two are events of their own, so the metadata are waited for, which takes no time.
        """
        call, ended = attempt.call, attempt.ended
        if not attempt.timed_out and call.initial_metadata():
            self._commit(attempt)
            return
        with self.changed:
            attempt.phase = LOST
        if ended is not None:
            ended(answered(None, response=call) if call.code() is grpc.StatusCode.OK else self._outcome(attempt))

    def _outcome(self, attempt: Attempt) -> Outcome:
        if attempt.timed_out is not None:
            return attempt.out_of_time(attempt.timed_out)
        address = attempt.start.host.endpoint.targets[0] if attempt.start is not None else None
        return failed(attempt.call, address, self.out_of_time())

    def _commit(self, attempt: Attempt) -> None:
        """The claimed attempt answers: its stream is the call's."""
        if attempt.ended is not None:
            attempt.ended(answered(attempt.headers(), GRPC_STATUS_PENDING, attempt.call))
        with self.changed:
            attempt.phase = COMMITTED
            over = attempt.over
            self.changed.notify_all()
        if over:
            self._finished(attempt)

    def _finished(self, attempt: Attempt) -> None:
        """The committed stream has ended."""
        with self.changed:
            if attempt.finished:
                return
            attempt.finished = True
        call = attempt.call
        if attempt.start is not None and wants_trailers(attempt.start):
            take_trailers(attempt.start, call.trailing_metadata())
        if attempt.start is None:
            self.settle(call)
        elif self.cancelled:
            self.finish(Failure.LOCAL)
            self.settle(cancelled_error("grpc"))
        elif call.code() is grpc.StatusCode.OK:
            self.finish(None, 0)
            self.settle(call)
        else:
            outcome = self._outcome(attempt)
            self.finish(outcome.failure, outcome.grpc_status)
            self.settle(stream_exception(outcome, self.info, "grpc"))

    # ------------------------------------------------------------------ reading

    def read(self) -> Any:
        """The next message. Raises StopIteration at the end, and the call's error."""
        while True:
            attempt = self._to_read()
            if attempt is None:
                return self._nothing_more()
            if attempt.phase == COMMITTED:
                return self._read_on(attempt)
            message = _END
            try:
                message = next(attempt.call)
            except (StopIteration, grpc.RpcError):
                pass
            finally:
                mine = self._stop_reading(attempt, message is _END)
            if message is not _END:
                if mine:
                    self._commit(attempt)
                attempt.heard = time.monotonic()
                return message

    def _to_read(self) -> Attempt | None:
        """The attempt to read from, entered as a reader unless it is committed; None when there will be none."""
        attempt = self.attempt
        if attempt is not None and attempt.phase == COMMITTED:
            return attempt
        with self.changed:
            self.changed.wait_for(self._readable)
            attempt = self.attempt
            if attempt is None or attempt.phase in (CLAIMED, LOST):
                return None
            if attempt.phase == OPEN:
                attempt.readers += 1
            return attempt

    def _readable(self) -> bool:
        attempt = self.attempt
        return self.settled is not None or (attempt is not None and attempt.phase in (OPEN, COMMITTED))

    def _stop_reading(self, attempt: Attempt, at_end: bool) -> bool:
        """Whether the reader, leaving, has the attempt to itself; one that came to the end tells of it."""
        with self.changed:
            attempt.readers -= 1
            mine = attempt.phase == OPEN and (attempt.over or not attempt.going_on() or not at_end)
            if mine:
                attempt.phase = CLAIMED
        if mine and at_end:
            self._without_response(attempt)
        return mine

    def _read_on(self, attempt: Attempt) -> Any:
        try:
            message = next(attempt.call)
        except (StopIteration, grpc.RpcError):
            if not attempt.going_on():  # its status is known, perhaps from this side alone
                self._finished(attempt)
            return self._nothing_more()
        attempt.heard = time.monotonic()
        return message

    def _nothing_more(self) -> Any:
        final = self.wait()
        if final.code() is grpc.StatusCode.OK:
            raise StopIteration
        raise final

    def initial_metadata(self) -> Any:
        """The initial metadata; blocks until there is some, and commits."""
        while True:
            with self.changed:
                self.changed.wait_for(self._readable)
                attempt = self.attempt
            if attempt is None or attempt.phase in (CLAIMED, LOST):
                return self.wait().initial_metadata()
            received = attempt.call.initial_metadata()
            if attempt.phase == COMMITTED or self._commit_by_metadata(attempt, received):
                return received if self.commit is None else initial_metadata(self.commit, received)

    def _commit_by_metadata(self, attempt: Attempt, received: Any) -> bool:
        """Whether the attempt answers. Empty metadata may be those of one that has failed: its status says so."""
        with self.changed:
            if not received:
                self.changed.wait_for(lambda: attempt.over or attempt.phase != OPEN, GRACE)
            mine = attempt.phase == OPEN and not attempt.over
            if mine:
                attempt.phase = CLAIMED
        if mine:
            self._commit(attempt)
        return mine


class StreamCall(CallObject):
    """A call with a response stream, as the caller holds it: iterate over it."""

    _progress: StreamProgress

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._progress.read()

    def next(self) -> Any:
        """The next message."""
        return self._progress.read()

    def initial_metadata(self) -> Any:
        """The initial metadata; blocks until there is some."""
        return self._progress.initial_metadata()


class UnaryStream(grpc.UnaryStreamMultiCallable):  # type: ignore[misc]  # grpcio ships no types
    """A method with one request and a stream of responses."""

    def __init__(self, core: MeshChannel, method: Method) -> None:
        self._core = core
        self._method = method

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> StreamCall:
        """Start a call."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        return started(StreamProgress(self._core, self._method, request, asked))


class StreamStream(grpc.StreamStreamMultiCallable):  # type: ignore[misc]  # grpcio ships no types
    """A method with a stream of requests and a stream of responses."""

    def __init__(self, core: MeshChannel, method: Method) -> None:
        self._core = core
        self._method = method

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> StreamCall:
        """Start a call."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        requests = RequestStream(request_iterator, self._method.serializer)
        return started(StreamProgress(self._core, self._method, requests, asked, requests))


def started(progress: StreamProgress) -> StreamCall:
    """The call object, once the first attempt has begun."""
    call = StreamCall(progress)
    progress.core.begun(progress)
    progress.driver.start()
    return call

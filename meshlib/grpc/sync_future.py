"""Calls with one response that nobody waits for: `future()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.engine.commands import Commit, Start
from meshlib.errors import ConfigurationError
from meshlib.grpc.exchange import Asked, unusable
from meshlib.grpc.load_reports import take_trailers, wants_trailers
from meshlib.grpc.metadata import received
from meshlib.grpc.multicallable import Method
from meshlib.grpc.outcome import answered, early_metadata, failed, single
from meshlib.grpc.subchannels import SubChannel
from meshlib.grpc.sync_base import Progress
from meshlib.grpc.sync_unary import told
from meshlib.model.outcome import Outcome

if TYPE_CHECKING:
    from meshlib.grpc.sync_channel import MeshChannel


class FutureProgress(Progress):
    """A call whose attempts are futures of grpcio's: their done callbacks carry it on."""

    __slots__ = ("_under_way",)  # by attempt; None: outside the mesh

    def __init__(self, core: MeshChannel, method: Method, requests: Any, asked: Asked, replayable: Any = True) -> None:
        super().__init__(core, method, requests, asked, replayable)
        self._under_way: dict[Start | None, Any] = {}

    def begin(self, start: Start, ended: Callable[[Outcome], None]) -> None:
        """Start one attempt."""
        try:
            subchannel = self.core.enter(start)
        except ConfigurationError as error:
            ended(unusable(error))
            return
        try:
            attempt = self.method.on(subchannel).future(self.request(), **self.options(start))
        except grpc.RpcError as error:  # the request could not be serialized
            subchannel.leave(start)
            ended(failed(error, start.host.endpoint.targets[0], None))
            return
        self.watch(start, attempt, lambda: self._attempt_ended(attempt, subchannel, start, ended))

    def watch(self, start: Start | None, attempt: Any, ended: Callable[[], None]) -> None:
        """Hear of an attempt's end, and cancel it if the call was cancelled while it began."""
        self._under_way[start] = attempt
        attempt.add_done_callback(lambda _: ended())
        if self.cancelled:
            attempt.cancel()

    def committed(self, commit: Commit) -> None:
        """The response, or an error of the server."""
        self.finish_single(commit.outcome)
        self.settle(told(commit.outcome.response, commit))

    def pass_through(self, call: Any) -> None:
        """A plain channel's future."""
        attempt = call.future(self.plain_request(), **self.asked._asdict())
        self.watch(None, attempt, lambda: self.settle(attempt))

    def cancel_attempt(self) -> None:
        """Cancel what is under way."""
        for attempt in list(self._under_way.values()):
            attempt.cancel()

    def cancel_one(self, start: Start) -> None:
        """Cancel one of several."""
        attempt = self._under_way.get(start)
        if attempt is not None:
            attempt.cancel()

    def _attempt_ended(
        self, attempt: Any, subchannel: SubChannel, start: Start, ended: Callable[[Outcome], None]
    ) -> None:
        subchannel.leave(start)
        if wants_trailers(start):
            take_trailers(start, attempt.trailing_metadata())
        self._under_way.pop(start, None)
        if attempt.code() is grpc.StatusCode.OK:
            ended(answered(received(early_metadata(attempt)), response=attempt))
        else:
            ended(single(failed(attempt, start.host.endpoint.targets[0], self.out_of_time())))

"""Unary calls that block: the flow is driven on the caller's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from meshlib.drivers.racing import Apart
from meshlib.drivers.sync import drive
from meshlib.engine.commands import Commit, Fail, Mirror, PassThrough, Replayable, Reply, Start
from meshlib.errors import ConfigurationError
from meshlib.grpc.direct import DirectCall
from meshlib.grpc.errors import exception_for, reply_exception
from meshlib.grpc.exchange import Asked, Exchange, initial_metadata, unusable
from meshlib.grpc.load_reports import take_trailers, wants_trailers
from meshlib.grpc.metadata import received
from meshlib.grpc.mirror import begin_blocking
from meshlib.grpc.multicallable import Method
from meshlib.grpc.outcome import answered, early_metadata, failed, single
from meshlib.grpc.requests import RequestStream
from meshlib.model.outcome import Failure, Outcome

if TYPE_CHECKING:
    from meshlib.grpc.sync_channel import MeshChannel

_OK = grpc.StatusCode.OK


class BlockingCall(Exchange):
    """A call with one response that carries its own attempts: the driver's wire. `request` is what the sub-channel's
    multi-callable takes: a message, or an iterator of them.
    """

    __slots__ = ("method", "plain", "request", "with_call")
    core: MeshChannel

    def __init__(
        self,
        core: MeshChannel,
        method: Method,
        request: Any,
        asked: Asked,
        with_call: bool = False,
        replayable: Replayable = True,
    ) -> None:
        super().__init__(core, method.path, asked, replayable)
        self.plain = (
            not with_call
            and replayable is True
            and asked.credentials is None
            and asked.wait_for_ready is None
            and asked.compression is None
            and core.compression is None
        )
        self.method = method
        self.request = request
        self.with_call = with_call

    def run(self) -> Any:
        """The response, or (response, call); raises what is gRPC's and ours."""
        self.core.check_open()
        match drive(self.flow, self, self.core.mesh):
            case Commit() as commit:
                return self._committed(commit)
            case Reply() as reply:
                self.flow.close()
                raise reply_exception(reply, "grpc")
            case Fail() as fail:
                self.flow.close()
                raise exception_for(fail, "grpc")
            case PassThrough():
                self.flow.close()
                call = self.core.fallback_call(self.method)
                given = self.request.given if isinstance(self.request, RequestStream) else self.request
                return (call.with_call if self.with_call else call)(given, **self.asked._asdict())

    def attempt(self, start: Start) -> Outcome:
        """One attempt, to its end."""
        try:
            subchannel = self.core.enter(start)
        except ConfigurationError as error:
            return unusable(error)
        try:
            reports = wants_trailers(start)
            if self.plain and not reports:
                direct = self.method.directly_on(subchannel, DirectCall)
                if direct is not None and (data := direct.serialized(self.request)) is not None:
                    return answered(None, response=direct(data, *self.particulars(start)))
            call = self.method.on(subchannel)
            invoke = call.with_call if self.with_call or reports else call
            request = self.request.attempt() if isinstance(self.request, RequestStream) else self.request
            response = invoke(request, **self.options(start))
            if reports:
                take_trailers(start, response[1].trailing_metadata())
                response = response if self.with_call else response[0]
            headers = received(early_metadata(response[1])) if self.with_call else None
            return answered(headers, response=response)
        except grpc.RpcError as error:
            take_trailers(start, error.trailing_metadata())
            return single(failed(error, start.host.endpoint.targets[0], self.out_of_time()))
        finally:
            subchannel.leave(start)

    def apart(self, start: Start, apart: Apart) -> Outcome:
        """One of several attempts, which may be given up from another thread."""
        try:
            subchannel = self.core.enter(start)
        except ConfigurationError as error:
            return unusable(error)
        try:
            call = self.method.on(subchannel).future(self.request, **self.options(start))
            apart.on_cancel(call.cancel)
            response = call.result()
            if wants_trailers(start):
                take_trailers(start, call.trailing_metadata())
            headers = received(early_metadata(call)) if self.with_call else None
            return answered(headers, response=(response, call) if self.with_call else response)
        except grpc.RpcError as error:
            return single(failed(error, start.host.endpoint.targets[0], self.out_of_time()))
        except grpc.FutureCancelledError:
            return Outcome(failure=Failure.LOCAL)
        finally:
            subchannel.leave(start)

    def discard(self, outcome: Outcome, bodiless: bool) -> None:
        """Nothing to drop: the response is whole, or an error."""

    def mirror(self, mirror: Mirror) -> None:
        """Begin a copy of the call."""
        begin_blocking(self, self.method, mirror, self.request)

    def _committed(self, commit: Commit) -> Any:
        outcome = commit.outcome
        self.finish_single(outcome)
        if outcome.error is not None:
            raise told(outcome.response, commit)
        if not self.with_call:
            return outcome.response
        response, call = outcome.response
        return response, told(call, commit)


def told(call: Any, commit: Commit) -> Any:
    """A call, or an error of the server, that knows what the mesh did (`.meshlib`) and shows the initial metadata as
    the route wants it.
    """
    call.meshlib = commit.info
    if commit.headers is not None:
        metadata = initial_metadata(commit, ())
        call.initial_metadata = lambda: metadata
    return call

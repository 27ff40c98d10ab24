"""Between an httpx request and the engine: the parts the blocking and the asyncio transport share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from meshlib.context import NO_CONTEXT, CallContext, CallHead, current
from meshlib.engine.call import call_flow
from meshlib.engine.commands import BodyEnd, CallInfo, Commit, Fail, Flow, Reply, Start
from meshlib.errors import CallFailure
from meshlib.flags import ResponseFlag
from meshlib.http.errors import body_exception, exception_for, failure_of
from meshlib.http.library import Library
from meshlib.http.trace import Trace
from meshlib.http.wire.types import FailureKind, Timeouts, WireError, WireRequest
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.policy.classify import classify

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

NO_TIMEOUT: dict[str, float | None] = {}


class Core(Protocol):
    """The transport an exchange belongs to."""

    mesh: Mesh
    library: Library
    response: Any
    """The class of its responses, the library's or derived from it."""
    traced: Any
    """The class of a response body whose reading is told to a `trace` extension."""
    slowed: Any
    """The class of a response body that a fault slows."""


class Exchange:
    """One httpx request on its way through the mesh.

    `body` is bytes when the whole body is at hand (and so can be sent again), else the request's own stream.
    """

    __slots__ = ("body", "core", "flow", "library", "on_silence", "request", "server_name", "timeouts", "trace")

    def __init__(self, core: Core, request: Any) -> None:
        library = core.library
        self.core = core
        self.library = library
        self.request = request
        extensions = request.extensions
        self.timeouts: dict[str, float | None] = extensions.get("timeout") or NO_TIMEOUT
        self.server_name: str | None = extensions.get("sni_hostname")
        hook = extensions.get("trace")
        self.trace = None if hook is None else Trace(hook, request)
        self.on_silence = Failure.TIMEOUT
        stream = request.stream
        whole = isinstance(stream, library.ByteStream)
        self.body: Any = b"".join(stream) if whole else stream
        context = current.get()
        self.flow: Flow = call_flow(
            core.mesh.runtime,
            head_of(request, context),
            time.monotonic(),
            deadline=context.deadline,
            replayable=whole,
        )

    def wire_request(self, start: Start) -> WireRequest:
        """The request of one attempt, as bytes-to-be."""
        head = start.head
        method = head.method.encode("ascii", "replace")  # what is replaced is no method, which the wire says
        return WireRequest(method, head.path.encode("latin-1"), head.headers, self.body or None, self.trace)

    def copied(self, core: Core, body: bytes) -> Self:
        """What carries a copy of the request over `core`, once it has a flow; the caller's own timeouts and `trace` are
        not for it.
        """
        copy = object.__new__(type(self))
        copy.core, copy.library, copy.request, copy.body = core, self.library, self.request, body
        copy.timeouts, copy.server_name, copy.trace = NO_TIMEOUT, self.server_name, None
        copy.on_silence = Failure.TIMEOUT
        return copy

    def wire_timeouts(self, start: Start) -> Timeouts:
        """Httpx's own timeouts, the cluster's connect timeout, the route's idle limit and the attempt's deadline."""
        given = self.timeouts
        connect, limit = given.get("connect"), start.cluster.connect_timeout
        read, idle = given.get("read"), start.idle
        if idle is not None and (read is None or idle.seconds < read):
            read, self.on_silence = idle
        return Timeouts(
            limit if connect is None or connect > limit else connect,
            read,
            given.get("write"),
            given.get("pool"),
            start.deadline,
        )

    def answered(self, response: Any, start: Start) -> Outcome:
        """A response arrived. It is on its own now: only the call's final deadline still counts."""
        if start.final_deadline is not start.deadline:
            response.set_deadline(start.final_deadline)
        head = response.head
        return Outcome(head.status, head.headers, response=response)

    def failed(self, error: WireError, start: Start) -> Outcome:
        """No response. A failure of the caller's own body iterator is the caller's to see, as it was raised."""
        if error.kind is FailureKind.REQUEST_BODY_FAILED and error.__cause__ is not None:
            raise error.__cause__
        failure = failure_of(error.kind, start.on_deadline, self.on_silence)
        return Outcome(failure=failure, request_sent=error.request_sent, error=error)

    def finish(self, error: WireError | None) -> None:
        """The body has ended: the flow settles its accounts."""
        failure = None if error is None else failure_of(error.kind, Failure.TIMEOUT, self.on_silence)
        try:
            self.flow.send(BodyEnd(time.monotonic(), failure))
        except StopIteration:
            return

    def committed(self, commit: Commit, stream: Any) -> Any:
        """The library's response around the wire's."""
        wire = commit.outcome.response
        head = wire.head
        if self.trace is not None:
            stream = self.core.traced(stream, self.trace)
        return self.core.response(
            head.status,
            headers=head.headers if commit.headers is None else commit.headers,
            stream=stream,
            extensions={
                "http_version": head.http_version,
                "reason_phrase": head.reason,
                "network_stream": wire.network,
                "meshlib": commit.info,
            },
        )

    def replied(self, reply: Reply) -> Any:
        """The library's response for an answer the mesh made itself."""
        self.flow.close()
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
        stream = self.library.ByteStream(reply.body)
        if reply.info.response_limit is not None:
            stream = self.core.slowed(stream, reply.info.response_limit)
        return self.library.Response(
            reply.status,
            headers=headers,
            stream=stream,
            extensions={"http_version": b"HTTP/1.1", "meshlib": reply.info},
        )

    def exception(self, fail: Fail) -> Exception:
        """The exception for a failed call."""
        self.flow.close()
        return exception_for(self.library, fail, self.request)

    def body_error(self, error: WireError, info: CallInfo) -> Exception:
        """The exception for a body that broke."""
        ended = classify(Outcome(failure=failure_of(error.kind, Failure.TIMEOUT, self.on_silence)))
        flag = ended.flag or ResponseFlag.UC
        failure = CallFailure(flag, str(error), info.route, info.cluster, info.endpoint, info.attempts)
        return body_exception(self.library, error, failure, self.request)


def head_of(request: Any, context: CallContext = NO_CONTEXT) -> RequestHead:
    """The neutral head of an httpx request. Its authority is the Host header, as `:authority` is in Envoy; its path is
    the URL's, or what the `target` extension asks for in its place.
    """
    url = request.url
    headers = request.headers.raw
    authority = ""
    for name, value in headers:
        if name.lower() == b"host":
            authority = value.decode("latin-1")
            break
    if context.headers:
        headers = context.added_to(headers)
    target = request.extensions.get("target") or url.raw_path
    return CallHead(request.method, url.scheme, authority, target.decode("latin-1"), headers)

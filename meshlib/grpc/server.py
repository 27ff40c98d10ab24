"""The server interceptor for `grpc.server`: the server's end of the mesh, for blocking handlers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.context import serving
from meshlib.drivers.inbound import settle
from meshlib.grpc.inbound import KINDS, Inbound, added
from meshlib.grpc.served import ServedContext
from meshlib.grpc.watched import Watched, refused

if TYPE_CHECKING:
    from meshlib.engine.request_limit import RateLimitConfig
    from meshlib.mesh import Mesh
    from meshlib.model.fault import HttpFault
    from meshlib.model.shedding import Shedding
    from meshlib.policy.fault import Fault

__all__ = ["ServerInterceptor"]

Behaviour = Callable[..., Any]


class ServerInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """`grpc.server(pool, interceptors=[mesh.grpc.server_interceptor()])`, before interceptors of your own.

    For calls of every kind: W3C trace context, request id and deadline are taken in and go on with every meshed call
    the handler makes, within streams too; a call whose deadline has passed is refused with DEADLINE_EXCEEDED, one over
    a local limit with UNAVAILABLE or RESOURCE_EXHAUSTED (`LocalRateLimit.rate_limited_as_resource_exhausted`, as in
    Envoy); the verified caller is `meshlib.context.peer()`. What load shedding (`shed`)
    refuses is UNAVAILABLE. Health checks (`grpc.health.v1.Health`) are never limited or shed.

    The request id goes back in the initial metadata. An error before the first message carries it in the trailing
    metadata instead and has no initial metadata, because gRPC and Envoy retry only such ("trailers-only") errors.
    """

    def __init__(
        self,
        mesh: Mesh,
        rate_limits: Sequence[RateLimitConfig] = (),
        faults: Sequence[Fault | HttpFault] = (),
        shed: Sequence[Shedding | str] = (),
    ) -> None:
        self._inbound = Inbound(mesh, rate_limits, faults, shed)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Give the handler wrapped, so that it is served in the call's context."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        name, make = KINDS[handler.request_streaming, handler.response_streaming]
        call = Blocking(self._inbound, handler_call_details.method, ServedContext)
        wrapped = call.wrapped(getattr(handler, name), streams=handler.response_streaming)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)


class Blocking:
    """One call of a blocking handler, whatever server runs it; `served` is what the handler gets as its context."""

    def __init__(self, inbound: Inbound, method: str, served: type[ServedContext]) -> None:
        self._inbound = inbound
        self._method = method
        self._served = served

    def wrapped(self, behaviour: Behaviour, *, streams: bool) -> Behaviour:
        """The handler, served in the call's context."""
        if not streams:
            return self._unary(behaviour)
        by_callback = getattr(behaviour, "experimental_non_blocking", False)  # as grpcio's own health service
        return self._callback(behaviour) if by_callback else self._stream(behaviour)

    def _unary(self, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any) -> Any:
            with self._serving(context) as served:
                response = behaviour(request, served)
                served.end()
                return response

        return serve

    def _stream(self, behaviour: Behaviour) -> Behaviour:
        # The server asks for every response in the context (and on the thread) it began the call in.
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any) -> Iterator[Any]:
            with self._serving(context) as served:
                for response in behaviour(request, served):
                    served.begin()
                    yield response
                served.end()

        return serve

    def _callback(self, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any, send: Callable[[Any], None]) -> None:
            with self._serving(context) as served:
                behaviour(request, served, send)

        return serve

    @contextlib.contextmanager
    def _serving(self, context: Any) -> Iterator[ServedContext]:
        """Serve in the call's context, or refuse (`abort` raises)."""
        admission = self._inbound.admit(self._method, context)
        if admission.pause is not None:
            settle(admission)
        request_id = admission.context.request_id
        if admission.reply is not None:
            refusal = self._inbound.refusal(admission.reply, self._method, request_id)
            refused(admission, refusal.code)
            context.set_trailing_metadata(refusal.trailing)
            context.abort(refusal.code, refusal.details)
        served = self._served(context, request_id, added(admission))
        with serving(admission.context), Watched(admission.watch, served):
            try:
                yield served
            except Exception:
                served.fail()
                raise

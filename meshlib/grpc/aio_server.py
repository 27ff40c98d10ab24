"""The server interceptor for `grpc.aio.server`: the asyncio twin of `meshlib.grpc.server`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc.aio

from meshlib.context import serving
from meshlib.drivers.inbound import asettle
from meshlib.grpc.inbound import KINDS, Inbound, added
from meshlib.grpc.served import AioServedContext, MigratedContext
from meshlib.grpc.server import Behaviour, Blocking
from meshlib.grpc.watched import Watched, refused

if TYPE_CHECKING:
    from meshlib.engine.request_limit import RateLimitConfig
    from meshlib.mesh import Mesh
    from meshlib.model.fault import HttpFault
    from meshlib.model.shedding import Shedding
    from meshlib.policy.fault import Fault

__all__ = ["AioServerInterceptor"]


class AioServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """`grpc.aio.server(interceptors=[mesh.grpc.aio_server_interceptor()])`: what `ServerInterceptor` does, for handlers
    that are coroutines, asynchronous generators, or coroutines that `read` and `write`; blocking handlers, which such a
    server runs on its thread pool, are served as well.
    """

    def __init__(
        self,
        mesh: Mesh,
        rate_limits: Sequence[RateLimitConfig] = (),
        faults: Sequence[Fault | HttpFault] = (),
        shed: Sequence[Shedding | str] = (),
    ) -> None:
        self._inbound = Inbound(mesh, rate_limits, faults, shed)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Give the handler wrapped, so that it is served in the call's context."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        name, make = KINDS[handler.request_streaming, handler.response_streaming]
        call = _Call(self._inbound, handler_call_details.method)
        wrapped = call.wrapped(getattr(handler, name), streams=handler.response_streaming)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)


class _Call:
    """One call. What is wrapped stays of its kind, because the server looks at the kind to know how to run it."""

    def __init__(self, inbound: Inbound, method: str) -> None:
        self._inbound = inbound
        self._method = method

    def wrapped(self, behaviour: Behaviour, *, streams: bool) -> Behaviour:
        """The handler, served in the call's context."""
        if inspect.isasyncgenfunction(behaviour):
            return self._generator(behaviour)
        if inspect.iscoroutinefunction(behaviour):
            return self._coroutine(behaviour)
        return Blocking(self._inbound, self._method, MigratedContext).wrapped(behaviour, streams=streams)

    def _coroutine(self, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        async def serve(request: Any, context: Any) -> Any:
            async with self._serving(context) as served:
                response = await behaviour(request, served)
                await served.end()
                return response

        return serve

    def _generator(self, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._serving(context) as served, contextlib.aclosing(behaviour(request, served)) as responses:
                async for response in responses:
                    await served.begin()
                    yield response
                await served.end()

        return serve

    @contextlib.asynccontextmanager
    async def _serving(self, context: Any) -> AsyncIterator[AioServedContext]:
        """Serve in the call's context, or refuse (`abort` raises)."""
        admission = self._inbound.admit(self._method, context)
        if admission.pause is not None:
            await asettle(admission)
        request_id = admission.context.request_id
        if admission.reply is not None:
            refusal = self._inbound.refusal(admission.reply, self._method, request_id)
            refused(admission, refusal.code)
            await context.abort(refusal.code, refusal.details, refusal.trailing)
        served = AioServedContext(context, request_id, added(admission))
        with serving(admission.context), Watched(admission.watch, served):
            try:
                yield served
            except Exception:
                served.fail()
                raise

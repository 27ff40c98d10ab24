"""The server's end of load reports over gRPC (gRFC A51): in the trailers of every call, or as a service of its own."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio

from meshlib.grpc.inbound import KINDS
from meshlib.load_reports import LoadRecorder
from meshlib.model.orca import HEADER, HEADER_BIN, requested_interval

__all__ = ["AioLoadReportInterceptor", "LoadReportInterceptor", "add_load_reports"]

SERVICE, METHOD = "xds.service.orca.v3.OpenRcaService", "StreamCoreMetrics"
_ERRORS = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
SHORTEST = 30.0  # seconds between two reports of a stream at least, as gRPC's own server has it


class LoadReportInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """For `grpc.server`: a report in the trailing metadata of every call. A call is an error that raises or ends with
    a status that Envoy counts as a 5xx; NOT_FOUND and its like are answers.
    """

    def __init__(self, recorder: LoadRecorder) -> None:
        self._recorder = recorder

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Give the handler wrapped."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(f"/{SERVICE}/"):
            return handler
        name, make = KINDS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, name)
        if getattr(behaviour, "experimental_non_blocking", False):
            return handler
        wrap = self._stream if handler.response_streaming else self._unary
        return make(wrap(behaviour), handler.request_deserializer, handler.response_serializer)

    def _unary(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any) -> Any:
            failed = True
            try:
                response = behaviour(request, context)
                failed = False
                return response
            finally:
                _told(self._recorder, context, failed)

        return serve

    def _stream(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(behaviour)
        def serve(request: Any, context: Any) -> Iterator[Any]:
            failed = True
            try:
                yield from behaviour(request, context)
                failed = False
            finally:
                _told(self._recorder, context, failed)

        return serve


class AioLoadReportInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """The same for `grpc.aio.server` and its asyncio handlers."""

    def __init__(self, recorder: LoadRecorder) -> None:
        self._recorder = recorder

    async def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Give the handler wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(f"/{SERVICE}/"):
            return handler
        name, make = KINDS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, name)
        wrapped = self._wrapped(behaviour)
        return make(wrapped, handler.request_deserializer, handler.response_serializer) if wrapped else handler

    def _wrapped(self, behaviour: Callable[..., Any]) -> Callable[..., Any] | None:
        recorder = self._recorder

        async def serve(request: Any, context: Any) -> Any:
            failed = True
            try:
                response = await behaviour(request, context)
                failed = False
                return response
            finally:
                _told(recorder, context, failed)

        async def serve_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            failed = True
            try:
                async for response in behaviour(request, context):
                    yield response
                failed = False
            finally:
                _told(recorder, context, failed)

        if asyncio.iscoroutinefunction(behaviour):
            return serve
        return serve_stream if hasattr(behaviour, "__code__") and behaviour.__code__.co_flags & 0x200 else None


def _told(recorder: LoadRecorder, context: Any, raised: bool) -> None:
    code = _number(context.code())
    recorder.served(failed=code in _ERRORS if code else raised)
    trailing, report = tuple(context.trailing_metadata() or ()), recorder.report()
    # grpcio's clients keep the binary one to themselves: the other one is for callers in Python.
    both = ((HEADER_BIN, report.to_bytes()), (HEADER, f"BIN {report.to_header()}"))
    context.set_trailing_metadata((*trailing, *both))


def _number(code: Any) -> int:
    """Of a status, 0 before there is one: grpcio has objects here and numbers there."""
    return int(code.value[0] if isinstance(code, grpc.StatusCode) else code or 0)


def add_load_reports(server: Any, recorder: LoadRecorder, *, shortest: float = SHORTEST) -> None:
    """Serve `xds.service.orca.v3.OpenRcaService` on a `grpc.server` or `grpc.aio.server`: whoever asks gets a report
    every so often, at least `shortest` seconds apart. On a `grpc.server` each stream takes a thread of its pool.
    """
    stream = _aio_stream if isinstance(server, grpc.aio.Server) else _stream
    handler = grpc.unary_stream_rpc_method_handler(functools.partial(stream, recorder, shortest))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))


def _stream(recorder: LoadRecorder, shortest: float, request: bytes, context: Any) -> Iterator[bytes]:
    gone = threading.Event()
    context.add_callback(gone.set)
    interval = max(shortest, requested_interval(request))
    while not gone.is_set():
        yield recorder.report().to_bytes()
        gone.wait(interval)


async def _aio_stream(recorder: LoadRecorder, shortest: float, request: bytes, _: Any) -> AsyncIterator[bytes]:
    interval = max(shortest, requested_interval(request))
    while True:
        yield recorder.report().to_bytes()
        await asyncio.sleep(interval)

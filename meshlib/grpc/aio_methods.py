"""The multi-callables of the asyncio channel."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc import aio

from meshlib.grpc.aio_calls import StreamStreamCall, StreamUnaryCall, UnaryStreamCall, UnaryUnaryCall
from meshlib.grpc.aio_exchange import OneResponse
from meshlib.grpc.aio_requests import RequestWriter
from meshlib.grpc.aio_stream import ManyResponses
from meshlib.grpc.exchange import Asked
from meshlib.grpc.multicallable import Method

if TYPE_CHECKING:
    from meshlib.grpc.aio_channel import AsyncMeshChannel


class _Bound:
    """A method of a channel."""

    def __init__(self, core: AsyncMeshChannel, method: Method) -> None:
        self._core = core
        self._method = method


class UnaryUnary(_Bound, aio.UnaryUnaryMultiCallable):  # type: ignore[misc]  # grpcio ships no types
    """A method with one request and one response."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> UnaryUnaryCall:
        """Start a call; await it for the response."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        exchange = OneResponse(self._core, self._method, request, asked)
        return self._core.begun_plain(UnaryUnaryCall(exchange, asyncio.get_running_loop()), exchange)


class UnaryStream(_Bound, aio.UnaryStreamMultiCallable):  # type: ignore[misc]  # grpcio ships no types
    """A method with one request and a stream of responses."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> UnaryStreamCall:
        """Start a call; iterate over it, or read from it."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        exchange = ManyResponses(self._core, self._method, request, asked)
        return self._core.begun(UnaryStreamCall(exchange, asyncio.get_running_loop()))


class StreamUnary(_Bound, aio.StreamUnaryMultiCallable):  # type: ignore[misc]  # grpcio ships no types
    """A method with a stream of requests and one response."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> StreamUnaryCall:
        """Start a call; without an iterator, write to it."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        writer = RequestWriter(self._method.serializer)
        call = StreamUnaryCall(OneResponse(self._core, self._method, writer, asked), asyncio.get_running_loop())
        call.take(writer, request_iterator)
        return self._core.begun(call)


class StreamStream(_Bound, aio.StreamStreamMultiCallable):  # type: ignore[misc]  # grpcio ships no types
    """A method with a stream of requests and a stream of responses."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> StreamStreamCall:
        """Start a call; without an iterator, write to it."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        writer = RequestWriter(self._method.serializer)
        call = StreamStreamCall(ManyResponses(self._core, self._method, writer, asked), asyncio.get_running_loop())
        call.take(writer, request_iterator)
        return self._core.begun(call)

"""The multi-callables with one response: blocking calls, and futures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.grpc.exchange import Asked
from meshlib.grpc.multicallable import Method
from meshlib.grpc.requests import RequestStream
from meshlib.grpc.sync_base import CallObject
from meshlib.grpc.sync_future import FutureProgress
from meshlib.grpc.sync_unary import BlockingCall

if TYPE_CHECKING:
    from meshlib.grpc.sync_channel import MeshChannel


class UnaryUnary(grpc.UnaryUnaryMultiCallable):  # type: ignore[misc]  # grpcio ships no types
    """A method with one request and one response."""

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
    ) -> Any:
        """The response."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        return BlockingCall(self._core, self._method, request, asked).run()

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        """The response and the finished call."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        return BlockingCall(self._core, self._method, request, asked, with_call=True).run()

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> CallObject:
        """Start a call; `result()` is its response."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        return _started(FutureProgress(self._core, self._method, request, asked))


class StreamUnary(grpc.StreamUnaryMultiCallable):  # type: ignore[misc]  # grpcio ships no types
    """A method with a stream of requests and one response."""

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
    ) -> Any:
        """The response."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        requests = RequestStream(request_iterator, self._method.serializer)
        return BlockingCall(self._core, self._method, requests, asked, replayable=requests).run()

    def with_call(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        """The response and the finished call."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        requests = RequestStream(request_iterator, self._method.serializer)
        return BlockingCall(self._core, self._method, requests, asked, with_call=True, replayable=requests).run()

    def future(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> CallObject:
        """Start a call; `result()` is its response."""
        asked = Asked(timeout, metadata, credentials, wait_for_ready, compression)
        requests = RequestStream(request_iterator, self._method.serializer)
        return _started(FutureProgress(self._core, self._method, requests, asked, requests))


def _started(progress: FutureProgress) -> CallObject:
    """The call object, once the first attempt has begun."""
    call = CallObject(progress)
    progress.core.begun(progress)
    progress.driver.start()
    return call

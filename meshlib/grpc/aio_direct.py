"""The plainest asyncio call on a sub-channel: `direct`'s counterpart for grpc.aio, under the same rules.

grpc.aio gives each call a task, which takes two turns of the event loop: one before anything is sent, and one after
the response is there. Here a call is on its way when it has been made, and whoever awaits it is who the response wakes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from grpc import aio

from meshlib.grpc.metadata import received

try:
    from grpc._cython import cygrpc
    from grpc.aio import _call, _channel

    _shown: Any = _call.Call
    _initial, _trailing = _shown.initial_metadata, _shown.trailing_metadata
    _said, _debug = _shown.details, _shown.debug_error_string
    _error = _call._create_rpc_error
    _details = _call._LOCAL_CANCELLATION_DETAILS
    _deserialize = _call._common.deserialize
    _census = cygrpc.build_census_context
    _unary_unary = cygrpc._AioCall.unary_unary
except (ImportError, AttributeError):  # another grpcio
    _initial = _trailing = _said = _debug = _channel = None


class DirectCall:
    """A call under way. It is awaited by one at a time, and once it has ended by nobody anew."""

    __slots__ = ("_cython_call", "_deserializer", "_ended", "_response", "_waiter")

    # What grpcio's own calls show, by grpcio's own code.
    initial_metadata = _initial
    trailing_metadata = _trailing
    details = _said
    debug_error_string = _debug

    def __init__(self, cython_call: Any, response: Coroutine[Any, None, Any], deserializer: Any) -> None:
        self._cython_call = cython_call
        self._response = response
        self._deserializer = deserializer
        self._ended: Callable[[Any], None] | None = None
        self._waiter = response.send(None)  # begins the call, and stops at the future that the response will set

    def __await__(self) -> Generator[Any, None, Any]:
        """The response; raises grpcio's error."""
        call, waiter, raw = self._cython_call, self._waiter, None
        ended, self._ended = self._ended, None  # no cycle: a call that is over goes with its last reference
        if ended is not None:
            waiter.remove_done_callback(ended)  # whoever awaits it need not be told
        try:
            while True:
                if not waiter.done():
                    yield waiter
                if call.is_locally_cancelled():
                    raise asyncio.CancelledError
                waiter = self._response.send(None)  # grpcio takes what has come, and the status
        except StopIteration as come:
            raw = come.value
        except (asyncio.CancelledError, GeneratorExit):
            self._response.close()
            if not call.done():
                call.cancel(_details)
            raise
        if call.is_ok():
            return raw if self._deserializer is None else _deserialize(raw, self._deserializer)
        raise _error(call._initial_metadata, call._status)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The initial metadata of a call that has ended, as header pairs."""
        initial = self._cython_call._initial_metadata
        return received(initial) if initial else []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have `callback` called when the call ends and nobody awaits it."""
        self._ended = callback
        self._waiter.add_done_callback(callback)

    def cancel(self) -> bool:
        """Cancel it; False when it is over."""
        if self._cython_call.done():
            return False
        self._cython_call.cancel(_details)
        self._waiter.cancel()
        return True


class DirectMethod:
    """One unary method of one sub-channel. `of` gives None where this grpcio is not as expected."""

    __slots__ = ("_channel", "_deserializer", "_handle", "_method", "_serializer")

    def __init__(self, channel: Any, method: bytes, serializer: Any, deserializer: Any, handle: Any) -> None:
        self._channel = channel
        self._method = method
        self._serializer = serializer
        self._deserializer = deserializer
        self._handle = handle

    @classmethod
    def of(cls, call: Any) -> DirectMethod | None:
        """The direct way of a multi-callable of grpc.aio's."""
        if _channel is None or type(call) is not getattr(_channel, "UnaryUnaryMultiCallable", None):
            return None
        try:
            if call._interceptors or _census() is not None:  # somebody looks at calls, through the layer
                return None
            serializer, deserializer = call._request_serializer, call._response_deserializer
            return cls(call._channel, call._method, serializer, deserializer, call._registered_call_handle)
        except AttributeError:
            return None

    def begin(self, request: Any, timeout: float | None, metadata: Any) -> DirectCall | None:
        """Begin a call; None where the public way has to say what is wrong with the request."""
        try:
            data = request if self._serializer is None else self._serializer(request)
        except Exception:  # noqa: BLE001  grpcio's own way logs it and says so
            return None
        if not isinstance(data, bytes):
            return None
        deadline = None if timeout is None else time.time() + timeout
        call = self._channel.call(self._method, deadline, None, None, self._handle)
        try:
            return DirectCall(call, call.unary_unary(data, metadata or (), None), self._deserializer)
        except (TypeError, ValueError, AttributeError, aio.BaseError):  # metadata that are none
            return None

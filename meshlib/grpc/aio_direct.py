"""The plainest asyncio call on a sub-channel: `direct`'s counterpart for grpc.aio, under the same rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any

try:
    from grpc._cython import cygrpc
    from grpc.aio import _call, _channel

    _Base: Any = _call.Call
    _error = _call._create_rpc_error
    _details = _call._LOCAL_CANCELLATION_DETAILS
    _census = cygrpc.build_census_context
except (ImportError, AttributeError):  # another grpcio
    _Base, _channel = object, None


class DirectCall(_Base):  # type: ignore[misc]  # grpcio ships no types
    """A call under way, with all the methods of grpcio's own but one layer less."""

    def __init__(self, cython_call: Any, response: Any, deserializer: Any) -> None:
        self._cython_call = cython_call
        self._deserializer = deserializer
        self._task = asyncio.get_running_loop().create_task(response)

    def __await__(self) -> Generator[Any, None, Any]:
        """The response; raises grpcio's error."""
        call = self._cython_call
        try:
            raw = yield from self._task
        except asyncio.CancelledError:
            if not call.done():
                call.cancel(_details)
            raise
        if call.is_ok():
            return raw if self._deserializer is None else _call._common.deserialize(raw, self._deserializer)
        if call.is_locally_cancelled():
            raise asyncio.CancelledError
        raise _error(call._initial_metadata, call._status)

    def cancel(self) -> bool:
        """Cancel it; False when it is over."""
        if super().cancel():
            self._task.cancel()
            return True
        return False


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
        return DirectCall(call, call.unary_unary(data, metadata or (), None), self._deserializer)

"""The plainest blocking call on a sub-channel, without the layer grpcio has for everything such a call might be.

That layer (a condition, a state object, the handling of events one by one) takes as long as all that the mesh does, and
a call that only waits for its response needs none of it. It goes straight to what the layer stands on, which is private
to grpcio: so this is the one file that knows it, everything it needs is looked for first, whatever is missing or
unusual means the public way, and an error is made by grpcio's own code.
"""

from __future__ import annotations

import time
from typing import Any

try:
    from grpc import _channel
    from grpc._cython import cygrpc

    _send_metadata = cygrpc.SendInitialMetadataOperation
    _send_message = cygrpc.SendMessageOperation
    _send_close = cygrpc.SendCloseFromClientOperation
    _receive_metadata = cygrpc.ReceiveInitialMetadataOperation
    _receive_message = cygrpc.ReceiveMessageOperation
    _receive_status = cygrpc.ReceiveStatusOnClientOperation
    _defaults = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
    _ok = cygrpc.StatusCode.ok
    _due = _channel._UNARY_UNARY_INITIAL_DUE
    _settle = _channel._handle_event
    _State, _Error = _channel._RPCState, _channel._InactiveRpcError
except (ImportError, AttributeError):  # another grpcio
    _channel = None


class DirectCall:
    """One unary method of one sub-channel. `of` gives None where this grpcio is not as expected."""

    __slots__ = ("_channel", "_deserializer", "_handle", "_method", "_serializer")

    def __init__(self, channel: Any, method: bytes, serializer: Any, deserializer: Any, handle: Any) -> None:
        self._channel = channel
        self._method = method
        self._serializer = serializer
        self._deserializer = deserializer
        self._handle = handle

    @classmethod
    def of(cls, call: Any) -> DirectCall | None:
        """The direct way of a multi-callable of grpcio's."""
        if _channel is None or type(call) is not getattr(_channel, "_UnaryUnaryMultiCallable", None):
            return None
        try:
            if call._context is not None:  # somebody observes calls, through the layer
                return None
            serializer, deserializer = call._request_serializer, call._response_deserializer
            return cls(call._channel, call._method, serializer, deserializer, call._registered_call_handle)
        except AttributeError:
            return None

    def serialized(self, request: Any) -> bytes | None:
        """The request's bytes, None where the public way has to say what is wrong with it."""
        if self._serializer is None:
            return request if isinstance(request, bytes) else None
        try:
            data: bytes | None = self._serializer(request)
        except Exception:  # noqa: BLE001  grpcio's own way logs it and says so
            return None
        return data

    def __call__(self, data: bytes, timeout: float | None, metadata: Any) -> Any:
        """The response; raises grpcio's error."""
        operations = (
            _send_metadata(metadata, 0),
            _send_message(data, 0),
            _send_close(0),
            _receive_metadata(0),
            _receive_message(0),
            _receive_status(0),
        )
        event = self._channel.segregated_call(
            _defaults,
            self._method,
            None,
            None if timeout is None else time.time() + timeout,
            metadata,
            None,
            ((operations, None),),
            None,
            self._handle,
        ).next_event()
        if operations[5].code() == _ok and (message := operations[4].message()) is not None:
            if self._deserializer is None:
                return message
            try:
                return self._deserializer(message)
            except Exception:  # noqa: BLE001, S110  made again below, where grpcio logs it and says so
                pass
        state = _State(_due, None, None, None, None)
        state.method, state.target = self._method.decode(), ""  # what its code for observers looks at
        _settle(event, state, self._deserializer)
        if state.code is _channel.grpc.StatusCode.OK:
            return state.response
        raise _Error(state)

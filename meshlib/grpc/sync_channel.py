"""The blocking channel: `grpc.Channel` over the mesh."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from meshlib.engine.commands import Start
from meshlib.grpc.connectivity import Subscription
from meshlib.grpc.metadata import new_channel
from meshlib.grpc.multicallable import Method
from meshlib.grpc.subchannels import Settings, SubChannel, SubChannels
from meshlib.grpc.sync_base import Progress
from meshlib.grpc.sync_single import StreamUnary, UnaryUnary
from meshlib.grpc.sync_stream import StreamStream, UnaryStream
from meshlib.grpc.target import authority_of

if TYPE_CHECKING:
    from meshlib.grpc.shared import Shared
    from meshlib.mesh import Mesh


class MeshChannel(grpc.Channel):  # type: ignore[misc]  # grpcio ships no types
    """A channel to whatever the plan says `target` is, call by call.

    It is READY once the mesh knows what to do with its target (or knows that it does not know it), because connections
    are made by the calls, endpoint by endpoint.
    """

    def __init__(self, mesh: Mesh, shared: Shared, target: str, settings: Settings, compression: Any) -> None:
        self.mesh = mesh
        self.target = target
        self.authority = authority_of(target)
        self.channel_id = new_channel()
        self.settings = settings
        self.compression = compression
        self._shared = shared
        self._fallback: dict[int, Any] = {}  # a plain channel, by fork generation: at most one
        self._closed = False
        self._subscriptions: dict[Callable[[Any], None], Subscription] = {}
        self._calls: weakref.WeakSet[Progress] = weakref.WeakSet()
        shared.opened(self)

    # ------------------------------------------------------------------ for its calls

    def enter(self, start: Start) -> SubChannel:
        """The sub-channel for an attempt, entered."""
        found: SubChannels = self._shared.sync()
        return found.enter(self.mesh.runtime.plan, start, self.settings)

    def fallback_call(self, method: Method) -> Any:
        """The method on a plain channel to the target itself: the mesh does not know it, and lets it pass."""
        generation = self.mesh.generation
        channel = self._fallback.get(generation)
        if channel is None:
            channel = self._fallback.setdefault(generation, plain_channel(self.target, self.settings, self.compression))
        return method.on_channel(channel)

    def begun(self, call: Progress) -> None:
        """A call that goes on by itself: closing the channel cancels it. Raises ValueError once that has happened."""
        self.check_open()
        self._calls.add(call)

    def check_open(self) -> None:
        """Raises ValueError once the channel is closed, as grpcio does."""
        if self._closed:
            raise ValueError("Cannot invoke RPC on closed channel!")

    # ------------------------------------------------------------------ grpc.Channel

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        """A method with one request and one response."""
        known = Method("unary_unary", method, request_serializer, response_deserializer, _registered_method)
        return UnaryUnary(self, known)

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        """A method with one request and a stream of responses."""
        known = Method("unary_stream", method, request_serializer, response_deserializer, _registered_method)
        return UnaryStream(self, known)

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        """A method with a stream of requests and one response."""
        known = Method("stream_unary", method, request_serializer, response_deserializer, _registered_method)
        return StreamUnary(self, known)

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        """A method with a stream of requests and a stream of responses."""
        known = Method("stream_stream", method, request_serializer, response_deserializer, _registered_method)
        return StreamStream(self, known)

    def subscribe(self, callback: Callable[[Any], None], try_to_connect: bool | None = False) -> None:
        """Tell `callback` of the channel's connectivity, now and when it changes, on a thread of its own."""
        known = Subscription(self.mesh, self.authority, callback, bool(try_to_connect))
        self._subscriptions[callback] = known

    def unsubscribe(self, callback: Callable[[Any], None]) -> None:
        """Tell it no more."""
        if (known := self._subscriptions.pop(callback, None)) is not None:
            known.end()

    def close(self) -> None:
        """Take no more calls, and cancel the futures and streams under way. The connections are closed with the mesh's
        last open channel; blocking calls on other threads are cancelled then.
        """
        self._closed = True
        for callback in list(self._subscriptions):
            self.unsubscribe(callback)
        for call in list(self._calls):
            call.cancel()
        for channel in list(self._fallback.values()):
            channel.close()
        self._shared.closed(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def plain_channel(target: str, settings: Settings, compression: Any) -> Any:
    """A channel of grpcio's own."""
    options, credentials = settings
    if credentials is None:
        return grpc.insecure_channel(target, options=options, compression=compression)
    return grpc.secure_channel(target, credentials, options=options, compression=compression)

"""The asyncio channel: `grpc.aio.Channel` over the mesh."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
from grpc import aio

from meshlib.engine.commands import Start
from meshlib.grpc.aio_calls import Call, UnaryUnaryCall
from meshlib.grpc.aio_exchange import OneResponse
from meshlib.grpc.aio_interceptors import intercepted, sorted_by_kind
from meshlib.grpc.aio_methods import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from meshlib.grpc.connectivity import state_of
from meshlib.grpc.metadata import new_channel
from meshlib.grpc.multicallable import Method
from meshlib.grpc.subchannels import Settings, SubChannel, SubChannels
from meshlib.grpc.target import authority_of

if TYPE_CHECKING:
    from meshlib.grpc.shared import Shared
    from meshlib.mesh import Mesh

C = TypeVar("C", bound=Call)


class AsyncMeshChannel(aio.Channel):  # type: ignore[misc]  # grpcio ships no types
    """A channel to whatever the plan says `target` is, call by call. It serves any event loop, each with connections of
    its own.

    It is READY once the mesh knows what to do with its target (or knows that it does not know it), because connections
    are made by the calls, endpoint by endpoint.
    """

    def __init__(
        self, mesh: Mesh, shared: Shared, target: str, settings: Settings, compression: Any, interceptors: Sequence[Any]
    ) -> None:
        self.mesh = mesh
        self.target = target
        self.authority = authority_of(target)
        self.channel_id = new_channel()
        self.settings = settings
        self.compression = compression
        self._shared = shared
        self._interceptors = sorted_by_kind(interceptors)
        self._fallback: dict[asyncio.AbstractEventLoop, Any] = {}
        self._calls: weakref.WeakSet[Call] = weakref.WeakSet()
        self._plain_calls: dict[OneResponse, UnaryUnaryCall] = {}
        self._closed = False
        self._asked = False
        shared.opened(self)

    # ------------------------------------------------------------------ for its calls

    def enter(self, start: Start) -> SubChannel:
        """The sub-channel for an attempt, entered."""
        found: SubChannels = self._shared.aio()
        return found.enter(self.mesh.runtime.plan, start, self.settings)

    def fallback_call(self, method: Method) -> Any:
        """The method on a plain channel to the target itself: the mesh does not know it, and lets it pass."""
        loop = asyncio.get_running_loop()
        if loop not in self._fallback:
            self._fallback = {known: channel for known, channel in self._fallback.items() if not known.is_closed()}
            self._fallback[loop] = plain_channel(self.target, self.settings, self.compression)
        return method.serialized_on(self._fallback[loop])

    def begun(self, call: C) -> C:
        """A call has begun: closing the channel cancels it. Raises UsageError once the channel is closed."""
        if self._closed:
            call.cancel()
            raise aio.UsageError("Channel is closed.")
        self._calls.add(call)
        return call

    def begun_plain(self, call: UnaryUnaryCall, exchange: OneResponse) -> UnaryUnaryCall:
        """The same for a call that runs to its end whoever holds it, and then has itself forgotten."""
        if self._closed:
            call.cancel()
            raise aio.UsageError("Channel is closed.")
        self._plain_calls[exchange] = call
        return call

    def forget(self, exchange: OneResponse) -> None:
        """The call is over."""
        self._plain_calls.pop(exchange, None)

    # ------------------------------------------------------------------ grpc.aio.Channel

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A method with one request and one response."""
        known = Method("unary_unary", method, request_serializer, response_deserializer, _registered_method)
        return intercepted(UnaryUnary(self, known), "unary_unary", known.path, self._interceptors["unary_unary"])

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A method with one request and a stream of responses."""
        known = Method("unary_stream", method, request_serializer, response_deserializer, _registered_method)
        return intercepted(UnaryStream(self, known), "unary_stream", known.path, self._interceptors["unary_stream"])

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A method with a stream of requests and one response."""
        known = Method("stream_unary", method, request_serializer, response_deserializer, _registered_method)
        return intercepted(StreamUnary(self, known), "stream_unary", known.path, self._interceptors["stream_unary"])

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A method with a stream of requests and a stream of responses."""
        known = Method("stream_stream", method, request_serializer, response_deserializer, _registered_method)
        return intercepted(StreamStream(self, known), "stream_stream", known.path, self._interceptors["stream_stream"])

    def get_state(self, try_to_connect: bool = False) -> Any:
        """The channel's connectivity."""
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        if try_to_connect:
            self._asked = True
            self.mesh.ensure_started()
        return state_of(self.mesh, self.authority, self._asked)

    async def wait_for_state_change(self, last_observed_state: Any) -> None:
        """Return when the connectivity is another one."""
        while self.get_state() is last_observed_state:
            if last_observed_state is grpc.ChannelConnectivity.READY:
                await asyncio.sleep(1.0)  # only closing it changes that
            else:
                await self.mesh.await_for(self.authority, time.monotonic() + 1.0)

    async def channel_ready(self) -> None:
        """Return once the plan says what happens to the target."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls; those under way may go on for `grace` seconds, then they are cancelled. Connections of
        the running loop are closed with the mesh's last open channel.
        """
        self._closed = True
        if grace:
            await self._wait_for_calls(grace)
        for call in self._under_way():
            call.cancel()
        fallback = self._fallback.pop(asyncio.get_running_loop(), None)
        if fallback is not None:
            await fallback.close()
        await self._shared.aclosed(self)

    def _under_way(self) -> list[Call]:
        """The calls that may not be over; those of a loop that has been closed never will be."""
        return [*self._calls, *(call for call in list(self._plain_calls.values()) if not call.loop_closed())]

    async def _wait_for_calls(self, grace: float) -> None:
        under_way = [asyncio.ensure_future(call.code()) for call in self._under_way() if not call.done()]
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=grace)
            for waiting in late:
                waiting.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def plain_channel(target: str, settings: Settings, compression: Any) -> Any:
    """A channel of grpc.aio's own."""
    options, credentials = settings
    if credentials is None:
        return aio.insecure_channel(target, options=options, compression=compression)
    return aio.secure_channel(target, credentials, options=options, compression=compression)

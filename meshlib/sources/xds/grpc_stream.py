"""One ADS stream over grpcio's synchronous stack, which is the one that survives a fork of the process.

A channel is made for each stream and closed with it: grpcio's own reconnect back-off would otherwise run beside ours,
and a stream would fail at once for up to two minutes after the server came back.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from meshlib.sources.xds import messages
from meshlib.sources.xds.bootstrap import XdsServer
from meshlib.sources.xds.credentials import CredentialsError, call_metadata, open_channel
from meshlib.sources.xds.types import Request, Response

_SERVICE = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
_SOTW_METHOD = _SERVICE + "StreamAggregatedResources"
_DELTA_METHOD = _SERVICE + "DeltaAggregatedResources"
_UNREAD_RESPONSES = 4  # parsed and not yet used; beyond that HTTP/2 flow control holds the control plane back


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Of the connection to a control plane; seconds and bytes.

    The keepalive is gRPC's own for xDS: servers refuse more frequent pings by default.
    """

    keepalive_time: float = 300.0
    keepalive_timeout: float = 20.0
    connect_timeout: float = 10.0
    max_receive_message_bytes: int = 256 * 1024 * 1024

    def as_arguments(self) -> list[tuple[str, int | str]]:
        """As grpcio takes them."""
        return [
            ("grpc.keepalive_time_ms", int(self.keepalive_time * 1000)),
            ("grpc.keepalive_timeout_ms", int(self.keepalive_timeout * 1000)),
            # Without it gRPC 1.85 waits a minute for the answer to a ping, whatever keepalive_timeout says.
            ("grpc.http2.ping_timeout_ms", int(self.keepalive_timeout * 1000)),
            ("grpc.http2.max_pings_without_data", 0),  # an idle subscription is the normal case
            ("grpc.min_reconnect_backoff_ms", int(self.connect_timeout * 1000)),
            ("grpc.max_receive_message_length", self.max_receive_message_bytes),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.enable_retries", 0),
        ]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request was written to the connection."""

    request: Request


@dataclass(frozen=True, slots=True)
class Received:
    """A response came."""

    response: Response


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is over; nothing follows. ``is_fault``: we gave it up because of what the server sent."""

    code: str
    reason: str
    is_fault: bool = False


StreamReport = Sent | Received | Ended


class GrpcStream:
    """A stream whose news goes to ``report`` from threads of its own; never blocks its caller."""

    def __init__(
        self,
        server: XdsServer,
        node: Any,
        *,
        delta: bool,
        options: ChannelOptions,
        wall_clock: Callable[[], float],
        report: Callable[[GrpcStream, StreamReport], None],
    ) -> None:
        self._server = server
        self._node = node
        self._delta = delta
        self._options = options
        self._wall_clock = wall_clock
        self._report = report
        self._outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_UNREAD_RESPONSES)
        self._call: Any = None
        self._lock = threading.Lock()  # closing and calling must not miss each other
        self._is_closed = False
        self._reader = threading.Thread(target=self._run, name="meshlib-xds-stream", daemon=True)

    def start(self) -> None:
        """Open the stream."""
        self._reader.start()

    def send(self, request: Request) -> None:
        """Queue a request."""
        self._outgoing.put(request)

    def taken(self) -> None:
        """A reported response has been used; the next may be read."""
        self._room.release()

    def close(self) -> None:
        """End the stream, without waiting; an Ended report still follows."""
        with self._lock:
            self._is_closed = True
            if self._call is not None:
                self._call.cancel()
        self._room.release()

    def join(self, timeout: float) -> None:
        """Wait until its thread is gone, if it was started."""
        if self._reader.is_alive():
            self._reader.join(timeout)

    def _run(self) -> None:
        try:
            channel = open_channel(self._server, self._options.as_arguments())
        except CredentialsError as error:
            self._report(self, Ended("UNAUTHENTICATED", str(error)))
            return
        try:
            ended = self._read(channel)
        finally:
            self._outgoing.put(None)
            channel.close()
        self._report(self, ended)

    def _read(self, channel: grpc.Channel) -> Ended:
        parse = messages.parse_delta if self._delta else messages.parse_sotw
        try:
            for data in self._begin(channel):
                self._report(self, Received(parse(data)))
                self._room.acquire()
        except messages.MalformedResponseError as error:
            return Ended("INTERNAL", str(error), is_fault=True)
        except CredentialsError as error:
            return Ended("UNAUTHENTICATED", str(error))
        except grpc.RpcError as error:
            return Ended(error.code().name, error.details() or "no details")
        return Ended("OK", "the control plane ended the stream")

    def _begin(self, channel: grpc.Channel) -> Iterator[bytes]:
        # Without (de)serializers messages stay bytes: grpcio would log a traceback for each that cannot be parsed.
        method = channel.stream_stream(_DELTA_METHOD if self._delta else _SOTW_METHOD)
        metadata = call_metadata(self._server, self._wall_clock)
        with self._lock:
            if self._is_closed:
                return iter(())
            self._call = method(self._requests(), metadata=metadata)
        call: Iterator[bytes] = self._call
        return call

    def _requests(self) -> Iterator[bytes]:
        while (request := self._outgoing.get()) is not None:
            yield messages.request_bytes(request, self._node)
            # grpcio comes back for the next one only when this one has been written to a live connection.
            self._report(self, Sent(request))

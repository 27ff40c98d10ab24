"""The embedded control plane's xDS server: ADS and the per-type services, state of the world and delta.

It runs on grpcio's synchronous stack with two threads a stream. grpc.aio would serve the streams from one thread, but a
second asyncio loop in a process that also uses grpc.aio clients disturbs theirs, and its loop makes forked processes
hang. Threads wait without polling; some hundreds of subscribers are no load. A process that serves should not fork
children that use gRPC: gRPC cannot prepare for a fork while a server is inside it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from meshlib.control.ads_stream import AdsStream, SubscribedType, SubscriberInfo
from meshlib.control.resource_store import Resource, ResourceStore
from meshlib.control.stream_threads import StreamThreads
from meshlib.control.subscriber import TooManyTypesError
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION

__all__ = ["AdsServer", "Resource", "ResourceStore", "SubscribedType", "SubscriberInfo"]

_SERVICES: tuple[tuple[str, str, str | None], ...] = (
    ("envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources", None),
    ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", CLUSTER),
    ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", CLUSTER_LOAD_ASSIGNMENT),
    ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", LISTENER),
    ("envoy.service.route.v3.RouteDiscoveryService", "Routes", ROUTE_CONFIGURATION),
)
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent partner
    ("grpc.keepalive_time_ms", 60_000),  # finds subscribers that vanished without a word
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


class AdsServer:
    """Serves a store. ``address`` is ``host:port`` (port 0 picks one, see ``port``) or ``unix:path``.

    ``credentials`` are grpcio server credentials; without them the server is plaintext. Usable as a context manager.
    Raises OSError when the address cannot be bound.
    """

    def __init__(
        self,
        store: ResourceStore,
        address: str = "127.0.0.1:0",
        *,
        credentials: grpc.ServerCredentials | None = None,
        max_streams: int = 2000,
    ) -> None:
        self._store = store
        self._streams: dict[int, AdsStream] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._is_started = self._is_stopping = False
        self._stop_watching = store.watch(self._wake_all)
        self._server = grpc.server(StreamThreads(), options=_OPTIONS, maximum_concurrent_rpcs=max_streams)
        self._server.add_generic_rpc_handlers(tuple(self._handlers()))
        self.port: int = self._bind(address, credentials)

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            self._stop_watching()
            raise OSError(f"cannot serve ADS on {address}: {error}") from error

    def start(self) -> Self:
        """Accept subscribers; returns itself."""
        self._is_started = True
        self._server.start()
        return self

    def stop(self, grace: float = 0.5) -> None:
        """End all streams in good order, then whatever is left after ``grace`` seconds."""
        self._is_stopping = True
        self._stop_watching()
        if not self._is_started:
            self.start()  # gRPC gives a port back only when a server that ran stops
        ended = self._server.stop(grace)
        for stream in self._open_streams():
            stream.end()
        ended.wait(grace + 1.0)

    def subscribers(self) -> tuple[SubscriberInfo, ...]:
        """Who is connected, in the order they came."""
        return tuple(stream.info for stream in self._open_streams())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _open_streams(self) -> tuple[AdsStream, ...]:
        with self._lock:
            return tuple(self._streams.values())

    def _wake_all(self) -> None:
        for stream in self._open_streams():
            stream.wake()

    def _handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        for service, plural, only_type in _SERVICES:
            methods = {
                f"Stream{plural}": self._method(only_type, delta=False),
                f"Delta{plural}": self._method(only_type, delta=True),
            }
            yield grpc.method_handlers_generic_handler(service, methods)

    def _method(self, only_type: str | None, *, delta: bool) -> grpc.RpcMethodHandler:
        request = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest

        def serve(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            return self._serve(requests, context, only_type, delta=delta)

        return grpc.stream_stream_rpc_method_handler(
            serve,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _serve(
        self, requests: Iterator[Any], context: grpc.ServicerContext, only_type: str | None, *, delta: bool
    ) -> Iterator[Any]:
        number = next(self._numbers)
        stream = AdsStream(number, context.peer(), self._store, delta=delta, only_type=only_type)
        with self._lock:
            self._streams[number] = stream
        if self._is_stopping or not context.add_callback(stream.end):
            stream.end()
        threading.Thread(target=stream.read, args=(requests,), name="meshlib-ads-reader", daemon=True).start()
        try:
            yield from stream.responses()
        except TooManyTypesError as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            with self._lock:
                self._streams.pop(number, None)

"""The client of rate limit services (`envoy.service.ratelimit.v3.RateLimitService`).

A service that is a cluster of the mesh is called as any other: balanced, over the cluster's TLS, with its thresholds,
outlier detection and statistics. One that is a target has a channel of grpcio's own. Blocking callers ask on their own
thread, coroutines on their loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.engine.outbound import cluster_authority
from meshlib.errors import MeshError
from meshlib.grpc.factory import GrpcFactory
from meshlib.grpc.multicallable import Method
from meshlib.model.grpc_service import DataSource, GrpcService, GrpcTls
from meshlib.policy.rate_limit_service import METHOD, ServiceAnswer, answer

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

log = logging.getLogger("meshlib.rate_limit_service")
QUIET = 10.0
"""Seconds without a failure after which a service that was lost is back."""
_ERRORS = (grpc.RpcError, MeshError, ValueError, OSError)
"""What a call may raise: a status, a refusal of ours, bytes that are no answer or a closed channel, a missing file."""


class RateLimitClient:
    """Asks the services of one mesh. Channels are made with the first question, and anew in a forked child."""

    def __init__(self, mesh: Mesh) -> None:
        # A factory of its own: connections of a mesh's channels last until the last channel is closed, and ours stay.
        self._grpc = GrpcFactory(mesh)
        self._blocking: dict[GrpcService, _Way] = {}
        self._aio: dict[GrpcService, _Way] = {}
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._lost: dict[GrpcService, float] = {}

    def question(self, service: GrpcService, data: bytes, timeout: float | None) -> ServiceQuestion:
        """Ask with the bytes of a `RateLimitRequest`, `timeout` seconds at most."""
        return ServiceQuestion(self, service, data, timeout)

    def tell(self, service: GrpcService, data: bytes, timeout: float | None) -> None:
        """The same for nobody: the answer changes nothing."""
        try:
            call = self._blocking_call(service)
            future = call.future(data, timeout=timeout, metadata=service.metadata or None)
            future.add_done_callback(_seen)
        except _ERRORS as error:
            self._failed(service, error)

    def ask(self, service: GrpcService, data: bytes, timeout: float | None) -> ServiceAnswer | None:
        """The service's answer, None where there is none; blocks."""
        try:
            found = answer(self._blocking_call(service)(data, timeout=timeout, metadata=service.metadata or None))
        except _ERRORS as error:
            self._failed(service, error)
            return None
        self._answered(service)
        return found

    async def aask(self, service: GrpcService, data: bytes, seconds: float | None) -> ServiceAnswer | None:
        """The same on the running event loop."""
        try:
            found = answer(await self._aio_call(service)(data, timeout=seconds, metadata=service.metadata or None))
        except _ERRORS as error:
            self._failed(service, error)
            return None
        self._answered(service)
        return found

    def close(self) -> None:
        """Close the channels: those of event loops when the loop comes to it."""
        for way in list(self._blocking.values()):
            way.channel.close()
        for loop in list(self._loops):
            for way in list(self._aio.values()):
                with contextlib.suppress(RuntimeError):  # a loop that has been closed took its connections along
                    loop.call_soon_threadsafe(_close_on, loop, way.channel)

    # ------------------------------------------------------------------ channels

    def _blocking_call(self, service: GrpcService) -> Any:
        way = self._blocking.get(service)
        if way is None:
            made = self._grpc.channel(target_of(service), credentials=credentials_of(service))
            way = self._blocking.setdefault(service, _Way(made, service))
        return way.call()

    def _aio_call(self, service: GrpcService) -> Any:
        way = self._aio.get(service)
        if way is None:
            made = self._grpc.aio_channel(target_of(service), credentials=credentials_of(service))
            way = self._aio.setdefault(service, _Way(made, service))
        self._loops.add(asyncio.get_running_loop())
        return way.call()

    # ------------------------------------------------------------------ what is said of them

    def _failed(self, service: GrpcService, error: Exception) -> None:
        """One line when a service is lost; one that comes and goes, as one endpoint of several may, says no more."""
        known = service in self._lost
        self._lost[service] = time.monotonic()
        if not known:
            log.warning("rate limit service %s does not answer: %s", service.cluster or service.target, told_of(error))

    def _answered(self, service: GrpcService) -> None:
        failed = self._lost.get(service) if self._lost else None
        if failed is None or time.monotonic() - failed < QUIET:
            return
        if self._lost.pop(service, None) is not None:
            log.warning("rate limit service %s answers again", service.cluster or service.target)


class ServiceQuestion:
    """One question, for either kind of driver."""

    __slots__ = ("_client", "_data", "_service", "_timeout")

    def __init__(self, client: RateLimitClient, service: GrpcService, data: bytes, timeout: float | None) -> None:
        self._client = client
        self._service = service
        self._data = data
        self._timeout = timeout

    def ask(self) -> ServiceAnswer | None:
        """Ask, blocking."""
        return self._client.ask(self._service, self._data, self._timeout)

    async def aask(self) -> ServiceAnswer | None:
        """Ask, on the running event loop."""
        return await self._client.aask(self._service, self._data, self._timeout)


class _Way:
    """A mesh channel to a service. A cluster is called through the mesh, a target beside it."""

    __slots__ = ("_method", "_through", "channel")

    def __init__(self, channel: Any, service: GrpcService) -> None:
        self.channel = channel
        self._through = channel.unary_unary(METHOD) if service.cluster else None
        self._method = Method("unary_unary", METHOD, None, None, None)

    def call(self) -> Any:
        """What makes a call, in this process and on this loop."""
        return self.channel.fallback_call(self._method) if self._through is None else self._through


def target_of(service: GrpcService) -> str:
    """What a mesh channel to it is made for."""
    return cluster_authority(service.cluster, service.authority) if service.cluster else service.target


def credentials_of(service: GrpcService) -> Any:
    """What a target is reached with; a cluster has its own TLS. Raises OSError for a file that cannot be read."""
    tls: GrpcTls | None = None if service.cluster else service.tls
    if tls is None:
        return None
    roots, key, chain = (_content(source) or None for source in (tls.root_certs, tls.private_key, tls.cert_chain))
    return grpc.ssl_channel_credentials(roots, key, chain)


def _content(source: DataSource) -> bytes:
    name, data = source
    if not name:
        return data
    return Path(name).read_bytes()


def told_of(error: Exception) -> str:
    """Why a service does not answer, in a line."""
    code = getattr(error, "code", None)
    if isinstance(error, grpc.RpcError) and callable(code):
        return f"{code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"


def _seen(future: Any) -> None:
    """Nobody asks what came of it."""
    with contextlib.suppress(Exception):
        future.exception()


def _close_on(loop: asyncio.AbstractEventLoop, channel: Any) -> None:
    task = loop.create_task(channel.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()

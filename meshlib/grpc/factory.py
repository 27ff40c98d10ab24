"""`mesh.grpc`: channels for grpcio and grpc.aio, and the server's end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshlib.grpc.shared import Shared
from meshlib.grpc.subchannels import Settings

if TYPE_CHECKING:
    import grpc
    from grpc import aio

    from meshlib.drain import Draining
    from meshlib.engine.request_limit import RateLimitConfig
    from meshlib.grpc.aio_channel import AsyncMeshChannel
    from meshlib.grpc.aio_server import AioServerInterceptor
    from meshlib.grpc.server import ServerInterceptor
    from meshlib.grpc.sync_channel import MeshChannel
    from meshlib.mesh import Mesh
    from meshlib.model.fault import HttpFault
    from meshlib.model.shedding import Shedding
    from meshlib.policy.fault import Fault


class GrpcFactory:
    """Channels whose calls go through the mesh; generated stubs take them as they are.

    `target` is a host the mesh knows: `payments`, `payments:443`, and `xds:///payments` or `dns:///payments` mean the
    same. `options` are channel arguments for the connections to endpoints, and win over ours. `compression` is for
    calls that do not choose one. `credentials` secure connections to clusters that have no TLS of their own, and
    connections to hosts the mesh does not know; a cluster's TLS is the control plane's say.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._shared = Shared(mesh)

    def channel(
        self,
        target: str,
        *,
        options: Sequence[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> MeshChannel:
        """A `grpc.Channel`; close it, or use it in a `with`."""
        from meshlib.grpc.sync_channel import MeshChannel

        return MeshChannel(self._mesh, self._shared, target, Settings(tuple(options), credentials), compression)

    def aio_channel(
        self,
        target: str,
        *,
        options: Sequence[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        interceptors: Sequence[aio.ClientInterceptor] = (),
    ) -> AsyncMeshChannel:
        """A `grpc.aio.Channel`; close it, or use it in an `async with`. It serves the event loop it is called on, each
        loop with connections of its own.
        """
        from meshlib.grpc.aio_channel import AsyncMeshChannel

        settings = Settings(tuple(options), credentials)
        return AsyncMeshChannel(self._mesh, self._shared, target, settings, compression, interceptors)

    def server_interceptor(
        self,
        *,
        rate_limits: Sequence[RateLimitConfig] = (),
        faults: Sequence[Fault | HttpFault] = (),
        shed: Sequence[Shedding | str] = (),
    ) -> ServerInterceptor:
        """For `grpc.server(pool, interceptors=[...])`: trace, deadline, limits and peer, see `ServerInterceptor`.
        `rate_limits` as text (`"100/minute"`) or as Envoy's filter, `faults` as `Fault` or as Envoy's filter, `shed` as
        text (`"adaptive"`) or as policies (`meshlib.model.shedding`).
        """
        from meshlib.grpc.server import ServerInterceptor

        return ServerInterceptor(self._mesh, rate_limits, faults, shed)

    def aio_server_interceptor(
        self,
        *,
        rate_limits: Sequence[RateLimitConfig] = (),
        faults: Sequence[Fault | HttpFault] = (),
        shed: Sequence[Shedding | str] = (),
    ) -> AioServerInterceptor:
        """The same for `grpc.aio.server(interceptors=[...])`."""
        from meshlib.grpc.aio_server import AioServerInterceptor

        return AioServerInterceptor(self._mesh, rate_limits, faults, shed)

    def wait_for_termination(
        self,
        server: grpc.Server,
        *,
        drain_seconds: float = 0.0,
        grace: float = 30.0,
        drain: Draining | None = None,
        health: Any = None,
    ) -> None:
        """`server.wait_for_termination()` with a drain on SIGTERM (`meshlib.grpc.termination`), in the main thread.

        `drain_seconds`: how long to go on accepting; or `drain`, a `Draining` of the application's own, to hang hooks
        on. `grace`: seconds for the calls then in flight. `health`: grpcio-health-checking's `HealthServicer`, told
        first. The mesh starts here and closes at the end.
        """
        from meshlib.drain import Draining
        from meshlib.grpc.termination import wait_for_termination

        wait_for_termination(self._mesh, server, drain or Draining(drain_seconds), grace=grace, health=health)

    async def aio_wait_for_termination(
        self,
        server: aio.Server,
        *,
        drain_seconds: float = 0.0,
        grace: float = 30.0,
        drain: Draining | None = None,
        health: Any = None,
    ) -> None:
        """The same for `grpc.aio.server`, on its loop; `health` is then `grpc_health.v1.health.aio.HealthServicer`."""
        from meshlib.drain import Draining
        from meshlib.grpc.termination import aio_wait_for_termination

        await aio_wait_for_termination(self._mesh, server, drain or Draining(drain_seconds), grace=grace, health=health)

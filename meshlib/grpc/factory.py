"""`mesh.grpc`: channels for grpcio and grpc.aio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshlib.grpc.shared import Shared
from meshlib.grpc.subchannels import Settings

if TYPE_CHECKING:
    import grpc
    from grpc import aio

    from meshlib.grpc.aio_channel import AsyncMeshChannel
    from meshlib.grpc.sync_channel import MeshChannel
    from meshlib.mesh import Mesh


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

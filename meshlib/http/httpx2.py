"""`MeshTransport` and `AsyncMeshTransport` for httpx2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from meshlib.http.aio_client import AsyncTransportCore
from meshlib.http.library import library
from meshlib.http.sync_client import SyncTransportCore

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["AsyncMeshTransport", "MeshTransport"]


class MeshTransport(httpx2.BaseTransport):
    """A transport whose requests go through `mesh`: `httpx2.Client(transport=MeshTransport(mesh))`.

    Hosts the mesh does not know go to `fallback` (default: `httpx2.HTTPTransport()`), unless the mesh rejects them.
    Errors are `meshlib.CallError`s and `httpx2.TransportError`s at once.
    """

    def __init__(self, mesh: Mesh, *, fallback: httpx2.BaseTransport | None = None) -> None:
        self._core = SyncTransportCore(mesh, library("httpx2"), fallback)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; called by the client."""
        response: httpx2.Response = self._core.handle(request)
        return response

    def close(self) -> None:
        """Close every connection."""
        self._core.close()


class AsyncMeshTransport(httpx2.AsyncBaseTransport):
    """The asyncio counterpart of `MeshTransport`. May serve several event loops, one after the other or at once."""

    def __init__(self, mesh: Mesh, *, fallback: httpx2.AsyncBaseTransport | None = None) -> None:
        self._core = AsyncTransportCore(mesh, library("httpx2"), fallback)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; called by the client."""
        response: httpx2.Response = await self._core.handle(request)
        return response

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._core.aclose()

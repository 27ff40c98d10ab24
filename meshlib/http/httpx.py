"""`MeshTransport` and `AsyncMeshTransport` for httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from meshlib.http.aio_client import AsyncTransportCore
from meshlib.http.library import library
from meshlib.http.sync_client import SyncTransportCore

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["AsyncMeshTransport", "MeshTransport"]


class MeshTransport(httpx.BaseTransport):
    """A transport whose requests go through `mesh`: `httpx.Client(transport=MeshTransport(mesh))`.

    Hosts the mesh does not know go to `fallback` (default: `httpx.HTTPTransport()`), unless the mesh rejects them.
    Errors are `meshlib.CallError`s and `httpx.TransportError`s at once.
    """

    def __init__(self, mesh: Mesh, *, fallback: httpx.BaseTransport | None = None) -> None:
        self._core = SyncTransportCore(mesh, library("httpx"), fallback)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; called by the client."""
        response: httpx.Response = self._core.handle(request)
        return response

    def close(self) -> None:
        """Close every connection."""
        self._core.close()


class AsyncMeshTransport(httpx.AsyncBaseTransport):
    """The asyncio counterpart of `MeshTransport`. May serve several event loops, one after the other or at once."""

    def __init__(self, mesh: Mesh, *, fallback: httpx.AsyncBaseTransport | None = None) -> None:
        self._core = AsyncTransportCore(mesh, library("httpx"), fallback)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; called by the client."""
        response: httpx.Response = await self._core.handle(request)
        return response

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._core.aclose()

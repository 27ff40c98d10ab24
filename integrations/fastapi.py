"""FastAPI: `app.add_middleware(MeshMiddleware, mesh=mesh)`, and clients as dependencies.

mesh = Mesh.from_file("conf/")
app = FastAPI()
app.add_middleware(MeshMiddleware, mesh=mesh)
Payments = Annotated[httpx.AsyncClient, Depends(mesh_client(mesh, "payments"))]

@app.get("/checkout")
async def checkout(payments: Payments) -> dict: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshlib.http.server import MeshMiddleware

if TYPE_CHECKING:
    import httpx

    from meshlib import Mesh

__all__ = ["MeshMiddleware", "mesh_client"]


def mesh_client(mesh: Mesh, service: str) -> Callable[[], httpx.AsyncClient]:
    """A dependency that gives the process's one client for `service`, made on first use."""
    clients: list[httpx.AsyncClient] = []

    def dependency() -> httpx.AsyncClient:
        if not clients:
            clients.append(mesh.http.async_client(service))
        return clients[0]

    return dependency

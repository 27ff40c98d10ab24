"""Starlette: `Starlette(middleware=[Middleware(MeshMiddleware, mesh=mesh)])`.

The middleware is pure ASGI (`meshlib.http.server`), so streaming, background tasks and context variables work as ever.
"""

from __future__ import annotations

from meshlib.http.server import MeshMiddleware

__all__ = ["MeshMiddleware"]

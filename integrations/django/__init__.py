"""Django: sync and async middleware, settings, system checks, and the process's clients.

INSTALLED_APPS = [..., "meshlib.integrations.django"]
MIDDLEWARE = ["meshlib.integrations.django.MeshMiddleware", ...]
MESHLIB = {"CONFIG": BASE_DIR / "mesh", "READINESS_PATH": "/ready"}

from meshlib.integrations.django import client
client("payments").get("/charge")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .middleware import MeshMiddleware  # noqa: TID252  see __init__
from .process import async_client, client, current_process  # noqa: TID252  see __init__

if TYPE_CHECKING:
    from meshlib import Mesh
    from meshlib.http.drain import Drain

__all__ = ["MeshMiddleware", "async_client", "client", "drain", "mesh"]


def mesh() -> Mesh:
    """The process's one mesh, by the settings' `MESHLIB`; it starts with the first call."""
    return current_process().mesh


def drain() -> Drain:
    """The process's drain, which begins at SIGTERM: `drain().on_drain(leave_the_registry)`."""
    return current_process().drain

"""ASGI and WSGI servers: the program's application behind the mesh's middleware."""

from __future__ import annotations

import sys
from functools import wraps
from types import ModuleType
from typing import Any

from meshlib.zero_code.process import behind_mesh

_WSGI_WORKERS = ("gunicorn.workers.sync", "gunicorn.workers.gthread", "gunicorn.workers.ggevent")
_ASGI_WORKERS = ("gunicorn.workers.gasgi",)
_DJANGOS = "meshlib.integrations.django.MeshMiddleware"
_MOST_LAYERS = 50  # an attribute that any name gives would go on for ever


def mesh_uvicorn(module: ModuleType) -> None:
    """Patch `uvicorn.config`: whatever serves through uvicorn (its command, `uvicorn.run`, gunicorn's workers)."""
    config = module.Config
    own = config.load

    @wraps(own)
    def load(self: Any) -> None:
        own(self)
        if not _has_middleware(self.loaded_app):
            self.loaded_app = behind_mesh(self.loaded_app, "asgi")

    config.load = load


def mesh_gunicorn(module: ModuleType) -> None:
    """Patch `gunicorn.workers.base`: workers that serve WSGI, or ASGI by gunicorn itself."""
    from meshlib.http.drain import install_all

    worker = module.Worker
    own = worker.load_wsgi

    @wraps(own)
    def load_wsgi(self: Any) -> None:
        own(self)
        if _has_middleware(self.wsgi):
            return
        homes = {base.__module__ for base in type(self).__mro__}
        if homes.intersection(_WSGI_WORKERS):
            self.wsgi = behind_mesh(self.wsgi, "wsgi")
            install_all()  # here in the main thread, its signals set: a worker of threads gets no other chance
        elif homes.intersection(_ASGI_WORKERS):
            self.wsgi = behind_mesh(self.wsgi, "asgi")

    worker.load_wsgi = load_wsgi


def _has_middleware(application: Any) -> bool:
    """Whether the program has put its application behind the mesh itself."""
    from meshlib.http.server import MeshMiddleware
    from meshlib.http.wsgi import MeshMiddleware as WsgiMeshMiddleware

    layer = application
    for _ in range(_MOST_LAYERS):
        if layer is None:
            return False
        added = [getattr(middleware, "cls", None) for middleware in getattr(layer, "user_middleware", None) or ()]
        if isinstance(layer, (MeshMiddleware, WsgiMeshMiddleware)) or MeshMiddleware in added:
            return True
        if type(layer).__module__.startswith("django.core.handlers."):
            return _DJANGOS in sys.modules["django.conf"].settings.MIDDLEWARE
        layer = getattr(layer, "app", None) or getattr(layer, "wsgi_app", None)  # Flask's is the latter
    return False

"""Clients of httpx and httpx2, those the program makes itself included, over the mesh's transports.

The transport a client would have made for itself stays as the fallback: hosts the mesh does not know are called with
the client's own TLS, proxy and HTTP/2 settings. A transport the program gave is the program's, and left alone.
"""

from __future__ import annotations

from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from meshlib.zero_code.process import process_mesh

_TRANSPORTS = {"Client": "MeshTransport", "AsyncClient": "AsyncMeshTransport"}


def mesh_clients(module: ModuleType) -> None:
    """Patch `httpx` or `httpx2`. Raises AttributeError where the library is made otherwise than those we know."""
    shell = import_module(f"meshlib.http.{module.__name__}")
    for client, transport in _TRANSPORTS.items():
        _over_the_mesh(getattr(module, client), getattr(shell, transport))


def _over_the_mesh(client: Any, transport: Any) -> None:
    own, proxied = client._init_transport, client._init_proxy_transport  # neither is public; a test watches them

    @wraps(own)
    def init_transport(self: Any, *args: Any, **options: Any) -> Any:
        made = own(self, *args, **options)
        if options.get("transport") is not None:
            return made
        return transport(process_mesh(), fallback=made)

    @wraps(proxied)
    def init_proxy_transport(self: Any, *args: Any, **options: Any) -> Any:
        return transport(process_mesh(), fallback=proxied(self, *args, **options))

    client._init_transport = init_transport
    client._init_proxy_transport = init_proxy_transport

"""ProcessMesh: what one process of an application has of the mesh, for frameworks whose applications are configured
by settings: one mesh, one client for each service, made when first asked for.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from meshlib.settings import mesh_from_settings, server_options

if TYPE_CHECKING:
    import httpx

    from meshlib.http.drain import Drain
    from meshlib.http.inbound import Inbound
    from meshlib.mesh import Mesh

__all__ = ["ProcessMesh"]


class ProcessMesh:
    """`settings` gives the settings when the mesh is first needed, not before.

    Two threads may ask at once: the first one's answer is everybody's. There is no lock, because a fork could take it
    along. A forked child goes on with what its parent made: a mesh and its clients start anew in it by themselves.
    """

    def __init__(self, settings: Callable[[], Mapping[str, Any]]) -> None:
        self._settings = settings
        self._made: dict[Any, Any] = {}

    @property
    def mesh(self) -> Mesh:
        """The mesh, not started: that is left to the first call, in the worker. Closed when the process ends. Raises
        ConfigurationError for settings that are wrong.
        """
        known: Mesh | None = self._made.get("mesh")
        if known is not None:
            return known
        made = mesh_from_settings(self._settings())
        kept: Mesh = self._made.setdefault("mesh", made)
        if kept is made:
            atexit.register(made.close)
        return kept

    @property
    def inbound(self) -> Inbound:
        """The server's end, with the settings' limits, readiness path and drain."""
        from meshlib.http.inbound import Inbound

        known: Inbound | None = self._made.get("inbound")
        if known is None:
            known = self._made.setdefault("inbound", Inbound(self.mesh, **self.server_options))
        return known

    @property
    def drain(self) -> Drain:
        """The process's drain, of the settings' `DRAIN_SECONDS`: to hang hooks on, and to ask whether it has begun."""
        from meshlib.http.drain import Drain

        known: Drain | None = self._made.get("drain")
        if known is None:
            seconds = server_options(self._settings()).get("drain_seconds", 0.0)
            known = self._made.setdefault("drain", Drain(seconds))
        return known

    @property
    def server_options(self) -> dict[str, Any]:
        """What a middleware of `meshlib.http` is made with, beside the mesh."""
        options = server_options(self._settings())
        options.pop("drain_seconds", None)
        return {**options, "drain": self.drain}

    def client(self, service: str) -> httpx.Client:
        """The process's one blocking client for a service (`mesh.http.client`); any thread may use it."""
        known: httpx.Client | None = self._made.get(("client", service))
        return known or self._made.setdefault(("client", service), self.mesh.http.client(service))

    def async_client(self, service: str) -> httpx.AsyncClient:
        """The process's one asyncio client for a service (`mesh.http.async_client`); any event loop may use it: each
        has connections of its own.
        """
        known: httpx.AsyncClient | None = self._made.get(("async_client", service))
        return known or self._made.setdefault(("async_client", service), self.mesh.http.async_client(service))

    def close(self) -> None:
        """Close the mesh; whatever is asked for afterwards is made anew."""
        made, self._made = self._made, {}
        mesh: Mesh | None = made.get("mesh")
        if mesh is not None:
            atexit.unregister(mesh.close)
            mesh.close()

"""`mesh.http`: ready clients and transports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from meshlib.http.library import LibraryName

if TYPE_CHECKING:
    import httpx
    import httpx2

    from meshlib.mesh import Mesh

_OF_TRANSPORTS = ("verify", "cert", "http1", "http2", "limits", "trust_env")


class HttpFactory:
    """Clients of httpx (default) or httpx2 whose calls go through the mesh.

    A client is the library's own, with the mesh's transport: everything it offers (auth, cookies, redirects, hooks,
    streaming) works as ever. `service` is a host the mesh knows ("payments"), or a base URL; options are the library's.
    `timeout` is None unless given: the route's timeout and the inherited deadline hold. To hosts the mesh does not know
    the library's own default applies (5 s), and the deadline. `verify`, `cert`, `http1`, `http2`, `limits` and
    `trust_env` are for those hosts: the others' cluster says such. The proxies of the environment are not used.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    @overload
    def client(self, service: str = "", *, library: Literal["httpx"] = "httpx", **options: Any) -> httpx.Client: ...

    @overload
    def client(self, service: str = "", *, library: Literal["httpx2"], **options: Any) -> httpx2.Client: ...

    def client(self, service: str = "", *, library: LibraryName = "httpx", **options: Any) -> Any:
        """A blocking client; close it, or use it in a `with`."""
        client, _ = _client_types(library)
        return client(transport=_ready(self.transport(library=library), options), **_defaults(service, options))

    @overload
    def async_client(
        self, service: str = "", *, library: Literal["httpx"] = "httpx", **options: Any
    ) -> httpx.AsyncClient: ...

    @overload
    def async_client(self, service: str = "", *, library: Literal["httpx2"], **options: Any) -> httpx2.AsyncClient: ...

    def async_client(self, service: str = "", *, library: LibraryName = "httpx", **options: Any) -> Any:
        """An asyncio client; close it, or use it in an `async with`."""
        _, client = _client_types(library)
        return client(transport=_ready(self.async_transport(library=library), options), **_defaults(service, options))

    def transport(self, *, library: LibraryName = "httpx", fallback: Any = None) -> Any:
        """A transport for a client of yours. `fallback` carries hosts the mesh does not know (default: the library's
        own `HTTPTransport`, made when first needed).
        """
        return _shell(library).MeshTransport(self._mesh, fallback=fallback)

    def async_transport(self, *, library: LibraryName = "httpx", fallback: Any = None) -> Any:
        """The asyncio counterpart of `transport`."""
        return _shell(library).AsyncMeshTransport(self._mesh, fallback=fallback)


def _ready(transport: Any, options: dict[str, Any]) -> Any:
    """The transport of a ready client, with what a client of its own would have made its transport with."""
    if "transport" in options:
        raise TypeError(
            "a ready client has the mesh's transport; give yours to carry the hosts the mesh does not know to "
            "mesh.http.transport(fallback=...), and that to a client of yours"
        )
    if "timeout" not in options:
        library = transport._core.library.module
        transport._core.default_timeout = library.Timeout(5.0).as_dict()  # what their clients have by default
    transport._core.default_options = {name: options[name] for name in _OF_TRANSPORTS if name in options}
    return transport


def _defaults(service: str, options: dict[str, Any]) -> dict[str, Any]:
    options.setdefault("timeout", None)
    if service:
        options.setdefault("base_url", service if "://" in service else f"http://{service}")
    return options


def _client_types(name: LibraryName) -> Any:
    from meshlib.http.clients import client_types
    from meshlib.http.library import library

    return client_types(library(name))


def _shell(name: LibraryName) -> Any:
    from meshlib.http.library import library

    library(name)  # first, for its error that names the extra to install
    if name == "httpx":
        from meshlib.http import httpx as shell
    else:
        from meshlib.http import httpx2 as shell  # type: ignore[no-redef]  # the same names over the other library
    return shell

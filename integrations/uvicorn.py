"""uvicorn with mutual TLS that rotates, and whose application knows its caller.

    from meshlib.identity import Identity
    from meshlib.integrations.uvicorn import run

    run(app, identity=Identity.from_files("tls.crt", "tls.key", "ca.crt"), port=8443)

`config(...)` gives the `uvicorn.Config` instead. By uvicorn's own means: `uvicorn.Config(app,
http=MeshHttpToolsProtocol, ssl_context_factory=ssl_context_factory(ServerTls(identity)))`.

The verified caller is `scope["extensions"]["meshlib"]["peer"]` (`meshlib.security.peer.Peer`, or None), and behind
`MeshMiddleware` `request.state.mesh.peer`. `scope["extensions"]["tls"]` is ASGI's TLS extension. Headers say nothing
about either (`x-forwarded-client-cert` is not looked at).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from meshlib.errors import ConfigurationError
from meshlib.identity import Identity, ServerTls
from meshlib.identity.asgi import misdirected, tls_extensions

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # httptools is optional to uvicorn
    HttpToolsProtocol = H11Protocol  # type: ignore[assignment, misc]

_GOODBYE_SECONDS = 0.25
_RULES = {"trust_domains": None, "allow": (), "require_client_certificate": True}
__all__ = ["MeshH11Protocol", "MeshHttpToolsProtocol", "config", "run", "ssl_context_factory"]


def run(app: Any, *, identity: Identity | ServerTls, **options: Any) -> None:
    """`uvicorn.run` with mutual TLS, in this process; `options` as `config`'s. For several workers let gunicorn fork
    them, with a `UvicornWorker` whose `CONFIG_KWARGS` are `http` and `ssl_context_factory`.
    """
    uvicorn.Server(config(app, identity=identity, **options)).run()


def config(
    app: Any,
    *,
    identity: Identity | ServerTls,
    trust_domains: Iterable[str] | None = None,
    allow: Iterable[str] = (),
    require_client_certificate: bool = True,
    **options: Any,
) -> uvicorn.Config:
    """A `uvicorn.Config`. `trust_domains`, `allow` and `require_client_certificate` are `ServerTls`'s, the rest
    uvicorn's. Raises MaterialError when the identity has no certificate or no authorities, ConfigurationError when a
    `ServerTls` is given, which has its own, beside others of these rules.
    """
    rules: dict[str, Any] = {"trust_domains": trust_domains, "allow": tuple(allow)}
    rules["require_client_certificate"] = require_client_certificate
    tls = _with_its_own(identity, rules) if isinstance(identity, ServerTls) else ServerTls(identity, **rules)
    options.setdefault("http", MeshHttpToolsProtocol)
    return uvicorn.Config(app, ssl_context_factory=ssl_context_factory(tls), **options)


def _with_its_own(tls: ServerTls, rules: dict[str, Any]) -> ServerTls:
    """The server's TLS as it is: rules beside it would be dropped, and let in whom they are to keep out."""
    given = [name for name, value in rules.items() if value != _RULES[name]]
    if given:
        raise ConfigurationError(f"give {', '.join(given)} to ServerTls: one that is made already has its own")
    return tls


def ssl_context_factory(tls: ServerTls) -> Callable[..., ssl.SSLContext]:
    """What `uvicorn.Config(ssl_context_factory=...)` takes."""
    return lambda *_: tls.context


class _Peered:
    """Adds to one of uvicorn's HTTP protocols: the caller in every scope, and no more calls once it is distrusted."""

    app: Any
    transport: Any
    connections: set[Any]
    loop: asyncio.AbstractEventLoop
    ws_protocol_class: Any

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        context, connection = transport.get_extra_info("sslcontext"), transport.get_extra_info("ssl_object")
        self._tls: ServerTls | None = getattr(context, "owner", None)
        self._verified = getattr(connection, "verified", None)
        extensions = tls_extensions(connection, self._verified)
        self.app = self._introducing(self.app, extensions)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = _with_app(self.ws_protocol_class, lambda app: self._introducing(app, extensions))
        if self._tls is not None:
            self._tls.follow(self)
            self._review()  # the trust may have changed between the handshake and now

    def shutdown(self) -> None:
        """As uvicorn's, without its wait of 30 seconds for clients that do not answer TLS's goodbye."""
        super().shutdown()  # type: ignore[misc]
        self.loop.call_later(_GOODBYE_SECONDS, self._hang_up)

    def _hang_up(self) -> None:
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self in self.connections:
            self.loop.call_later(_GOODBYE_SECONDS, self._hang_up)

    def reconsider(self) -> None:
        """Authorities were removed (told on any thread)."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._review)

    def _review(self) -> None:
        """Idle: close now. Busy: after the response. This is what uvicorn does to connections when it shuts down."""
        if self._distrusted():
            self.shutdown()

    def _distrusted(self) -> bool:
        return self._tls is not None and not self._tls.trusts(self._verified)

    def _introducing(self, app: Any, extensions: dict[str, Any]) -> Any:
        async def introduced(scope: Any, receive: Any, send: Any) -> None:
            if self._distrusted():
                await misdirected(scope, receive, send)
                return
            scope["extensions"] = {**scope.get("extensions", {}), **extensions}
            await app(scope, receive, send)

        return introduced


def _with_app(make: Any, around: Callable[[Any], Any]) -> Any:
    """The websocket protocol class, so that its application is told of the caller as well."""

    def made(**options: Any) -> Any:
        protocol = make(**options)
        protocol.app = around(protocol.app)
        return protocol

    return made


class MeshHttpToolsProtocol(_Peered, HttpToolsProtocol):
    """uvicorn's fast protocol (httptools), with the caller in the scope."""


class MeshH11Protocol(_Peered, H11Protocol):
    """uvicorn's h11 protocol, with the caller in the scope."""

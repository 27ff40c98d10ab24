"""ASGI middleware: the server's end of the mesh, for any ASGI framework and server."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.context import serving
from meshlib.engine.events import RateLimited
from meshlib.engine.exchange import REQUEST_ID, admit_request, inbound_context
from meshlib.engine.filters import Filter, LocalRateLimitFilter, LocalReply
from meshlib.flags import ResponseFlag
from meshlib.http.drain import Drain
from meshlib.identity.asgi import peer_of
from meshlib.model.filters import LocalRateLimit
from meshlib.model.request import RequestHead
from meshlib.policy.notation import local_limit
from meshlib.security.peer import Peer

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["MeshMiddleware"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = REQUEST_ID.encode("ascii")
_LIFE_ENDS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")


@dataclass(frozen=True, slots=True)
class RequestMesh:
    """What `request.state.mesh` holds: the caller, as mutual TLS has verified it (None without)."""

    peer: Peer | None = None


class MeshMiddleware:
    """`app.add_middleware(MeshMiddleware, mesh=mesh)`; pure ASGI, no task and no queue of its own.

    For each HTTP request: W3C trace context, request id and deadline are taken in and go on with every meshed call made
    while it is served; a request whose deadline has passed is answered 504, one over a local limit with the limit's
    status; the response carries the request id. Websockets get the context and pass through; lifespan starts the mesh
    (a mesh that cannot start fails the server's startup), installs the drain, and closes the mesh after the
    application's shutdown. Without lifespan the mesh starts with the first call and the drain with the first request.

    `rate_limits`: local limits in order, as text (`"100/minute"`, see `local_limit`) or as Envoy's filter
    (`LocalRateLimit`).
    `drain_seconds`: how long to go on serving after SIGTERM (`meshlib.http.drain`; default 0, no delay); or `drain`, a
    `Drain` of the application's own, to ask whether it is draining and to hang hooks on.
    `readiness_path`: a path answered here, 200 or 503 while draining; None leaves readiness to the application.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        mesh: Mesh,
        rate_limits: Sequence[LocalRateLimit | str] = (),
        drain_seconds: float = 0.0,
        drain: Drain | None = None,
        readiness_path: str | None = None,
    ) -> None:
        self.app = app
        self.mesh = mesh
        self.drain = drain or Drain(drain_seconds)
        self._drain_tried = False
        self._filters: tuple[Filter, ...] = tuple(_filter(limit) for limit in rate_limits)
        self._readiness_path = readiness_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await self._lifespan(scope, receive, send)
            case _:
                await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._drain_tried:
            self._install_drain()
        if self._readiness_path is not None and scope["path"] == self._readiness_path:
            await self._readiness(scope, send)
            return
        peer = self._introduce(scope)
        admission = admit_request(_head(scope), time.monotonic(), self._filters, self.mesh.runtime.rng, peer=peer)
        request_id = admission.context.request_id.encode("ascii")
        if admission.reply is not None:
            await self._answer(admission.reply, scope, send, request_id)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._marked(scope, message.get("headers", ()), request_id)
            await send(message)

        with serving(admission.context):
            await self.app(scope, receive, send_marked)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = self._introduce(scope)
        with serving(inbound_context(_head(scope), time.monotonic(), self.mesh.runtime.rng, peer=peer)):
            await self.app(scope, receive, send)

    def _introduce(self, scope: Scope) -> str:
        """Put `mesh` into the request's state; the caller's SPIFFE ID, empty when it has none that TLS has verified."""
        peer = peer_of(scope)
        scope.setdefault("state", {})["mesh"] = RequestMesh(peer)
        return "" if peer is None else str(peer.spiffe_id)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_noticed() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._startup(send)
            return message

        async def send_noticed(message: Message) -> None:
            if message["type"] in _LIFE_ENDS:
                self._shutdown()
            await send(message)

        try:
            await self.app(scope, receive_noticed, send_noticed)
        except BaseException:
            self._shutdown()
            raise

    async def _startup(self, send: Send) -> None:
        """Start the mesh. A failure is told in lifespan's own words, because a server that only sees an exception takes
        it for an application without lifespan, and serves.
        """
        try:
            self.mesh.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": f"the mesh cannot start: {error}"})
            raise
        self._install_drain()

    def _install_drain(self) -> None:
        self._drain_tried = True
        self.drain.install()

    def _shutdown(self) -> None:
        self.drain.uninstall()
        self.mesh.close()

    async def _readiness(self, scope: Scope, send: Send) -> None:
        draining = self.drain.draining
        body = b"draining" if draining else b"ready"
        await _send_whole(send, 503 if draining else 200, self._marked(scope, [], b""), body)

    async def _answer(self, reply: LocalReply, scope: Scope, send: Send, request_id: bytes) -> None:
        if reply.flag is ResponseFlag.RL:
            path = scope["path"]
            self.mesh.runtime.emit(lambda: RateLimited(time.monotonic(), reply.name, path))
        await _send_whole(send, reply.status, self._marked(scope, reply.headers, request_id), reply.body)

    def _marked(self, scope: Scope, headers: Any, request_id: bytes) -> list[tuple[bytes, bytes]]:
        """The response's headers with the request id (unless the application set one) and, draining, a request to
        close the connection (HTTP/2 and 3 know no such header; their servers say GOAWAY).
        """
        marked = list(headers)
        if request_id and not any(name.lower() == _REQUEST_ID for name, _ in marked):
            marked.append((_REQUEST_ID, request_id))
        if self.drain.draining and scope.get("http_version", "1.1").startswith("1"):
            marked.append((b"connection", b"close"))
        return marked


def _filter(limit: LocalRateLimit | str) -> Filter:
    return LocalRateLimitFilter(local_limit(limit) if isinstance(limit, str) else limit)


def _head(scope: Scope) -> RequestHead:
    raw_path = scope.get("raw_path") or scope["path"].encode("utf-8")
    query = scope.get("query_string", b"")
    target = raw_path + b"?" + query if query else raw_path
    headers = scope["headers"]
    authority = next((value for name, value in headers if name == b"host"), b"").decode("latin-1")
    return RequestHead(
        scope.get("method", "GET"), scope.get("scheme", "http"), authority, target.decode("latin-1"), headers
    )


async def _send_whole(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

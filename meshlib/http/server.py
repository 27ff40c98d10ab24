"""ASGI middleware: the server's end of the mesh, for any ASGI framework and server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from meshlib.context import current, serving
from meshlib.drivers.shedding import HEALTH_PATHS
from meshlib.engine.exchange import REQUEST_ID, Admission, inbound_context
from meshlib.engine.filters import LocalReply
from meshlib.engine.request_limit import RateLimitConfig
from meshlib.http.cors import replaced
from meshlib.http.drain import Drain
from meshlib.http.inbound import PLAIN_TEXT, Inbound
from meshlib.http.slowed import SlowSend
from meshlib.http.watched import serve_watched
from meshlib.identity.asgi import introduce
from meshlib.model.cors import CorsPolicy
from meshlib.model.fault import HttpFault
from meshlib.model.request import RequestHead, ServedHead
from meshlib.model.shedding import Shedding
from meshlib.policy.fault import Fault

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["MeshMiddleware", "admit"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = REQUEST_ID.encode("ascii")
_LIFE_ENDS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")


class MeshMiddleware:
    """`app.add_middleware(MeshMiddleware, mesh=mesh)`; pure ASGI, no task and no queue of its own.

    For each HTTP request: W3C trace context, request id and deadline are taken in and go on with every meshed call made
    while it is served; a request whose deadline has passed is answered 504, one over a local limit with the limit's
    status; the response carries the request id. Websockets get the context and pass through; lifespan starts the mesh
    (a mesh that cannot start fails the server's startup), installs the drain, and closes the mesh after the
    application's shutdown. Without lifespan the mesh starts with the first call and the drain with the first request.

    The options are those of `meshlib.http.inbound.Inbound`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        mesh: Mesh,
        rate_limits: Sequence[RateLimitConfig] = (),
        faults: Sequence[Fault | HttpFault] = (),
        shed: Sequence[Shedding | str] = (),
        health_paths: Sequence[str] = HEALTH_PATHS,
        drain_seconds: float = 0.0,
        drain: Drain | None = None,
        readiness_path: str | None = None,
        cors: CorsPolicy | bool = False,
    ) -> None:
        self.app = app
        self.mesh = mesh
        self.inbound = Inbound(
            mesh,
            rate_limits=rate_limits,
            faults=faults,
            shed=shed,
            health_paths=health_paths,
            drain_seconds=drain_seconds,
            drain=drain,
            readiness_path=readiness_path,
            cors=cors,
        )
        self.inbound.app = app
        self.drain = self.inbound.drain

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

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901  a layer for each costs
        ready = self.inbound.readiness(scope["path"])
        if ready is not None:
            await self._answer(ready, scope, send, b"")
            return
        admission = admit(self.inbound, scope)
        if admission.pause is not None:
            await self.inbound.asettle(admission)
        context = admission.context
        request_id = context.request_id.encode("ascii")
        if admission.reply is not None:
            await self._answer(admission.reply, scope, send, request_id)
            return
        if admission.response_limit is not None:
            send = SlowSend(send, admission.response_limit)

        status: int | None = None

        if admission.head is not None:
            scope = {**scope, "headers": list(admission.head.headers)}

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.get("headers", ())
                if admission.headers:
                    headers = replaced(headers, admission.headers)
                message["headers"] = self._marked(scope, headers, request_id)
            await send(message)

        watch, whole = admission.watch, False
        token = current.set(context)  # as `serving` does, written out because it is run for every request
        try:
            if watch is None:
                await self.app(scope, receive, send_marked)
            elif watch.looks_on:
                await serve_watched(watch, self.app, scope, receive, send_marked)
            else:
                try:
                    await self.app(scope, receive, send_marked)
                    whole = True
                except Exception:
                    whole, status = status is None, status or 500
                    raise
                finally:
                    watch.ended(time.monotonic(), status, whole=whole)
        finally:
            with contextlib.suppress(ValueError):
                current.reset(token)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        head, peer = request_head(scope), introduce(scope)
        runtime = self.mesh.runtime
        now, propagation = time.monotonic(), runtime.propagation
        with serving(inbound_context(head, now, runtime.rng, peer=peer, propagation=propagation)):
            await self.app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def receive_noticed() -> Message:
            nonlocal begun
            message = await receive()
            if message["type"] == "lifespan.startup":
                begun = True
                await self._startup(send)
            return message

        async def send_noticed(message: Message) -> None:
            if message["type"] in _LIFE_ENDS:
                self.inbound.shutdown()
            await send(message)

        try:
            await self.app(scope, receive_noticed, send_noticed)
        except BaseException:
            if begun:  # else the application knows no lifespan, and is served without one
                self.inbound.shutdown()
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
        self.inbound.install_drain()

    async def _answer(self, reply: LocalReply, scope: Scope, send: Send, request_id: bytes) -> None:
        whole = [*reply.headers, (b"content-length", b"%d" % len(reply.body)), PLAIN_TEXT]
        headers = self._marked(scope, whole, request_id)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _marked(self, scope: Scope, headers: Any, request_id: bytes) -> list[tuple[bytes, bytes]]:
        """The response's headers with the request id (unless the application set one) and, draining, a request to
        close the connection (HTTP/2 and 3 know no such header; their servers say GOAWAY).
        """
        marked = list(headers)
        if request_id:
            for name, _ in marked:
                if len(name) == len(_REQUEST_ID) and name.lower() == _REQUEST_ID:
                    break
            else:
                marked.append((_REQUEST_ID, request_id))
        if self.drain.draining and scope.get("http_version", "1.1").startswith("1"):
            marked.append((b"connection", b"close"))
        return marked


def admit(inbound: Inbound, scope: Scope) -> Admission:
    """Whether the request of a scope is to be served, and in which context: for a middleware of another kind."""
    client = scope.get("client")
    return inbound.admit(request_head(scope), introduce(scope), client[0] if client else "")


def request_head(scope: Scope) -> RequestHead:
    """The neutral head of a scope. Its path is the one on the wire, before the server decoded it."""
    raw_path = scope.get("raw_path") or scope["path"].encode("utf-8")
    query = scope.get("query_string", b"")
    target = raw_path + b"?" + query if query else raw_path
    headers = scope["headers"]
    authority = ""
    for name, value in headers:
        if name == b"host":
            authority = value.decode("latin-1")
            break
    client = scope.get("client")
    return ServedHead(
        scope.get("method", "GET"),
        scope.get("scheme", "http"),
        authority,
        target.decode("latin-1"),
        headers,
        client[0] if client else "",
    )

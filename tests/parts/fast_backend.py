"""A very fast HTTP/1.1 service on a thread of the test's own process, whose every answer is a value the test chooses.

Use it where the test is about the caller: it starts in a millisecond, needs no process, and can do what no framework
lets an application do (reset the connection, never answer, cut a body short). It is not a model of a real server: for
that, ``backend`` runs uvicorn.
"""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in; header names are lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int = 0  # which of the backend's connections it came over, counted from 1

    def header(self, name: str, default: str | None = None) -> str | None:
        """The first value of the header."""
        return next((value for key, value in self.headers if key == name.lower()), default)


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer.

    ``fault`` is one of: None, "reset" (RST instead of an answer), "hang" (no answer, connection open), "close" (clean
    end instead of an answer), "half-close" (an end of ours instead of an answer; what the peer still says is read),
    "truncate" (head and half of the body, then the end).
    """

    status: int = 200
    body: bytes | None = None  # None: a JSON echo with the service's name
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0  # seconds before the answer
    fault: str | None = None


@dataclass(slots=True)
class _Incoming:
    target: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)


class FastBackend:
    """The service; ``reply`` may be replaced at any time, ``requests`` holds what came, in order."""

    def __init__(
        self,
        name: str,
        reply: Callable[[Request], Reply] | Reply = Reply(),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.name = name
        self.host = host
        self.reply = reply
        self.requests: list[Request] = []
        self.open_connections: set[asyncio.Transport] = set()
        self.connections_made = 0
        self._listener = socket.create_server((self.host, port), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fast-backend-{name}", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def count(self) -> int:
        return len(self.requests)

    def behave(self, reply: Callable[[Request], Reply] | Reply | None = None, **fields: object) -> None:
        """Answer this from now on: a Reply, a function of the request, or the fields of one; nothing: be good again."""
        self.reply = Reply(**fields) if reply is None else reply  # type: ignore[arg-type]

    def drop_connections(self) -> None:
        """Reset every open connection, as a crash would; new ones are still accepted."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(self._drop, done)
        done.wait(5)

    def stop(self) -> None:
        """Close the listener and every connection. Safe to call twice."""
        if self._thread.is_alive():
            self._serving.wait(5)  # a loop stopped while it starts would end its thread with an error
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self._loop.create_server(lambda: _Connection(self), sock=self._listener))
        self._serving.set()
        self._loop.run_forever()
        server.close()
        for transport in list(self.open_connections):
            transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _drop(self, done: threading.Event) -> None:
        for transport in list(self.open_connections):
            reset(transport)
        self._loop.call_soon(done.set)


class _Connection(asyncio.Protocol):
    """One connection; pipelined requests are answered in order when no delay is asked for."""

    def __init__(self, backend: FastBackend) -> None:
        self._backend = backend
        self._parser = httptools.HttpRequestParser(self)
        self._incoming = _Incoming()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._backend.open_connections.add(transport)
        self._backend.connections_made += 1
        self._number = self._backend.connections_made

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.open_connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def eof_received(self) -> bool:
        return False  # both ends have ended: close

    def on_message_begin(self) -> None:
        self._incoming = _Incoming()

    def on_url(self, url: bytes) -> None:
        self._incoming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._incoming.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._incoming.body.append(body)

    def on_message_complete(self) -> None:
        incoming, backend = self._incoming, self._backend
        request = Request(
            self._parser.get_method().decode(),
            incoming.target.decode("latin-1"),
            tuple(incoming.headers),
            b"".join(incoming.body),
            self._number,
        )
        backend.requests.append(request)
        reply = backend.reply if isinstance(backend.reply, Reply) else backend.reply(request)
        if reply.delay:
            backend._loop.call_later(reply.delay, self._answer, request, reply)
        else:
            self._answer(request, reply)

    def _answer(self, request: Request, reply: Reply) -> None:
        if self._transport.is_closing() or reply.fault == "hang":
            return
        if reply.fault == "reset":
            reset(self._transport)
        elif reply.fault == "close":
            self._transport.close()
        elif reply.fault == "half-close":
            self._transport.write_eof()
        else:
            self._transport.write(_encode(self._backend.name, request, reply))
            if reply.fault == "truncate" or request.header("connection") == "close":
                self._transport.close()


def reset(transport: asyncio.Transport) -> None:
    """Close so that the peer gets RST."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()


def _encode(name: str, request: Request, reply: Reply) -> bytes:
    body = _echo(name, request) if reply.body is None else reply.body
    reason = HTTPStatus(reply.status).phrase if reply.status in HTTPStatus._value2member_map_ else "-"
    lines = [f"HTTP/1.1 {reply.status} {reason}", f"x-backend: {name}", f"content-length: {len(body)}"]
    lines += [f"{key}: {value}" for key, value in reply.headers]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    if request.method == "HEAD":
        return head
    return head + (body[: len(body) // 2] if reply.fault == "truncate" else body)


def _echo(name: str, request: Request) -> bytes:
    path, _, query = request.target.partition("?")
    echo = {
        "name": name,
        "method": request.method,
        "path": path,
        "query": query,
        "headers": [list(pair) for pair in request.headers],
        "body": request.body.decode("utf-8", "replace"),
        "body_length": len(request.body),
    }
    return json.dumps(echo).encode()

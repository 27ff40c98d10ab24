"""An ASGI service that answers with its name and an echo, and misbehaves when told; run by uvicorn, a process each.

A request chooses by query or by ``x-test-*`` header: ``status``, ``delay`` (seconds before the answer), ``size`` (bytes
of body instead of the echo), ``chunks`` (the body in so many pieces) and ``chunk_delay`` (seconds between them). What a
request leaves out comes from the standing behaviour, which a test sets by POST /__test__/behave.
"""

import argparse
import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

CONTROL = "/__test__/"
DEFAULTS: dict[str, float] = {"status": 200, "delay": 0.0, "size": -1, "chunks": 1, "chunk_delay": 0.0}


class BackendApp:
    """The service; ``count`` is of requests answered outside the control paths."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.standing = dict(DEFAULTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["path"].startswith(CONTROL):
            await self._control(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if scope["path"] == f"{CONTROL}behave":
            self.standing = {**DEFAULTS, **json.loads(body)}
        state = {"name": self.name, "count": self.count, "standing": self.standing}
        await _answer(send, 200, [json.dumps(state).encode()], 0.0, self.name)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        self.count += 1
        wanted = {**self.standing, **_asked(scope)}
        await asyncio.sleep(wanted["delay"])
        size = int(wanted["size"])
        content = b"x" * size if size >= 0 else json.dumps(_echo(self.name, scope, body)).encode()
        pieces = list(_pieces(content, int(wanted["chunks"])))
        await _answer(send, int(wanted["status"]), pieces, wanted["chunk_delay"], self.name)


def _echo(name: str, scope: Scope, body: bytes) -> dict[str, Any]:
    return {
        "name": name,
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[key.decode("latin-1"), value.decode("latin-1")] for key, value in scope["headers"]],
        "http_version": scope["http_version"],
        "body": body.decode("utf-8", "replace") if len(body) <= 65536 else None,
        "body_length": len(body),
    }


def _asked(scope: Scope) -> dict[str, float]:
    headers = {
        key.decode("latin-1").removeprefix("x-test-").replace("-", "_"): value.decode("latin-1")
        for key, value in scope["headers"]
        if key.startswith(b"x-test-")
    }
    query = dict(parse_qsl(scope["query_string"].decode()))
    return {key: float(value) for key, value in {**query, **headers}.items() if key in DEFAULTS}


def _pieces(content: bytes, count: int) -> Iterator[bytes]:
    step = max(1, -(-len(content) // max(1, count)))
    for start in range(0, max(1, len(content)), step):
        yield content[start : start + step]


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _answer(send: Send, status: int, pieces: list[bytes], pause: float, name: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"x-backend", name.encode())]
    if len(pieces) == 1:
        headers.append((b"content-length", str(len(pieces[0])).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": pieces[-1]})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


def main() -> None:
    """``python -m parts.backend_app --name NAME --port PORT``: prints ``port N`` when it accepts connections."""
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", options.port), backlog=1024)
    config = uvicorn.Config(
        BackendApp(options.name),
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    print(f"port {listener.getsockname()[1]}", flush=True)  # the kernel accepts from here on
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()

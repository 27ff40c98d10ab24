"""A chain of services with lanes, each instance behind a real uvicorn with a mesh of its own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from meshlib import Mesh
from meshlib.http.server import MeshMiddleware

CHAIN = ("gateway", "a", "b", "c")
"""Each calls the next; `b` has no gray version."""
INSTANCES = {"gateway": ("",), "a": ("", "gray"), "b": ("",), "c": ("", "gray")}
_ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{name}]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: {endpoints}
"""


class LaneWorld:
    """Everything started; `url` is the gateway's."""

    def __init__(self, folder: Path, lane_group: str) -> None:
        self._threads: list[threading.Thread] = []
        self._servers: list[uvicorn.Server] = []
        self.meshes: list[Mesh] = []
        sockets = {(name, lane): _listening() for name, lanes in INSTANCES.items() for lane in lanes}
        ports = {instance: sock.getsockname()[1] for instance, sock in sockets.items()}
        entries = [_ENTRY.format(name=name, endpoints=json.dumps(_endpoints(name, ports))) for name in CHAIN]
        self.config = folder / "mesh.yaml"
        self.config.write_text("---\n".join([*entries, lane_group]))
        self.url = f"http://127.0.0.1:{ports['gateway', '']}"
        for (name, lane), sock in sockets.items():
            self._serve(name, lane, sock)

    def _serve(self, name: str, lane: str, sock: socket.socket) -> None:
        mesh = Mesh.from_file(self.config, seed=1)
        self.meshes.append(mesh)
        app: Any = MeshMiddleware(_service(mesh, name, lane), mesh=mesh)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        self._servers.append(server)
        self._threads.append(thread)

    def stop(self) -> None:
        """Stop every server, and with it its mesh."""
        for server in self._servers:
            server.should_exit = True
        for thread in self._threads:
            thread.join(10)


def _listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def _endpoints(name: str, ports: Mapping[tuple[str, str], int]) -> Sequence[dict[str, Any]]:
    return [
        {"address": "127.0.0.1", "ports": {"http": ports[name, lane]}, "labels": {"lane": lane} if lane else {}}
        for lane in INSTANCES[name]
    ]


def _service(mesh: Mesh, name: str, lane: str) -> Any:
    """Answers with the names of all instances that served the request, its own first."""
    following = CHAIN[CHAIN.index(name) + 1 :]
    clients: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send, clients)
            return
        chain = [f"{name}/{lane}"]
        if following:
            if not clients:
                clients.append(mesh.http.async_client(following[0]))
            own = {"baggage": "user=ada"} if name == "a" else {}  # an application's own baggage takes nobody off a lane
            chain += (await clients[0].get("/", headers=own)).json()
        body = json.dumps(chain).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def _lifespan(receive: Any, send: Any, clients: list[Any]) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    for client in clients:
        await client.aclose()
    await send({"type": "lifespan.shutdown.complete"})

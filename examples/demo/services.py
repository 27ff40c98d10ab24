"""The three services, one process an instance: `python -m examples.demo.services ROLE NAME [PORT]`.

`stable` and `canary` are two versions of payments; `flaky` gives hints, and can be told to misbehave (`POST /behave`).
Each is an ordinary FastAPI application with `MeshMiddleware` in front and a mesh of its own for the calls it makes;
the control plane is found by `GRPC_XDS_BOOTSTRAP_CONFIG`, as in every xDS client.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request

from meshlib import CallError, Mesh
from meshlib.http.drain import Drain
from meshlib.integrations.fastapi import MeshMiddleware

Json = dict[str, Any]
PASSED_ON = ("traceparent", "x-request-id", "x-envoy-expected-rq-timeout-ms")


def payments(version: str, instance: str, mesh: Mesh, drain: Drain | None = None) -> FastAPI:
    """Payments: `/charge` and `/report` are its own, `/checkout` asks hints on the way."""
    hints = mesh.http.async_client("hints")
    app = _app(mesh, drain)

    @app.get("/charge")
    async def charge() -> Json:
        return {"charged": True, "version": version, "instance": instance}

    @app.get("/report")
    async def report() -> Json:
        return {"charges": "many", "instance": instance}

    @app.get("/checkout")
    async def checkout(request: Request) -> Json:
        hops = [_seen(request, instance)]
        try:
            answer = await hints.get("/hint")  # trace, request id and deadline go on by themselves
            hops += answer.json()["hops"] if answer.is_success else []
        except CallError as error:  # a hint is optional: with its circuit open this takes microseconds
            return {"charged": True, "hops": hops, "no_hint": str(error.flag)}
        return {"charged": True, "hops": hops}

    return app


def flaky(instance: str, mesh: Mesh, drain: Drain | None = None) -> FastAPI:
    """Hints; and, once it has joined payments' endpoints, a payments instance that is no good."""
    app = _app(mesh, drain)
    behaviour = {"fail": 0.0, "delay": 0.0}

    async def misbehave(fail: float) -> None:
        await asyncio.sleep(behaviour["delay"])
        if random.random() < fail:
            raise HTTPException(503, "not my day")

    @app.post("/behave")
    async def behave(fail: float = 0.0, delay: float = 0.0) -> Json:
        behaviour.update(fail=fail, delay=delay)
        return behaviour

    @app.get("/hint")
    async def hint(request: Request) -> Json:
        await misbehave(1.0 if behaviour["fail"] else 0.0)
        return {"hint": "buy two", "hops": [_seen(request, instance)]}

    @app.get("/charge")
    async def charge() -> Json:
        await misbehave(behaviour["fail"])
        return {"charged": True, "version": "canary", "instance": instance}

    @app.get("/checkout")
    async def checkout(request: Request) -> Json:
        await misbehave(behaviour["fail"])
        return {"charged": True, "hops": [_seen(request, instance)]}

    return app


def _app(mesh: Mesh, drain: Drain | None) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MeshMiddleware, mesh=mesh, readiness_path="/ready", drain=drain)
    return app


def _seen(request: Request, instance: str) -> Json:
    """What arrived with a request, for the trace that the demo prints."""
    return {"instance": instance, **{name: request.headers.get(name, "") for name in PASSED_ON}}


ROLES: dict[str, Callable[[str], FastAPI]] = {
    "stable": lambda name: payments("stable", name, Mesh.from_xds(declared=["hints"])),
    "canary": lambda name: payments("canary", name, Mesh.from_xds(declared=["hints"])),
    "flaky": lambda name: flaky(name, Mesh.from_xds()),
}


def main(role: str, name: str, port: int = 0) -> None:
    """Serve one instance on a port of its own, and say which."""
    serve(name, listen(port), ROLES[role](name))


def listen(port: int) -> socket.socket:
    """A port of our own, bound before it is told: nobody else can take it."""
    return socket.create_server(("127.0.0.1", port))


def serve(name: str, listening: socket.socket, app: FastAPI) -> None:
    """Serve until a signal ends it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    print(f"{name} listens on {listening.getsockname()[1]}", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning"))
    server.run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))

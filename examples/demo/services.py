"""The services, one process an instance: `python -m examples.demo.services ROLE NAME PORT CERTIFICATES`.

`stable` and `canary` are two versions of payments; `flaky` gives hints, and can be told to misbehave (`POST /behave`);
`receipts` speaks gRPC (`receipts.py`). Each of the others is an ordinary FastAPI application with `MeshMiddleware` in
front. Each has a mesh of its own for the calls it makes; the control plane is found by `GRPC_XDS_BOOTSTRAP_CONFIG`, as
in every xDS client. The certificates in its folder are what it shows, to those who call it and to those it calls.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request

from examples.demo import receipts
from examples.demo.certificates import follow
from examples.demo.receipts import Json, ReceiptsStub
from meshlib import CallError, Mesh
from meshlib.http.drain import Drain
from meshlib.identity import Identity
from meshlib.integrations.fastapi import MeshMiddleware
from meshlib.integrations.uvicorn import config as mtls_config


def payments(
    version: str, instance: str, mesh: Mesh, drain: Drain | None = None, receipts: ReceiptsStub | None = None
) -> FastAPI:
    """Payments: `/charge` and `/report` are its own, `/checkout` asks hints, and receipts by gRPC, on the way."""
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
        if receipts is not None:  # trace, request id and deadline go on by themselves, to gRPC as to HTTP
            hops.append((await receipts.Issue({}))["hop"])
        try:
            answer = await hints.get("/hint")
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
    peer = request.state.mesh.peer  # verified by mutual TLS; None on plain HTTP
    return {
        "instance": instance,
        "protocol": "HTTP",
        "traceparent": request.headers.get("traceparent", ""),
        "x-request-id": request.headers.get("x-request-id", ""),
        "ms_left": int(request.headers.get("x-envoy-expected-rq-timeout-ms", 0)),
        "caller": str(peer.spiffe_id) if peer else "",
    }


def main(role: str, name: str, port: int, certificates: Path) -> None:
    """Serve one instance on a port of its own (0: any), and say which."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    identity = follow(certificates)
    mesh = Mesh.from_xds(declared=["hints", "receipts"] if role in ("stable", "canary") else [], identity=identity)
    if role == "receipts":
        asyncio.run(receipts.serve(name, port, mesh, identity))
    elif role == "flaky":
        serve(name, listen(port), flaky(name, mesh), identity)
    else:
        issuing = ReceiptsStub(mesh.grpc.aio_channel("receipts"))
        serve(name, listen(port), payments(role, name, mesh, receipts=issuing), identity)


def listen(port: int) -> socket.socket:
    """A port of our own, bound before it is told: nobody else can take it."""
    return socket.create_server(("127.0.0.1", port))


def serve(name: str, listening: socket.socket, app: FastAPI, identity: Identity | None = None) -> None:
    """Serve until a signal ends it; with an identity by mutual TLS, else by plain HTTP."""
    print(f"{name} listens on {listening.getsockname()[1]}", flush=True)
    quiet: dict[str, Any] = {"access_log": False, "log_level": "warning"}
    config = mtls_config(app, identity=identity, **quiet) if identity else uvicorn.Config(app, **quiet)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))

"""A service that registers itself. `uvicorn` runs `app`; CONSUL_*, SERVICE and PORT of the environment say as what."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from meshlib import Mesh
from meshlib.http.drain import Drain
from meshlib.integrations.fastapi import MeshMiddleware
from meshlib.registration import ConsulRegistration, TtlCheck

registration = ConsulRegistration(
    os.environ["SERVICE"],
    port=int(os.environ["PORT"]),
    address="127.0.0.1",
    check=TtlCheck(float(os.environ.get("TTL", "3"))),
)
drain = Drain(seconds=1.5)
drain.on_drain(registration.leave)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with registration:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(MeshMiddleware, mesh=Mesh.static({}), drain=drain, readiness_path="/ready")


@app.get("/")
async def who() -> dict[str, object]:
    return {"name": os.environ["SERVICE"], "pid": os.getpid()}

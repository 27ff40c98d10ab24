"""The service that calls: `PAYMENTS=127.0.0.1:9001 uvicorn examples.fastapi_app.shop:app`.

The middleware takes trace context, request id and deadline from each request and hands them on with every call made
through the mesh while it is served; it limits, answers readiness, and drains on SIGTERM.
"""

from __future__ import annotations

import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, HTTPException

from meshlib import CallError, Mesh
from meshlib.integrations.fastapi import MeshMiddleware, mesh_client
from meshlib.model.filters import LocalRateLimit, TokenBucket
from meshlib.model.matchers import ALWAYS

mesh = Mesh.static({"payments": os.environ.get("PAYMENTS", "127.0.0.1:9001").split(",")}, timeout=2.0, retries=2)
app = FastAPI()
app.add_middleware(
    MeshMiddleware,
    mesh=mesh,
    rate_limits=[LocalRateLimit("shop", TokenBucket(20, tokens_per_fill=20, fill_interval=1.0), ALWAYS, ALWAYS)],
    drain_seconds=1.0,
    readiness_path="/ready",
)
Payments = Annotated[httpx.AsyncClient, Depends(mesh_client(mesh, "payments"))]


@app.post("/checkout")
async def checkout(payments: Payments) -> dict[str, object]:
    try:
        answer = await payments.post("/charge", json={"amount": 3})
    except CallError as error:
        raise HTTPException(503, f"payments cannot be reached ({error.flag})") from error
    return {"charged": answer.is_success, "payments_saw": answer.json()}

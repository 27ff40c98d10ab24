"""The service that is called: `uvicorn examples.fastapi_app.payments:app --port 9001`."""

from __future__ import annotations

from fastapi import FastAPI, Request

from meshlib import Mesh
from meshlib.integrations.fastapi import MeshMiddleware

app = FastAPI()
app.add_middleware(MeshMiddleware, mesh=Mesh.static({}), readiness_path="/ready")


@app.post("/charge")
async def charge(request: Request) -> dict[str, str]:
    names = ("traceparent", "x-request-id", "x-envoy-expected-rq-timeout-ms")
    return {name: request.headers.get(name, "") for name in names}

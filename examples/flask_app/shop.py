"""A Flask shop that calls a payments service through the mesh: `gunicorn shop:app`, in this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, request

from meshlib import CallError
from meshlib.integrations.flask import Meshlib, client

app = Flask(__name__)
app.config["MESHLIB"] = {
    "CONFIG": os.environ.get("MESH_CONFIG", Path(__file__).parent / "mesh"),
    "UNKNOWN_HOSTS": "reject",
    "RATE_LIMITS": ["200/second"],
    "READINESS_PATH": "/ready",
    "DRAIN_SECONDS": 1.0,
}
Meshlib(app)


@app.errorhandler(CallError)
def unavailable(error: CallError) -> tuple[dict[str, str], int]:
    return {"failed": str(error.flag)}, 503


@app.get("/checkout")
def checkout() -> dict[str, object]:
    answer = client("payments").get("/charge")
    mesh = request.environ["meshlib.context"]
    return {"pid": os.getpid(), "request_id": mesh.request_id, "payments": answer.json()}


@app.get("/receipts")
def receipts() -> Response:
    """Each line is a call of its own, made while the response is on its way."""
    payments = client("payments")

    def lines() -> Iterator[bytes]:
        for _ in range(3):
            yield payments.get("/charge").content + b"\n"

    return Response(lines(), mimetype="application/x-ndjson")

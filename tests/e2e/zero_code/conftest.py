"""`meshlib run` as a user starts it, and what the programs it runs call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from parts import xds_resources as xds
from parts.fast_backend import FastBackend

ROOT = Path(__file__).parents[3]
MESHLIB = [sys.executable, "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**more: str) -> dict[str, str]:
    """The test's own, without what it may know of meshes, tracing and programs that instrument."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESHLIB_", "OTEL_", "GRPC_XDS"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


@pytest.fixture
def meshlib_run(tmp_path: Path) -> Run:
    """`meshlib_run("--config", path, "--", "python", "app.py", NAME="value")`."""

    def run(*arguments: object, before: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
        command = [*before, *MESHLIB, "run", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(**more), capture_output=True, text=True, timeout=60
        )

    return run


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """What the program printed, as JSON; the last line, because instrumentations may print before."""
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def payments(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    return fast_backend("payments")


@pytest.fixture
def other(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    """A host the mesh knows nothing of."""
    return fast_backend("other")


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a gRPC service that answers what it is asked, and `no` at the first call."""
    asked = []

    def say(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked.append(request)
        if len(asked) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        return request

    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {"Say": grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture
def conf(tmp_path: Path, payments: FastBackend, echo: int) -> Path:
    """A folder of configuration: `payments` by HTTP and `echo` by gRPC, each with a retry."""
    folder = tmp_path / "conf"
    folder.mkdir()
    resources = [
        item for name, port in (("payments", payments.port), ("echo", echo)) for item in resources_of(name, port)
    ]
    (folder / "mesh.json").write_text(json.dumps(resources))
    return folder


def resources_of(name: str, port: int) -> list[dict[str, Any]]:
    """One service at one endpoint."""
    retry = {"retry_on": "5xx,unavailable", "num_retries": 1}
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "retry_policy": retry}}
    return [
        xds.any_json(type_url, resource)
        for type_url, resource in (
            (xds.LISTENER, xds.api_listener(name, name)),
            (xds.ROUTE_CONFIGURATION, xds.route_configuration(name, route)),
            (xds.CLUSTER, xds.eds_cluster(name)),
            (xds.CLUSTER_LOAD_ASSIGNMENT, xds.assignment(name, xds.endpoint("127.0.0.1", port))),
        )
    ]

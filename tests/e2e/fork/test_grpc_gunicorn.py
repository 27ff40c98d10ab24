"""gunicorn's pre-fork workers with gRPC channels made in the master: each calls, follows the control plane, and is
replaced by one that works as well.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshlib.control.ads_server import AdsServer, ResourceStore
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.process import Process
from parts.xds import api_listener, cluster, endpoints, resources, routes

ROOT = Path(__file__).parents[3]
WORKERS = 2
PATIENCE = 20.0
DOORS = {"asgi": "uvicorn_worker.UvicornWorker", "wsgi": "sync"}
pytestmark = [pytest.mark.needs("gunicorn"), pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]


class Gunicorn:
    """A master with its workers."""

    def __init__(self, door: str, preload: bool, master: str, target: str, stubs: Stubs, folder: Path) -> None:
        argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", "--bind", "127.0.0.1:0"]
        argv += ["--workers", str(WORKERS), "--worker-class", DOORS[door], "--graceful-timeout", "5"]
        argv += ["--preload"] if preload else []
        path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        env = {"MESH_TARGET": target, "MASTER": master, "STUBS": str(stubs.folder), "PYTHONPATH": path}
        self.process = Process([*argv, f"e2e.fork.gunicorn_grpc_app:{door}"], folder / "gunicorn.log", env=env)
        self.url = self.process.wait_line(r"Listening at: (http://\S+)")[1]

    def until(self, holds: Callable[[list[dict[str, Any]]], bool], what: str) -> list[dict[str, Any]]:
        """Ask over fresh connections until the answers so far satisfy a condition; any failure is the test's."""
        answers: list[dict[str, Any]] = []
        deadline = time.monotonic() + PATIENCE
        while not holds(answers):
            assert time.monotonic() < deadline, f"{what}: {answers[-5:]}\n{self.process.log()[-3000:]}"
            response = httpx.get(self.url, headers={"connection": "close"}, timeout=PATIENCE)
            assert response.status_code == 200, self.process.log()[-3000:]
            answers.append(response.json())
        return answers

    def stop(self) -> None:
        assert self.process.stop() in (0, -signal.SIGTERM), self.process.log()


def served(backend: GrpcBackend) -> list[Any]:
    where = endpoints("all", (backend.host, backend.port))
    return resources(api_listener("payments", "routes"), routes("routes", "all"), cluster("all"), where)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("preload, master", [(False, "called"), (True, "imported"), (True, "called")])
def test_pre_fork_workers(
    door: str, preload: bool, master: str, servers: Any, grpc_stubs: Stubs, echo_backends: Callable[..., Any]
) -> None:
    a, b = echo_backends(2)
    store = ResourceStore(served(a))
    with AdsServer(store) as ads:
        target = f"127.0.0.1:{ads.port}"
        gunicorn = servers.keep(Gunicorn(door, preload, master, target, grpc_stubs, servers.folder("gunicorn")))
        answers = gunicorn.until(lambda seen: len({one["pid"] for one in seen}) == WORKERS, "both workers answer")
        assert {one["backend"] for one in answers} == {"a"}
        store.replace(served(b))

        def updated(seen: list[dict[str, Any]]) -> bool:
            return len({one["pid"] for one in seen if one["backend"] == "b"}) == WORKERS

        workers = {one["pid"] for one in gunicorn.until(updated, "the update reaches every worker")}
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        time.sleep(0.05)  # what was in the dead worker's accept queue is the kernel's to reset
        gunicorn.until(lambda seen: len({one["pid"] for one in seen} - {victim}) == WORKERS, "it is replaced")
        gunicorn.stop()
    assert "Traceback" not in gunicorn.process.log()

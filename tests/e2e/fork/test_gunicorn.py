"""gunicorn's pre-fork workers, with and without `--preload`, on an event loop and blocking.

Every worker serves meshed calls within seconds of its fork, follows the control plane on a stream of its own, shares no
socket with another, and one that is killed is replaced by one that works as well.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.fork.configuration import assert_no_socket_is_shared, served
from meshlib.control.ads_server import AdsServer, ResourceStore
from parts.fast_backend import FastBackend
from parts.process import Process

ROOT = Path(__file__).parents[3]
WORKERS = 2
PATIENCE = 20.0
DOORS = {"asgi": "uvicorn_worker.UvicornWorker", "wsgi": "sync"}
pytestmark = [pytest.mark.needs("gunicorn"), pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]


class Gunicorn:
    """A master with its workers; `ask` makes one request over a connection of its own."""

    def __init__(self, door: str, preload: bool, master: str, target: str, folder: Path) -> None:
        argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", "--bind", "127.0.0.1:0"]
        argv += ["--workers", str(WORKERS), "--worker-class", DOORS[door], "--graceful-timeout", "10"]
        argv += ["--preload"] if preload else []
        environment = {
            "MESH_TARGET": target,
            "MASTER": master,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        }
        log = folder / "gunicorn.log"
        self.process = Process([*argv, f"e2e.fork.gunicorn_app:{door}"], log, env=environment)
        self.url = self.process.wait_line(r"Listening at: (http://\S+)")[1]

    def ask(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(self.url, headers={"connection": "close"}, timeout=PATIENCE).json()
        return answer

    def until(self, holds: Callable[[list[dict[str, Any]]], bool], what: str) -> list[dict[str, Any]]:
        """Ask until the answers so far satisfy a condition; any failure on the way is the test's."""
        answers: list[dict[str, Any]] = []
        deadline = time.monotonic() + PATIENCE
        while not holds(answers):
            assert time.monotonic() < deadline, f"{what}: {answers[-5:]}\n{self.process.log()[-3000:]}"
            answers.append(self.ask())
            time.sleep(0.005)
        return answers

    def stop(self) -> None:
        assert self.process.stop() in (0, -signal.SIGTERM), self.process.log()


@pytest.fixture
def plane(fast_backend: Callable[..., FastBackend]) -> Iterator[tuple[AdsServer, ResourceStore, list[FastBackend]]]:
    backends = [fast_backend("old"), fast_backend("new")]
    store = ResourceStore(served(backends[0]))
    with AdsServer(store) as server:
        yield server, store, backends


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "preload, master",
    [(False, "imported"), (False, "called"), (True, "imported"), (True, "called"), (True, "aio")],
)
def test_pre_fork_workers(door: str, preload: bool, master: str, plane: Any, servers: Any) -> None:
    ads, store, (old, new) = plane
    target = f"127.0.0.1:{ads.port}"
    gunicorn = servers.keep(Gunicorn(door, preload, master, target, servers.folder("gunicorn")))

    answers = gunicorn.until(lambda seen: len({one["pid"] for one in seen}) == WORKERS, "both workers answer")
    assert {one["backend"] for one in answers} == {"old"}

    store.replace(served(new))

    def all_updated(seen: list[dict[str, Any]]) -> bool:
        return len({one["pid"] for one in seen if one["backend"] == "new"}) == WORKERS

    workers = {one["pid"] for one in gunicorn.until(all_updated, "the update reaches every worker")}

    victim = min(workers)
    os.kill(victim, signal.SIGKILL)
    time.sleep(0.05)  # what was in the dead worker's accept queue is the kernel's to reset
    gunicorn.until(lambda seen: len({one["pid"] for one in seen} - {victim}) == WORKERS, "the dead worker is replaced")

    gunicorn.stop()
    assert "Traceback" not in gunicorn.process.log()
    assert_no_socket_is_shared(old, new)

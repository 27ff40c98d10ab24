"""The example applications under gunicorn with real workers, and the payments service behind them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from parts.fast_backend import FastBackend
from parts.process import Process

ROOT = Path(__file__).parents[3]
WORKERS = 2
PATIENCE = 20.0
FOLDERS = {"django": "django_project", "django-async": "django_project", "flask": "flask_app"}
APPS = {"django": "shop.wsgi", "django-async": "shop.asgi:application", "flask": "shop:app"}
CLASSES = {"uvicorn": "uvicorn_worker.UvicornWorker"}


def write_config(folder: Path, payments: FastBackend) -> None:
    """The example's own configuration, with the port of a backend; replaced as an editor or a ConfigMap does."""
    text = (ROOT / "examples/django_project/mesh/payments.yaml").read_text()
    new = folder / ".new"
    new.write_text(text.replace("9001", str(payments.port)))
    new.replace(folder / "payments.yaml")


class Shop:
    """A gunicorn master with two workers that serve one of the examples."""

    def __init__(
        self, app: str, worker: str, preload: bool, folder: Path, payments: FastBackend, *, hook: bool = True
    ) -> None:
        self.config = folder / "mesh"
        self.config.mkdir()
        write_config(self.config, payments)
        project = ROOT / "examples" / FOLDERS[app]
        argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", "--bind", "127.0.0.1:0"]
        argv += ["--chdir", str(project), "--workers", str(WORKERS)]
        nothing = folder / "nothing.conf.py"
        nothing.touch()
        argv += ["--config", str(project / "gunicorn.conf.py" if hook else nothing)]
        argv += ["--worker-class", CLASSES.get(worker, worker), *(["--preload"] if preload else [])]
        argv += ["--threads", "4"] if worker == "gthread" else []
        environment = {"MESH_CONFIG": str(self.config), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = Process([*argv, APPS[app]], folder / "gunicorn.log", environment)
        self.url = self.process.wait_line(r"Listening at: (http://\S+)")[1]

    def get(self, path: str, **headers: str) -> httpx.Response:
        """One request over a connection of its own, as a load balancer's workers get them."""
        return httpx.get(self.url + path, headers={"connection": "close", **headers}, timeout=PATIENCE)

    def until(self, path: str, holds: Callable[[list[Any]], bool], what: str) -> list[Any]:
        """Ask until the answers so far satisfy a condition; each must be a success."""
        answers: list[Any] = []
        deadline = time.monotonic() + PATIENCE
        while not holds(answers):
            assert time.monotonic() < deadline, f"{what}: {answers[-4:]}\n{self.log()[-3000:]}"
            response = self.get(path)
            assert response.status_code == 200, (response.text, self.log()[-3000:])
            answers.append(response.json())
            time.sleep(0.005)
        return answers

    def log(self) -> str:
        return self.process.log()

    def stop(self) -> None:
        assert self.process.stop() in (0, -signal.SIGTERM), self.log()


def pids(answers: list[Any]) -> set[int]:
    return {answer["pid"] for answer in answers}


def assert_connections_belong_to_one_process(payments: FastBackend, answers: list[Any]) -> None:
    """A request says by its id who made it: those of one connection must all come from one worker."""
    workers = {answer["request_id"]: answer["pid"] for answer in answers}
    senders: dict[int, set[int]] = {}
    for request in payments.requests:
        worker = workers.get(request.header("x-request-id") or "")
        if worker is not None:
            senders.setdefault(request.connection, set()).add(worker)
    assert senders
    assert all(len(found) == 1 for found in senders.values()), senders
    assert os.getpid() not in workers.values()

"""Django and Flask under gunicorn with real workers: each kind of worker, forked before and after the application."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.frameworks.shops import ROOT, WORKERS, Shop, assert_connections_belong_to_one_process, pids, write_config
from parts.fast_backend import FastBackend, Reply
from parts.xds import eventually

pytestmark = [pytest.mark.needs("gunicorn"), pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]

SERVED = [
    ("django", "sync", False),
    ("django", "sync", True),
    ("django", "gthread", False),
    ("django", "gthread", True),
    ("django-async", "uvicorn", False),
    ("django-async", "uvicorn", True),
    ("flask", "sync", True),
    ("flask", "gthread", False),
]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("app, worker, preload", SERVED)
def test_a_shop_from_its_first_request_to_its_last(
    app: str, worker: str, preload: bool, tmp_path: Path, servers: Any, fast_backend: Callable[..., FastBackend]
) -> None:
    old, new = fast_backend("old"), fast_backend("new")
    shop: Shop = servers.keep(Shop(app, worker, preload, tmp_path, old))
    checkouts = ("/checkout", "/checkout-async") if app.startswith("django") else ("/checkout",)

    # Both workers answer, each over connections of its own.
    answers = [
        answer
        for path in checkouts
        for answer in shop.until(path, lambda seen: len(pids(seen)) == WORKERS, "both workers answer")
    ]
    assert {answer["payments"]["name"] for answer in answers} == {"old"}

    # What came in goes on: with views of both kinds, and while a response is streamed.
    for path in (*checkouts, "/receipts"):
        before = len(old.requests)
        given = {"traceparent": TRACE, "x-request-id": "mine", "x-envoy-expected-rq-timeout-ms": "1500"}
        response = shop.get(path, **given)
        assert (response.status_code, response.headers["x-request-id"]) == (200, "mine")
        made = old.requests[before:]
        assert len(made) == (3 if path == "/receipts" else 1)
        for seen in made:
            assert (seen.header("traceparent"), seen.header("x-request-id")) == (TRACE, "mine")
            assert 0 < int(seen.header("x-envoy-expected-rq-timeout-ms") or 0) <= 1500
    assert shop.get("/checkout", **{"x-envoy-expected-rq-timeout-ms": "0"}).status_code == 504
    assert shop.get("/ready").text == "ready"

    # A request without an id gets one, and it does not stay with the worker.
    ids = {shop.get("/checkout").json()["request_id"] for _ in range(4)}
    assert len(ids) == 4

    # An edit reaches every worker.
    write_config(shop.config, new)

    def all_new(seen: list[Any]) -> bool:
        return len(pids([one for one in seen if one["payments"]["name"] == "new"])) == WORKERS

    answers += shop.until("/checkout", all_new, "the edit reaches every worker")
    assert_connections_belong_to_one_process(old, answers)
    assert_connections_belong_to_one_process(new, answers)

    # SIGTERM: not ready any more, and still serving until the time is over; nobody is refused or cut off.
    finished = drained(shop)
    assert finished["code"] == 0, shop.log()
    assert finished["statuses"] == {200}
    assert finished["seconds"] > 0.5
    assert "Traceback" not in shop.log()


def drained(shop: Shop) -> dict[str, Any]:
    """Send SIGTERM under load; what callers saw until the workers said that they are not ready, and how it ended."""
    statuses: set[int] = set()
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            statuses.add(shop.get("/checkout").status_code)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    began = time.monotonic()
    os.kill(shop.process.pid, signal.SIGTERM)
    eventually(lambda: shop.get("/ready").status_code == 503, "readiness fails")
    statuses.add(shop.get("/checkout").status_code)
    enough.set()
    for caller in callers:
        caller.join()
    code = shop.process._child.wait(15)
    return {"code": code, "statuses": statuses, "seconds": time.monotonic() - began}


def test_what_the_mesh_refuses_is_told(tmp_path: Path, servers: Any, fast_backend: Callable[..., FastBackend]) -> None:
    payments = fast_backend("old")
    shop: Shop = servers.keep(Shop("flask", "sync", False, tmp_path, payments))
    shop.until("/checkout", lambda seen: len(pids(seen)) == WORKERS, "both workers have their configuration")
    payments.behave(Reply(fault="hang"))
    response = shop.get("/checkout", **{"x-envoy-expected-rq-timeout-ms": "200"})
    assert (response.status_code, response.json()) == (503, {"failed": "UT"})


def test_a_sync_worker_drains_without_the_servers_hook_once_it_has_served(
    tmp_path: Path, servers: Any, fast_backend: Callable[..., FastBackend]
) -> None:
    shop: Shop = servers.keep(Shop("django", "sync", False, tmp_path, fast_backend("old"), hook=False))
    shop.until("/checkout", lambda seen: len(pids(seen)) == WORKERS, "both workers answer")
    finished = drained(shop)
    assert (finished["code"], finished["statuses"]) == (0, {200}), shop.log()
    assert finished["seconds"] > 0.5


def test_the_examples_settings_are_in_order(tmp_path: Path) -> None:
    argv = [sys.executable, "manage.py", "check", "--fail-level", "WARNING"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    project = ROOT / "examples" / "django_project"
    done = subprocess.run(argv, cwd=project, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "System check identified no issues (0 silenced).\n"), done.stderr
